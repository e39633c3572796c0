"""Every encoder with every decoder, through all that a run does with a model."""
