"""MobileNetV2 as an encoder (Sandler et al., CVPR 2018, arXiv:1801.04381).

Names and order of the layers are those of `keras.applications.MobileNetV2`, so that its
weights fit. By hand, since it is built in 0.65 s where to build Keras' network and copy
it takes 1.6 s, and is given a `.weights.h5` file without either.
"""

from typing import NamedTuple

import keras

from models import scaling
from models.fast import convolutions, normalization

_STEM_FILTERS = 32

_STAGES = (
    # (expansion, filters, blocks, stride of the first block), table 2 of the paper
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

_BN_MOMENTUM = 0.999
_BN_EPSILON = 1e-3


def build_mobilenet_v2(
    images: keras.KerasTensor,
    image_scaling: scaling.ImageScaling,
    *,
    alpha: float = 1.0,
    output_stride: int = 32,
    bn_momentum: float | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Builds the encoder, with random weights.

    Args:
      images: the input.
      image_scaling: the first layer; its output's sides are multiples of 32.
      alpha: width multiplier of all layers.
      output_stride: 32, or 16: without the last stride, and with a dilation of 2 in the
        convolutions behind it.
      bn_momentum: how much of the moving statistics a training step keeps; None: as
        much as Keras' network does.
      synchronized: whether a step's statistics are those of all replicas together.

    Returns:
      A model from the images to the feature maps at strides 2, 4, 8, 16 and 32, in this
      order: those that a block of stride 2 has expanded, and the last projection,
      before its batch norm.
    """

    norms = _Norms(_BN_MOMENTUM if bn_momentum is None else bn_momentum, synchronized)
    features = norms.follow(
        _conv2d(_round_filters(alpha * _STEM_FILTERS), 3, strides=2, name="Conv1"),
        image_scaling(images),
        "bn_Conv1",
        "Conv1_relu",
    )
    maps, total_stride, rate = [], 2, 1
    blocks = [
        (expansion, _round_filters(int(alpha * filters)), 1 if repetition else stride)
        for expansion, filters, count, stride in _STAGES
        for repetition in range(count)
    ]
    for index, (expansion, filters, stride) in enumerate(blocks):
        name = f"block_{index}" if index else "expanded_conv"
        inputs, features = features, _expand(features, expansion, norms, name)
        if stride > 1:
            maps.append(features)
            total_stride *= stride
        is_whole = total_stride > output_stride and stride > 1
        features = _convolve_depthwise(
            features, stride, norms, name, rate=rate, is_whole=is_whole
        )
        rate = 2 if total_stride > output_stride else 1
        project = _conv2d(filters, name=f"{name}_project")
        if index == len(blocks) - 1:
            maps.append(project(features))
            break
        features = norms.follow(project, features, f"{name}_project_BN")
        if stride == 1 and inputs.shape[-1] == filters:
            features = keras.layers.Add(name=f"{name}_add")([inputs, features])
    return keras.Model(images, maps, name="mobilenet_v2")


class _Norms(NamedTuple):
    """How the batch norms of a network are; see `build_mobilenet_v2`."""

    momentum: float
    synchronized: bool

    def follow(
        self,
        convolution: convolutions.Conv2D | convolutions.DepthwiseConv2D,
        features: keras.KerasTensor,
        norm_name: str,
        relu_name: str | None = None,
    ) -> keras.KerasTensor:
        """Applies a convolution, its batch norm and, if it has a name, a ReLU6."""
        norm = normalization.BatchNormalization(
            momentum=self.momentum,
            epsilon=_BN_EPSILON,
            synchronized=self.synchronized,
            name=norm_name,
        )
        convolution.fold(norm)
        features = norm(convolution(features))
        return (
            keras.layers.ReLU(6.0, name=relu_name)(features) if relu_name else features
        )


def _expand(
    features: keras.KerasTensor, expansion: int, norms: _Norms, name: str
) -> keras.KerasTensor:
    """Multiplies the channels, as a block does first."""
    if expansion == 1:
        return features
    expand = _conv2d(expansion * features.shape[-1], name=f"{name}_expand")
    return norms.follow(expand, features, f"{name}_expand_BN", f"{name}_expand_relu")


def _convolve_depthwise(
    features: keras.KerasTensor,
    stride: int,
    norms: _Norms,
    name: str,
    *,
    rate: int = 1,
    is_whole: bool = False,
) -> keras.KerasTensor:
    """Convolves each channel by itself, and makes the map smaller by a stride of 2.

    Args:
      features: [batch, height, width, channels].
      stride: 1 or 2.
      norms: of the network.
      name: of the layers.
      rate: of the dilation.
      is_whole: whether to leave out the stride after all.
    """
    depthwise = convolutions.DepthwiseConv2D(
        3,
        strides=1 if is_whole else stride,
        padding="same" if stride == 1 else "valid",
        dilation_rate=rate,
        use_bias=False,
        name=f"{name}_depthwise",
    )
    if stride > 1:
        margin = (1, 1) if is_whole else (0, 1)
        pad = keras.layers.ZeroPadding2D((margin, margin), name=f"{name}_pad")
        features = pad(features)
    return norms.follow(
        depthwise, features, f"{name}_depthwise_BN", f"{name}_depthwise_relu"
    )


def _conv2d(
    filters: int, kernel_size: int = 1, *, strides: int = 1, name: str
) -> convolutions.Conv2D:
    return convolutions.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False, name=name
    )


def _round_filters(filters: float) -> int:
    """Returns the multiple of 8 nearest to a number, and not under 90 % of it."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded
