"""A U-Net of any blocks that join feature maps and double their size."""

from collections.abc import Callable, Sequence

import keras

from models.decoders import blocks
from models.fast import convolutions


def decode(
    features: Sequence[keras.KerasTensor],
    strides: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int],
    make_block: Callable[[int, int], Callable],
) -> keras.KerasTensor:
    """Decodes as a U-Net does (Ronneberger et al., MICCAI 2015, arXiv:1505.04597).

    Each block doubles the size of the features, down to a stride of 2. Its output is
    joined with the encoder's features of that size, if there are any. A last transposed
    convolution doubles once more and gives the logits.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
      strides: of the maps, powers of 2; one of stride 1 is not used.
      num_classes: channels of the logits.
      filters: output channels of each block, deepest first.
      make_block: from the number of a block, 0 for the deepest, and its output channels
        to a layer. The layer takes a list of feature maps, to be joined along their
        channels, and doubles height and width.

    Returns:
      Logits, [batch, height, width, num_classes].

    Raises:
      ValueError: if there are not as many filters as blocks.
    """
    stride = max(strides)
    blocks.check_filters(filters, stride)
    joined = blocks.at_stride(stride, features, strides)
    for index, channels in enumerate(filters):
        stride //= 2
        deeper = make_block(index, channels)(joined)
        joined = [deeper, *blocks.at_stride(stride, features, strides)]
    return convolutions.Conv2DTranspose(
        num_classes, kernel_size=3, strides=2, padding="same", name="logits"
    )(joined)
