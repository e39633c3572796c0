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

    Each block doubles the size of the deepest features so far, down to a stride of 2,
    and is joined with the encoder's features of that size, if there are any; the last
    transposed convolution gives the logits.

    Args:
      features: maps of any strides, [batch, height / stride, width / stride, any].
      strides: of the maps, powers of 2; one of stride 1 is not used.
      num_classes: channels of the logits.
      filters: output channels of each block, deepest first.
      make_block: makes the layer that doubles height and width, of its number, from 0
        on, and its output channels; it takes a list of feature maps, to be joined along
        their channels.

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
