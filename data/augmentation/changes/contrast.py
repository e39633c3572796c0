"""Contrast: the distance from the mean."""

import tensorflow as tf

from data import schema
from data.augmentation import color, kinds


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Color:
    """Returns the change x -> c x + (1 - c) m, with c within 1 -/+ `strength`.

    m is the mean over the image of the luma of its pixels, or, where there are not
    three channels, of all numbers alike.
    """
    count = image_format.num_channels
    weights = schema.LUMA_WEIGHTS if count == 3 else (1 / count,) * count

    def map_colors(draws: tf.Tensor, means: tf.Tensor) -> color.Map:
        factors = 1 + kinds.spread(draws[:, 0], strength)
        levels = tf.reduce_sum(means * weights, 1, keepdims=True)
        return color.scale_from(tf.repeat(levels, count, 1), factors)

    return kinds.Color(1, map_colors, needs_means=True)
