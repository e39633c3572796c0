"""SegFormer's decoder: nothing but linear layers."""

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
    """Decodes as SegFormer does (Xie et al., NeurIPS 2021, arXiv:2105.15203).

    A linear layer brings each map to one width; all are enlarged to the finest one's
    size, joined and fused by a second linear layer, with norm and ReLU; a third makes
    the logits, which are enlarged.

    To enlarge and to mix channels can change places, and to join and mix is to mix each
    and add up. So each level is fused at its own size, by its part of the second layer,
    and the enlarged results are added: the same numbers, but for rounding, and the same
    initial weights, where the paper mixes four times the width at the finest size.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
        Those finer than a stride of 4 are not used, if there are others.
      strides: of the maps, powers of 2.
      num_classes: channels of the logits.
      filters: one number, the width.
      norm: `batch`, as in the paper, or `group`.
      dropout: share of the fused features that a training step drops.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there is not one number of filters.
    """
    width = blocks_lib.only_width(filters, "linear layers")
    blocks = blocks_lib.Blocks(norm, dropout, synchronized)
    finest = blocks_lib.finest_stride(strides)
    levels = [index for index, stride in enumerate(strides) if stride >= finest]
    fused = []
    for index in levels:
        name = f"level{index}"
        level = _mix(features[index], width, len(levels), name)
        factor = strides[index] // finest
        fused.append(blocks_lib.enlarge(level, factor, f"{name}_enlarge"))
    total = fused[0] if len(fused) == 1 else keras.layers.Add(name="sum")(fused)
    total = blocks.activate(total, name="fused", drops=True)
    return blocks_lib.make_logits(total, finest, num_classes)


def _mix(
    features: keras.KerasTensor, width: int, num_levels: int, name: str
) -> keras.KerasTensor:
    """Applies the linear layer of a level, and its part of that which fuses them."""
    # Glorot's deviation for the whole second layer, of so many widths to one. Keras'
    # own, which is a scale of 1, would take each part for a layer.
    initializer = keras.initializers.VarianceScaling(
        2 / (num_levels + 1), mode="fan_avg", distribution="uniform"
    )
    level = convolutions.Conv2D(width, 1, name=f"{name}_linear")(features)
    return convolutions.Conv2D(
        width, 1, use_bias=False, kernel_initializer=initializer, name=f"{name}_fuse"
    )(level)
