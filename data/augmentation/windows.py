"""Windows of the examples, of a size of their own."""

import tensorflow as tf

from data.augmentation import kinds, maps

NAME = "crop_size"
"""Its draws are keyed by this name, as those of a change are by theirs."""


def make(new_size: tuple[int, int]) -> kinds.Geometry:
    """Returns the change that leaves a window at a place drawn for each example.

    The corner of the window is that of a pixel, and each place is as likely: without
    other geometry no number in the window changes.

    Args:
      new_size: height and width of the window, at most those of the examples.
    """

    def map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        ones = tf.ones_like(draws[:, 0])
        zeros = tf.zeros_like(ones)
        shifts = [
            # From the middle of the example to that of the window.
            tf.floor(draws[:, axis] * (old - new + 1)) + (new - old) / 2
            for axis, (old, new) in enumerate(zip(size, new_size, strict=True))
        ]
        return maps.make([[ones, zeros], [zeros, ones]], tuple(shifts))

    return kinds.Geometry(2, map_back, keeps_axes=True, new_size=new_size)
