"""The U-Net: encoders, decoder layers and their assembly."""
