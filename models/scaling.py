"""Images as a pretrained network wants them: scaled, and large enough for its strides.

Both happen in one layer, so that a model has the same layers, and with that the same
checkpoints, at all image sizes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

PHOTO_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
"""Of red, green and blue over ImageNet's photos, in 0..255."""

PHOTO_DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Their standard deviations."""


_WHOLE_RANGES = ((0, 255), (0, 65535))
"""Of 8 and of 16 bits, which hold no values beyond them."""


class Images(NamedTuple):
    """What images a model takes.

    Attributes:
      num_channels: of them.
      value_range: their values from black to white.
      is_measured: whether each channel is normalized by its own mean and deviation
        rather than as a pretrained network wants it; channels beyond 3 are in any case.
    """

    num_channels: int = 3
    value_range: tuple[int, int] = (0, 255)
    is_measured: bool = False

    @property
    def num_measured(self) -> int:
        """How many channels, the last ones, are normalized by their own statistics."""
        return self.num_channels if self.is_measured else max(self.num_channels - 3, 0)


RGB = Images()
"""Photos of 8 bits, scaled as a pretrained network wants them."""


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


LIKE_PHOTOS = Scaling(
    mean=PHOTO_MEAN, scale=tuple(1 / deviation for deviation in PHOTO_DEVIATION)
)
"""To the mean 0 and the deviation 1 of ImageNet's photos."""


