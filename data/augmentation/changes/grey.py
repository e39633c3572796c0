"""Images without their colours, now and then."""

import tensorflow as tf

from data import schema
from data.augmentation import color, kinds


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Color:
    """Returns the change that makes an image grey with probability `strength`.

    Each channel becomes the luma.

    Raises:
      ValueError: if the images do not have three channels.
    """
    color.require_rgb(image_format.num_channels)

    def map_colors(draws: tf.Tensor, means: tf.Tensor) -> color.Map:
        is_grey = (draws[:, 0] < strength)[:, tf.newaxis, tf.newaxis]
        to_luma = tf.constant([schema.LUMA_WEIGHTS] * 3)
        return tf.where(is_grey, to_luma, tf.eye(3)), tf.zeros_like(means)

    return kinds.Color(1, map_colors)
