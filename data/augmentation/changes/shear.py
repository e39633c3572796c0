"""Shear: rows moved sideways, the more the further they are from the centre."""

import math

import tensorflow as tf

from data import schema
from data.augmentation import kinds, maps


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Geometry:
    """Returns the change that has upright lines lean by at most `strength` degrees."""
    del image_format

    def map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        del size
        slopes = tf.tan(kinds.spread(draws[:, 0], math.radians(strength)))
        ones, zeros = tf.ones_like(slopes), tf.zeros_like(slopes)
        return maps.make([[ones, zeros], [slopes, ones]])

    return kinds.Geometry(1, map_back)
