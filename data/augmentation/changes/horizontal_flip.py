"""Mirroring left to right."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, maps


def make(strength: bool, image_format: schema.ImageFormat) -> kinds.Geometry:
    """Returns the change that mirrors an example with probability 1/2."""
    del strength, image_format
    return kinds.Geometry(1, _map_back, keeps_axes=True, rearranges=("x",))


def _map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    del size
    return mirror(draws[:, 0] < 0.5)


def mirror(is_mirrored: tf.Tensor) -> tf.Tensor:
    """Returns the maps, float32 [rows, 2, 3], that mirror where bool [rows] says so."""
    ones = tf.ones_like(is_mirrored, tf.float32)
    zeros = tf.zeros_like(ones)
    return maps.make([[ones, zeros], [zeros, tf.where(is_mirrored, -ones, ones)]])
