"""Mirroring top to bottom."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, maps


def make(strength: bool, image_format: schema.ImageFormat) -> kinds.Geometry:
    """Returns the change that mirrors an example with probability 1/2."""
    del strength, image_format
    return kinds.Geometry(1, _map_back, keeps_axes=True, rearranges=("y",))


def _map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    del size
    ones = tf.ones_like(draws[:, 0])
    zeros = tf.zeros_like(ones)
    return maps.make([[tf.where(draws[:, 0] < 0.5, -ones, ones), zeros], [zeros, ones]])
