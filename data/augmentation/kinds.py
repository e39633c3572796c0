"""What a random change can be: where pixels are, how they are coloured, or else.

Changes of the first two kinds are joined before they are done: all geometry of an
example is one map and one resampling, all affine changes of its colours are one
product. The others follow one by one.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

_PHILOX = 1
"""The number of the algorithm in TensorFlow's ops (Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3", SC 2011)."""

_BLOCK_SIZE = 4
"""Numbers that Philox makes of one value of its counter."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A change of the places of pixels, in images and labels.

    Attributes:
      num_draws: numbers that it draws for each example.
      map_back: of draws, float32 [rows, num_draws], and the height and width of the
        examples, makes maps from the new example to the old one; see
        `data.augmentation.maps`.
      keeps_axes: whether rows stay rows, and columns columns.
      rearranges: what the change does if it only moves whole pixels: `y` and `x` for
        the axes that it may mirror, `swap` if it may swap the two, which keeps all
        pixels of an example of equal sides. Empty: it interpolates.
      new_size: height and width of the new example; None: those of the old one.
    """

    num_draws: int
    map_back: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor]
    keeps_axes: bool = False
    rearranges: tuple[str, ...] = ()
    new_size: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Placement:
    """A change of the place of examples that follows from what is in them.

    It is made after all geometry, and moves examples without turning them.

    Attributes:
      num_draws: numbers that it draws for each example.
      map_back: of draws, float32 [rows, num_draws], labels uint8 [rows, height, width],
        and the maps from the example as it is after all geometry back to these, makes
        maps from the new example to that one; see `data.augmentation.maps`.
    """

    num_draws: int
    map_back: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


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


class Rows(NamedTuple):
    """The rows of a global batch that a replica has, for numbers drawn by the pixel.

    Attributes:
      step: int64 scalar.
      first_row: int64 scalar, the number of the first one in the global batch.
      key: of the draws, less than 2**63; another one for each change and seed.
    """

    step: tf.Tensor
    first_row: tf.Tensor
    key: int

    def normal(self, shape: tuple[int, ...]) -> tf.Tensor:
        """Draws numbers from the standard normal distribution.

        The generator starts at a place that depends on the number of the row, so the
        numbers of other rows need not be made.

        Args:
          shape: rows of the replica, and the shape of the numbers of each.

        Returns:
          float32 of that shape.
        """
        num_rows, *row_shape = shape
        size = math.prod(row_shape)
        num_blocks = -(-size // _BLOCK_SIZE)
        counter = tf.stack([self.first_row * num_blocks, self.step])
        draws = tf.raw_ops.StatelessRandomNormalV2(
            shape=[num_rows, num_blocks * _BLOCK_SIZE],
            key=tf.constant([self.key], tf.uint64),
            counter=tf.cast(counter, tf.uint64),
            alg=_PHILOX,
        )
        return tf.reshape(draws[:, :size], shape)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A change of images, or labels too, that is neither of the others.

    Attributes:
      num_draws: numbers that it draws for each example.
      change: of images [rows, height, width, channels], labels uint8 [rows, height,
        width], draws, float32 [rows, num_draws], and `Rows`, makes images and labels
        of the same shapes. Images are uint8 or float32, and may become float32.
      mixes_pairs: whether rows 2i and 2i + 1 of the global batch see each other.
    """

    num_draws: int
    change: Callable[
        [tf.Tensor, tf.Tensor, tf.Tensor, Rows], tuple[tf.Tensor, tf.Tensor]
    ]
    mixes_pairs: bool = False


def spread(draws: tf.Tensor, strength: float) -> tf.Tensor:
    """Returns draws from [0, 1) spread over [-strength, strength)."""
    return (2 * draws - 1) * strength
