"""Semantic FPN: a pyramid of features, summed and enlarged."""

from collections.abc import Sequence

import keras

from models.decoders import blocks as blocks_lib
from models.fast import convolutions


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
    """Decodes by a feature pyramid network with a branch for semantic segmentation.

    The pyramid (Lin et al., CVPR 2017, arXiv:1612.03144): a 1x1 convolution brings each
    map to one width, and to each the next coarser level is added, enlarged. The branch
    (Kirillov et al., CVPR 2019, arXiv:1901.02446): 3x3 convolutions, norm, ReLU
    and doublings bring each level to the finest one's size, where they are summed;
    logits are made there and enlarged.

    Two things are not as in the papers: the 3x3 convolution that ends a level in the
    first is the first of its branch, and the norm is by default that of a batch, where
    the second has group norm.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
        Those finer than a stride of 4 are not used, if there are others.
      strides: of the maps, powers of 2.
      num_classes: channels of the logits.
      filters: one number, the width of the pyramid and its branch.
      norm: `batch` or `group`.
      dropout: share of a branch's last features that a training step drops.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there is not one number of filters.
    """
    width = blocks_lib.only_width(filters, "a pyramid")
    blocks = blocks_lib.Blocks(norm, dropout, synchronized)
    finest = blocks_lib.finest_stride(strides)
    levels = sorted(
        ((stride, index) for index, stride in enumerate(strides) if stride >= finest),
        reverse=True,
    )
    coarser, coarser_stride, branches = None, None, []
    for stride, index in levels:
        name = f"level{index}"
        lateral = convolutions.Conv2D(width, 1, name=f"{name}_lateral")(features[index])
        if coarser is not None:
            enlarged = blocks_lib.enlarge(
                coarser, coarser_stride // stride, f"{name}_top_down"
            )
            lateral = keras.layers.Add(name=f"{name}_sum")([lateral, enlarged])
        coarser, coarser_stride = lateral, stride
        branches.append(_bring_to(finest, lateral, stride, blocks, name=name))
    merged = branches[0]
    if len(branches) > 1:
        merged = keras.layers.Add(name="merge")(branches)
    return blocks_lib.make_logits(merged, finest, num_classes)


def _bring_to(
    finest: int,
    level: keras.KerasTensor,
    stride: int,
    blocks: blocks_lib.Blocks,
    *,
    name: str,
) -> keras.KerasTensor:
    """Returns a level at the size of the finest one: a 3x3 block for each doubling."""
    width = level.shape[-1]
    num_blocks = max(1, (stride // finest).bit_length() - 1)
    for step in range(num_blocks):
        block = f"{name}_branch{step}"
        drops = step == num_blocks - 1
        level = blocks.convolve(level, width, name=block, drops=drops)
        factor = 2 if stride > finest else 1
        level = blocks_lib.enlarge(level, factor, f"{block}_enlarge")
    return level
