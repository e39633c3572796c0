"""What the model will run on, for what is faster on one kind of device only."""

import tensorflow as tf


def is_on_cpu() -> bool:
    """Tells whether there is no GPU that would be used by default."""
    return not tf.config.list_logical_devices("GPU")
