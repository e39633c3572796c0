"""Images as a pretrained network wants them: scaled, and large enough for its strides.

Both happen in one layer, so that a model has the same layers, and with that the same
checkpoints, at all image sizes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf


class Scaling(NamedTuple):
    """How a network's weights want its images: (image - mean) * scale.

    Attributes:
      mean: one number, or those of red, green and blue, in 0..255.
      scale: one number, or those of red, green and blue.
      is_bgr: whether the network takes blue first.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    is_bgr: bool = False

    @property
    def colours(self) -> tuple[int, int, int]:
        """Where the network's first layer has red, green and blue."""
        return (2, 1, 0) if self.is_bgr else (0, 1, 2)


class ImageScaling(keras.layers.Layer):
    """Scales images, and pads them to a multiple of what the strides need.

    Images, [batch, height, width, channels] in 0..255, become floats in the order and
    range of the network. At the bottom and at the right, the image is mirrored about
    its last row and column until the sides are multiples; sides that are stay as they
    are.

    It computes in float32: bfloat16 would be off by up to 1.2 of the 255 steps.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        scale: Sequence[float],
        reverses_channels: bool = False,
        multiple: int,
        **kwargs,
    ):
        """Makes the layer.

        Args:
          mean: one number for each channel, in the order of the images.
          scale: as many.
          reverses_channels: whether the last channel becomes the first.
          multiple: of which the sides of the output are.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**{"dtype": keras.config.floatx(), **kwargs})
        self._scale = list(scale)
        self._offset = [-m * s for m, s in zip(mean, scale, strict=True)]
        self._reverses_channels = reverses_channels
        self._multiple = multiple

    def call(self, images):
        dtype = self.compute_dtype
        images = tf.cast(_pad(images, self._multiple), dtype)
        # From float32 also for float64, which is how Keras' `Rescaling` takes them.
        images = images * tf.cast(tf.constant(self._scale, tf.float32), dtype)
        images = images + tf.cast(tf.constant(self._offset, tf.float32), dtype)
        return tf.reverse(images, [-1]) if self._reverses_channels else images


def make_image_scaling(
    scaling: Scaling, *, num_channels: int, multiple: int
) -> ImageScaling:
    """Makes the layer for images of any number of channels.

    Channels beyond red, green and blue are scaled as these are, in turn; a single one
    is by the mean of the three.

    Args:
      scaling: of the network.
      num_channels: of the images.
      multiple: of which the sides of the output are.
    """
    mean, scale = (
        [sum(values) / len(values)]
        if num_channels == 1
        else [values[i % len(values)] for i in range(num_channels)]
        for values in (scaling.mean, scaling.scale)
    )
    return ImageScaling(
        mean=mean,
        scale=scale,
        reverses_channels=scaling.is_bgr and num_channels == 3,
        multiple=multiple,
        name="scaling",
    )


def adapt_kernel(
    kernel: tf.Tensor, num_channels: int, colours: Sequence[int]
) -> tf.Tensor:
    """Returns a first layer's kernel for another number of channels than three.

    A single channel gets the sum over the colours, which is what a grey photo meets.
    More are taken as red, green and blue in turn, and the kernel is scaled so that the
    sum over all channels keeps its size.

    Args:
      kernel: [height, width, 3, filters].
      num_channels: of the images; not 3.
      colours: where the kernel has red, green and blue.

    Returns:
      [height, width, num_channels, filters].
    """
    if num_channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    order = [colours[index % 3] for index in range(num_channels)]
    return kernel[:, :, order] * (3 / num_channels)


def _pad(images: tf.Tensor, multiple: int) -> tf.Tensor:
    """Mirrors images about their last row and column up to multiples of a number."""
    for axis in (1, 2):
        size = images.shape[axis]
        if size is None:
            size = tf.shape(images)[axis]
        elif size % multiple == 0:
            continue
        # The positions 0, ..., n-1, n-2, ..., 1 and again from the start.
        period = tf.maximum(2 * size - 2, 1)
        positions = tf.range(-(-size // multiple) * multiple) % period
        images = tf.gather(images, tf.minimum(positions, period - positions), axis=axis)
    return images
