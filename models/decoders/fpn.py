"""Semantic FPN: a pyramid of features, summed and enlarged."""

from collections.abc import Sequence

import keras

from models import layers
from models.fast import convolutions, normalization

_FINEST_STRIDE = 4
"""Finer maps are left out, as in both papers: they cost most and say least."""


def decode(
    features: Sequence[keras.KerasTensor],
    strides: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int],
    synchronized: bool = False,
) -> keras.KerasTensor:
    """Decodes by a feature pyramid network with a branch for semantic segmentation.

    The pyramid (Lin et al., CVPR 2017, arXiv:1612.03144): a 1x1 convolution brings each
    map to one width, and to each the next coarser level is added, enlarged. The branch
    (Kirillov et al., CVPR 2019, arXiv:1901.02446): 3x3 convolutions, batch norm, ReLU
    and doublings bring each level to the finest one's size, where they are summed;
    logits are made there and enlarged.

    Two things are not as in the papers: the 3x3 convolution that ends a level in the
    first is the first of its branch, and batch norm stands for group norm.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
        Those finer than a stride of 4 are not used, if there are others.
      strides: of the maps, powers of 2.
      num_classes: channels of the logits.
      filters: one number, the width of the pyramid and its branch.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there is not one number of filters.
    """
    if len(filters) != 1:
        raise ValueError(f"{len(filters)} filters for a pyramid of one width")
    (width,) = filters
    finest = min(max(strides), max(min(strides), _FINEST_STRIDE))
    levels = sorted(
        ((stride, index) for index, stride in enumerate(strides) if stride >= finest),
        reverse=True,
    )
    coarser, coarser_stride, branches = None, None, []
    for stride, index in levels:
        name = f"level{index}"
        lateral = keras.layers.Conv2D(width, 1, name=f"{name}_lateral")(features[index])
        if coarser is not None:
            enlarged = _enlarge(coarser, coarser_stride // stride, f"{name}_top_down")
            lateral = keras.layers.Add(name=f"{name}_sum")([lateral, enlarged])
        coarser, coarser_stride = lateral, stride
        branches.append(
            _bring_to(finest, lateral, stride, width, synchronized, name=name)
        )
    merged = branches[0]
    if len(branches) > 1:
        merged = keras.layers.Add(name="merge")(branches)
    logits = keras.layers.Conv2D(num_classes, 1, name="logits")(merged)
    # The large result in full precision: loss and argmax need it.
    return layers.Resize(finest, name="enlarge", dtype=keras.config.floatx())(logits)


def _bring_to(
    finest: int,
    level: keras.KerasTensor,
    stride: int,
    width: int,
    synchronized: bool,
    *,
    name: str,
) -> keras.KerasTensor:
    """Returns a level at the size of the finest one: a 3x3 block for each doubling."""
    for step in range(max(1, (stride // finest).bit_length() - 1)):
        block = f"{name}_branch{step}"
        convolution = convolutions.Conv2D(
            width, 3, padding="same", use_bias=False, name=f"{block}_conv"
        )
        norm = normalization.BatchNormalization(
            synchronized=synchronized, name=f"{block}_norm"
        )
        convolution.fold(norm)
        level = keras.layers.ReLU(name=f"{block}_relu")(norm(convolution(level)))
        level = _enlarge(level, 2 if stride > finest else 1, f"{block}_enlarge")
    return level


def _enlarge(features: keras.KerasTensor, factor: int, name: str) -> keras.KerasTensor:
    return layers.Resize(factor, name=name)(features) if factor > 1 else features
