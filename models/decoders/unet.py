"""The U-Net with two convolutions at each level."""

from collections.abc import Sequence

import keras

from models.decoders import blocks as blocks_lib


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
    """Decodes as a U-Net does (Ronneberger et al., MICCAI 2015, arXiv:1505.04597).

    At each level the deeper features are doubled in height and width, joined with the
    encoder's of that size, if there are any, and go through two 3x3 convolutions, each
    with norm and ReLU. The last level has a stride of 2, or of 1 where the encoder has
    a map of the images' own size; logits are made there and enlarged.

    Two things are not as in the paper: features are doubled bilinearly, where a
    transposed convolution may leave a checkerboard; and convolutions are padded, with a
    norm.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
      strides: of the maps, powers of 2.
      num_classes: channels of the logits.
      filters: channels of each level, deepest first.
      norm: `batch` or `group`.
      dropout: share of a level's features that a training step drops.
      synchronized: whether batch norm takes its statistics over all replicas.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there are not as many filters as levels.
    """
    blocks = blocks_lib.Blocks(norm, dropout, synchronized)
    stride = max(strides)
    blocks_lib.check_filters(filters, stride, min(2, *strides))
    deepest = blocks_lib.at_stride(stride, features, strides)
    joined = blocks_lib.join(deepest, name="deepest")
    for channels in filters:
        stride //= 2
        name = f"stride{stride}"
        deeper = blocks_lib.enlarge(joined, 2, f"{name}_enlarge")
        skips = blocks_lib.at_stride(stride, features, strides)
        joined = blocks.convolve([deeper, *skips], channels, name=f"{name}_first")
        joined = blocks.convolve(joined, channels, name=f"{name}_second", drops=True)
    return blocks_lib.make_logits(joined, stride, num_classes)
