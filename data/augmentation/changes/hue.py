"""Hue: a turn about the grey axis."""

import math

import numpy as np
import tensorflow as tf

from data import schema
from data.augmentation import color, kinds

_YIQ = np.array(
    [schema.LUMA_WEIGHTS, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)]
)
"""Luma and two differences of colours, of red, green and blue (NTSC). The rows of the
differences add up to 0, so grey has none."""

_TURN = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""A quarter turn of the differences, in the plane of equal luma."""


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Color:
    """Returns the change that turns colours by at most `strength` degrees.

    It is a rotation of I and Q in the colour space YIQ: luma and grey stay.

    Raises:
      ValueError: if the images do not have three channels.
    """
    color.require_rgb(image_format.num_channels)
    to_rgb = np.linalg.inv(_YIQ)
    grey = np.tile(schema.LUMA_WEIGHTS, (3, 1))
    aside = to_rgb @ _TURN @ _YIQ

    def map_colors(draws: tf.Tensor, means: tf.Tensor) -> color.Map:
        angles = kinds.spread(draws[:, :1], math.radians(strength))[..., tf.newaxis]
        straight = tf.cos(angles) * tf.constant(np.eye(3) - grey, tf.float32)
        sideways = tf.sin(angles) * tf.constant(aside, tf.float32)
        return grey.astype(np.float32) + straight + sideways, tf.zeros_like(means)

    return kinds.Color(1, map_colors)