class ImageScaling(keras.layers.Layer):
    """Scales images, and pads them to a multiple of what the strides need.

    Images, [batch, height, width, channels], become floats in the order and range of
    the network. If a side is no multiple, the image is mirrored about its last row or
    column until it is.

    A channel x becomes scale * x + offset. For the last `num_measured` channels, these
    two follow from the mean and the deviation that `set_statistics` was given: such a
    channel is brought to the mean and the deviation of photos, and then scaled as
    photos are. The statistics are weights of the layer, so checkpoints have them.

    Values beyond the range count as the nearest in it, as those of training images do.
    Of the whole range of 8 or 16 bits, none are beyond it, and nothing is clipped.

    It computes in float32: bfloat16 would be off by up to 1.2 of the 255 steps.
    """

    def __init__(
        self,
        *,
        scale: Sequence[float],
        offset: Sequence[float],
        value_range: Sequence[float] = (0, 255),
        num_measured: int = 0,
        reverses_channels: bool = False,
        multiple: int,
        **kwargs,
    ):
        """Makes the layer.

        Args:
          scale: for values in 0..255, one number for each channel, in the order of the
            images.
          offset: as many.
          value_range: what the images have in place of 0..255.
          num_measured: how many channels, the last ones, have statistics.
          reverses_channels: whether the last channel becomes the first.
          multiple: the sides of the output are multiples of it.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**{"dtype": keras.config.floatx(), **kwargs})
        self._scale = list(scale)
        self._offset = list(offset)
        low, high = value_range
        self._value_range = (low, high)
        # To 0..255, by value * scale + offset; 1 and 0 for what is there already.
        self._range_scale = 255 / (high - low)
        self._range_offset = -low * self._range_scale
        self.reverses_channels = reverses_channels
        self.multiple = multiple
        self.num_measured = num_measured

    def build(self, input_shape):
        if not self.num_measured:
            return
        num_fixed = input_shape[-1] - self.num_measured
        # Those of photos change nothing, as long as nothing is measured.
        values = [_in_turn(v, input_shape[-1]) for v in (PHOTO_MEAN, PHOTO_DEVIATION)]
        self.mean, self.deviation = (
            self.add_weight(
                name=name,
                shape=[self.num_measured],
                initializer=lambda shape, dtype, v=value: tf.constant(v, dtype),
                trainable=False,
            )
            for name, value in zip(
                ("mean", "deviation"), (v[num_fixed:] for v in values), strict=True
            )
        )

    def set_statistics(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Takes the statistics of all channels, in the values of the images.

        Args:
          mean: of each channel.
          deviation: of each channel; greater than 0.
        """
        first = len(mean) - self.num_measured
        self.mean.assign(
            [m * self._range_scale + self._range_offset for m in mean[first:]]
        )
        self.deviation.assign([d * self._range_scale for d in deviation[first:]])

    def call(self, images):
        dtype = self.compute_dtype
        # Before it is gathered: GPUs have no kernel for that of uint16.
        images = _pad(tf.cast(images, dtype), self.multiple)
        if self.clipped_range:
            images = tf.clip_by_value(images, *self.clipped_range)
        scale, offset = self.scale_and_offset()
        # From float32 also for float64, which is how Keras' `Rescaling` takes them.
        images = images * tf.cast(scale, dtype)
        images = images + tf.cast(offset, dtype)
        return tf.reverse(images, [-1]) if self.reverses_channels else images

    @property
    def clipped_range(self) -> tuple[float, float] | None:
        """The least and the greatest value that counts as such; None: all do."""
        if self._value_range in _WHOLE_RANGES:
            return None
        low, high = self._value_range
        return float(low), float(high)

    def scale_and_offset(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what images are multiplied by, and what is added then.

        Each is float32 [channels], for the values and the order of the images.
        """
        scale = tf.constant(self._scale, tf.float32)  # [channels]
        offset = tf.constant(self._offset, tf.float32)
        if self.num_measured:
            num_channels = len(self._scale)
            num_fixed = num_channels - self.num_measured
            photo_mean, photo_deviation = (
                tf.constant(_in_turn(values, num_channels)[num_fixed:], tf.float32)
                for values in (PHOTO_MEAN, PHOTO_DEVIATION)
            )
            own = photo_deviation / tf.cast(self.deviation, tf.float32)  # [measured]
            shift = photo_mean - tf.cast(self.mean, tf.float32) * own
            offset += scale * tf.pad(shift, [[num_fixed, 0]])
            scale *= tf.pad(own, [[num_fixed, 0]], constant_values=1)
        return scale * self._range_scale, offset + scale * self._range_offset


def make_image_scaling(
    scaling: Scaling, images: Images = RGB, *, multiple: int
) -> ImageScaling:
    """Makes the layer for images of any number of channels.

    Channels beyond red, green and blue are scaled as these are, in turn. A single
    channel is scaled by the mean of the three numbers.

    Args:
      scaling: of the network.
      images: what comes in.
      multiple: the sides of the output are multiples of it.
    """
    mean, scale = (
        _in_turn(values, images.num_channels)
        for values in (scaling.mean, scaling.scale)
    )
    return ImageScaling(
        scale=scale,
        offset=[-m * s for m, s in zip(mean, scale, strict=True)],
        value_range=images.value_range,
        num_measured=images.num_measured,
        reverses_channels=scaling.is_bgr and images.num_channels == 3,
        multiple=multiple,
        name="scaling",
    )


def find_image_scaling(model: keras.Model) -> ImageScaling:
    """Returns the layer that scales the images of a model.

    Raises:
      ValueError: if there is none.
    """
    for layer in model.layers:
        if isinstance(layer, ImageScaling):
            return layer
        if isinstance(layer, keras.Model):
            return find_image_scaling(layer)
    raise ValueError(f"{model.name} has no ImageScaling")


def _in_turn(values: Sequence[float], num_channels: int) -> list[float]:
    """Returns numbers of red, green and blue for other numbers of channels."""
    if num_channels == 1:
        return [sum(values) / len(values)]
    return [values[index % len(values)] for index in range(num_channels)]


def adapt_kernel(
    kernel: tf.Tensor, num_channels: int, colours: Sequence[int]
) -> tf.Tensor:
    """Returns a first layer's kernel for another number of channels than three.

    A single channel gets the sum over the colours, as a grey photo of three channels
    does. Several channels are taken as red, green and blue in turn, and the kernel is
    scaled so that the sum over all channels keeps its size.

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


def mirrored_positions(size: int, multiple: int) -> list[int]:
    """Returns the rows, or columns, that an image is made of once it is padded.

    Args:
      size: how many there are.
      multiple: the number that results is a multiple of it.
    """
    period = max(2 * size - 2, 1)
    places = [place % period for place in range(-(-size // multiple) * multiple)]
    return [min(place, period - place) for place in places]


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
