"""Scaling, and a window of the original size."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, maps


def make(
    strength: tuple[float, float], image_format: schema.ImageFormat
) -> kinds.Geometry:
    """Returns the change that scales an example and cuts a window out of it.

    Args:
      strength: least and greatest factor; it is drawn uniformly, as is the place of
        the window.
      image_format: of the images.
    """
    del image_format
    low, high = strength

    def map_back(draws: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        return scale_and_crop(low + (high - low) * draws[:, 0], draws[:, 1:], size)

    return kinds.Geometry(3, map_back, keeps_axes=True)


def scale_and_crop(
    factors: tf.Tensor, places: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
    """Returns the maps that scale examples and cut windows of the original size.

    An example of `length` pixels becomes `factor * length` long, and the window starts
    at `place * (factor - 1) * length` of it. With a factor below 1 that is a negative
    number: all of the smaller example lies in the window. So the centre of the window
    is at

        (place - 1/2) (factor - 1) length / factor

    of the example, as seen from its centre.

    Args:
      factors: float32 [rows], greater than 0.
      places: float32 [rows, 2], of the window in height and width; 0: at the top or
        the left, 1: at the bottom or the right.
      size: height and width.

    Returns:
      float32 [rows, 2, 3].
    """
    grown, zeros = (factors - 1) / factors, tf.zeros_like(factors)
    # TensorFlow makes an estimate of 1 / factor, which is not 1 for a factor of 1.
    inverses = 1 - grown
    shifts = (places - 0.5) * grown[:, tf.newaxis] * size
    return maps.make([[inverses, zeros], [zeros, inverses]], tf.unstack(shifts, axis=1))
