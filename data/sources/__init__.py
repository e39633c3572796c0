"""Sources of labelled images: TFDS data sets and a built-in synthetic set."""
