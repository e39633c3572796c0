"""Turning about the centre."""

import math

import tensorflow as tf

from data import schema
from data.augmentation import kinds, maps


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Geometry:
    """Returns the change that turns an example by at most `strength` degrees."""
    del image_format

    def map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        del size
        angles = kinds.spread(draws[:, 0], math.radians(strength))
        cos, sin = tf.cos(angles), tf.sin(angles)
        return maps.make([[cos, -sin], [sin, cos]])

    return kinds.Geometry(1, map_back)
