"""Turning by 0, 90, 180 or 270 degrees."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, maps


def make(strength: bool, image_format: schema.ImageFormat) -> kinds.Geometry:
    """Returns the change that turns an example by quarters, each number as likely.

    The size stays. Where the sides are equal no pixel is lost; of a longer side the
    ends are cut off, and beside the shorter one the new example is filled and ignored.
    """
    del strength, image_format
    return kinds.Geometry(1, _map_back, rearranges=("y", "x", "swap"))


def _map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    del size
    number = tf.cast(tf.floor(draws[:, 0] * 4), tf.int32)
    cos = tf.gather(tf.constant([1.0, 0.0, -1.0, 0.0]), number)
    sin = tf.gather(tf.constant([0.0, 1.0, 0.0, -1.0]), number)
    return maps.make([[cos, -sin], [sin, cos]])
