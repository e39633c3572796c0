"""DeepLabv3+: context by atrous convolutions, edges by a finer map."""

from collections.abc import Sequence

import keras

from models import layers
from models.decoders import blocks as blocks_lib

_REACHES = (96, 192, 288)
"""Of the atrous convolutions, in pixels of the image: the rates 6, 12 and 18 of the
paper at a stride of 16. It doubles them at a stride of 8."""

_LOW_LEVEL_FILTERS = 48
"""Channels of the finer map: so few that it does not outweigh the context."""


def decode(
    features: Sequence[keras.KerasTensor],
    strides: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int],
    norm: str = "batch",
    dropout: float = 0.0,
    synchronized: bool = False,
) -> keras.KerasTensor:
    """Decodes as DeepLabv3+ does (Chen et al., ECCV 2018, arXiv:1802.02611).

    On the deepest map, five branches look at each pixel's surroundings: a 1x1
    convolution, three 3x3 ones with rates of 96, 192 and 288 pixels over the stride (6,
    12 and 18 at a stride of 16, as in the paper; 3, 6 and 9 at 32), and the mean of the
    whole image. They are joined and brought to one width, enlarged, joined with the map
    of stride 4, which is reduced to 48 channels, and refined by two 3x3 convolutions.
    Norm and ReLU follow each. All 3x3 convolutions are separable, as the paper has them
    with its Xception. Logits are made at a stride of 4 and enlarged.

    If images are padded up to the strides, the mean counts the mirrored margin, too.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any]. Two
        are used: the deepest, and the finest with a stride of 4 or more. If several
        have that stride, the last one is.
      strides: of the maps, powers of 2.
      num_classes: channels of the logits.
      filters: one number, the width of all but the finer map.
      norm: `batch` or `group`.
      dropout: share of the features that a training step drops, of the joined branches.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there is not one number of filters.
    """
    width = blocks_lib.only_width(filters, "a pyramid")
    blocks = blocks_lib.Blocks(norm, dropout, synchronized)
    stride = max(strides)
    deepest = blocks_lib.at_stride(stride, features, strides)[-1]
    context = _look_around(deepest, stride, width, blocks)
    low = min(s for s in strides if s >= blocks_lib.finest_stride(strides))
    if low < stride:
        finer = blocks_lib.at_stride(low, features, strides)[-1]
        finer = blocks.convolve(finer, _LOW_LEVEL_FILTERS, 1, name="low_level")
        context = blocks_lib.enlarge(context, stride // low, "enlarge_context")
        context = blocks_lib.join([context, finer], name="join")
    for name in ("refine0", "refine1"):
        context = blocks.convolve_separably(context, width, name=name)
    return blocks_lib.make_logits(context, low, num_classes)


def _look_around(
    features: keras.KerasTensor, stride: int, width: int, blocks: blocks_lib.Blocks
) -> keras.KerasTensor:
    """Applies atrous spatial pyramid pooling (ASPP)."""
    branches = [blocks.convolve(features, width, 1, name="aspp_pixel")]
    for index, reach in enumerate(_REACHES):
        branches.append(
            blocks.convolve_separably(
                features, width, rate=max(1, reach // stride), name=f"aspp_rate{index}"
            )
        )
    mean = layers.ImageMean(name="aspp_mean")(features)
    mean = blocks.convolve(mean, width, 1, name="aspp_image")
    branches.append(layers.Spread(name="aspp_spread")([mean, features]))
    joined = blocks_lib.join(branches, name="aspp_join")
    return blocks.convolve(joined, width, 1, name="aspp", drops=True)
