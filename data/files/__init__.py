"""Files of images and masks, and what their values mean."""
