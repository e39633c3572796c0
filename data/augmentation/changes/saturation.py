"""Saturation: the distance of a pixel from its own grey."""

import tensorflow as tf

from data import schema
from data.augmentation import color, kinds


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Color:
    """Returns the change x -> s x + (1 - s) luma(x), with s within 1 -/+ `strength`.

    Raises:
      ValueError: if the images do not have three channels.
    """
    color.require_rgb(image_format.num_channels)

    def map_colors(draws: tf.Tensor, means: tf.Tensor) -> color.Map:
        factors = 1 + kinds.spread(draws[:, :1], strength)[..., tf.newaxis]
        to_luma = tf.constant([schema.LUMA_WEIGHTS] * 3)
        matrices = factors * tf.eye(3) + (1 - factors) * to_luma
        return matrices, tf.zeros_like(means)

    return kinds.Color(1, map_colors)
