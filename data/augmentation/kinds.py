"""What a random change can be: where pixels are, or how they are coloured.

Changes of a kind are joined before they are done: all geometry of an example is one
map and one resampling, all affine changes of its colours are one product.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A change of the places of pixels, in images and labels.

    Attributes:
      num_draws: numbers that it draws for each example.
      map_back: of draws, float32 [rows, num_draws], and the height and width of the
        examples, makes maps from the new example to the old one; see
        `data.augmentation.maps`.
      keeps_pixels: whether each new pixel is one of the old ones, in an example whose
        sides are equal.
      keeps_axes: whether rows stay rows, and columns columns.
    """

    num_draws: int
    map_back: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor]
    keeps_pixels: bool = False
    keeps_axes: bool = False


@dataclasses.dataclass(frozen=True)
class Color:
    """A change of the channels of all pixels of an image, by one affine map.

    Attributes:
      num_draws: numbers that it draws for each example.
      map_colors: of draws, float32 [rows, num_draws], and the mean of each channel,
        float32 [rows, channels], makes a map; see `data.augmentation.color`.
      needs_means: whether the map depends on the means.
    """

    num_draws: int
    map_colors: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    needs_means: bool = False


def spread(draws: tf.Tensor, strength: float) -> tf.Tensor:
    """Returns draws from [0, 1) spread over [-strength, strength)."""
    return (2 * draws - 1) * strength
