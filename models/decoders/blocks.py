"""What decoders are made of: a convolution with norm and ReLU, and the logits."""

from collections.abc import Sequence
from typing import NamedTuple

import keras

from models import layers
from models.fast import convolutions, normalization

FINEST_STRIDE = 4
"""Decoders that leave out finer maps do so as their papers do, whose encoders have
none: such maps cost most and say least."""


class Blocks(NamedTuple):
    """What all blocks of a decoder have in common.

    Attributes:
      norm: `batch` or `group`.
      dropout: share of the features that a training step drops where `drops` is set.
      synchronized: whether batch norm takes its statistics over all replicas.
    """

    norm: str = "batch"
    dropout: float = 0.0
    synchronized: bool = False

    def convolve(
        self,
        features: keras.KerasTensor | Sequence[keras.KerasTensor],
        filters: int,
        kernel_size: int = 3,
        *,
        name: str,
        drops: bool = False,
    ) -> keras.KerasTensor:
        """Applies a convolution without bias, the norm and a ReLU.

        Args:
          features: [batch, height, width, any], or several, taken as joined along
            their channels.
          filters: channels of the result.
          kernel_size: height and width of the kernel.
          name: with `_conv`, `_norm` and `_relu` behind it, that of a layer.
          drops: whether dropout has a place here.

        Returns:
          [batch, height, width, filters].
        """
        is_joined = isinstance(features, Sequence) and len(features) > 1
        kind = convolutions.JoinedConv2D if is_joined else convolutions.Conv2D
        if not is_joined:
            (features,) = keras.tree.flatten(features)
        convolution = kind(
            filters, kernel_size, padding="same", use_bias=False, name=f"{name}_conv"
        )
        return self._follow(convolution, features, name, drops=drops)

    def convolve_separably(
        self, features: keras.KerasTensor, filters: int, *, rate: int = 1, name: str
    ) -> keras.KerasTensor:
        """Applies a 3x3 convolution in two: of each channel, then of each pixel.

        Norm and ReLU follow both, as in DeepLabv3+ (arXiv:1802.02611, 3.2).

        Args:
          features: [batch, height, width, any].
          filters: channels of the result.
          rate: distance of the pixels that the kernel takes (atrous convolution).
          name: of the layers, with `_depthwise` or `_pointwise` and as above behind it.

        Returns:
          [batch, height, width, filters].
        """
        depthwise = convolutions.DepthwiseConv2D(
            3,
            padding="same",
            dilation_rate=rate,
            use_bias=False,
            name=f"{name}_depthwise_conv",
        )
        features = self._follow(depthwise, features, f"{name}_depthwise")
        return self.convolve(features, filters, 1, name=f"{name}_pointwise")

    def activate(
        self, features: keras.KerasTensor, *, name: str, drops: bool = False
    ) -> keras.KerasTensor:
        """Applies norm and ReLU."""
        norm = self.make_norm(features.shape[-1], name=f"{name}_norm")
        return self._relu(norm(features), name, drops)

    def make_norm(self, num_channels: int, *, name: str) -> keras.layers.Layer:
        """Makes the norm of a feature map.

        Args:
          num_channels: of the map.
          name: of the layer.
        """
        if self.norm == "group":
            groups = normalization.choose_groups(num_channels)
            return normalization.GroupNormalization(groups, name=name)
        return normalization.BatchNormalization(
            synchronized=self.synchronized, name=name
        )

    def _follow(
        self,
        convolution: convolutions.Conv2D | convolutions.DepthwiseConv2D,
        features: keras.KerasTensor | Sequence[keras.KerasTensor],
        name: str,
        *,
        drops: bool = False,
    ) -> keras.KerasTensor:
        """Applies a convolution, with its norm folded in if it can be, and a ReLU."""
        features = convolution(features)
        norm = self.make_norm(features.shape[-1], name=f"{name}_norm")
        if isinstance(norm, normalization.BatchNormalization):
            convolution.fold(norm)
        return self._relu(norm(features), name, drops)

    def _relu(
        self, features: keras.KerasTensor, name: str, drops: bool
    ) -> keras.KerasTensor:
        name = f"{name}_relu"
        if not drops:
            return keras.layers.ReLU(name=name)(features)
        return layers.DroppingReLU(self.dropout, stream=name, name=name)(features)


def at_stride(
    stride: int, features: Sequence[keras.KerasTensor], strides: Sequence[int]
) -> list[keras.KerasTensor]:
    """Returns the maps of a stride, in their order; there may be none."""
    return [each for each, own in zip(features, strides, strict=True) if own == stride]


def join(maps: Sequence[keras.KerasTensor], *, name: str) -> keras.KerasTensor:
    """Joins maps of one size along their channels; one alone stays as it is."""
    return maps[0] if len(maps) == 1 else keras.layers.Concatenate(name=name)(maps)


def enlarge(features: keras.KerasTensor, factor: int, name: str) -> keras.KerasTensor:
    """Enlarges a map bilinearly, by a layer of that name unless the factor is 1."""
    return layers.Resize(factor, name=name)(features) if factor > 1 else features


def finest_stride(strides: Sequence[int]) -> int:
    """Returns the stride of the result where maps finer than 4 are left out."""
    return min(max(strides), max(min(strides), FINEST_STRIDE))


def make_logits(
    features: keras.KerasTensor, stride: int, num_classes: int
) -> keras.KerasTensor:
    """Makes logits by a 1x1 convolution, and enlarges them to the images' size.

    Args:
      features: [batch, height / stride, width / stride, any].
      stride: of the features.
      num_classes: channels of the logits.

    Returns:
      Logits, [batch, height, width, num_classes], in full precision.
    """
    logits = convolutions.Conv2D(num_classes, 1, name="logits")(features)
    # The large result in full precision: loss and argmax need it.
    return layers.Resize(stride, name="enlarge", dtype=keras.config.floatx())(logits)


def only_width(filters: Sequence[int], what: str) -> int:
    """Returns the width of a decoder that has one.

    Args:
      filters: as given.
      what: it is of.

    Raises:
      ValueError: if there is not one number.
    """
    if len(filters) != 1:
        raise ValueError(f"{len(filters)} filters for {what} of one width")
    return filters[0]


def check_filters(filters: Sequence[int], stride: int, finest: int = 2) -> None:
    """Checks that there are as many filters as doublings between two strides.

    Raises:
      ValueError: if not.
    """
    num_blocks = (stride // finest).bit_length() - 1  # From stride 32 to 2: 4 blocks.
    if len(filters) != num_blocks:
        raise ValueError(
            f"{len(filters)} filters for {num_blocks} blocks from stride {stride} to "
            f"{finest}"
        )
