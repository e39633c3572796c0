"""Brightness: the distance from black."""

import tensorflow as tf

from data import schema
from data.augmentation import color, kinds


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Color:
    """Returns the change x -> b x, with b within 1 -/+ `strength`.

    x is the distance from the least value of the format, which is black.
    """
    black = float(image_format.value_range[0])

    def map_colors(draws: tf.Tensor, means: tf.Tensor) -> color.Map:
        factors = 1 + kinds.spread(draws[:, 0], strength)
        return color.scale_from(tf.fill(tf.shape(means), black), factors)

    return kinds.Color(1, map_colors)
