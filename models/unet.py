"""The U-Net: an encoder, upsampling blocks with skips, a layer of logits."""

from collections.abc import Callable, Sequence

import keras

from models import convolutions


def build_unet(
    encoder: keras.Model,
    make_block: Callable[[int], keras.layers.Layer],
    *,
    num_classes: int,
    decoder_filters: Sequence[int],
) -> keras.Model:
    """Builds a U-Net (Ronneberger et al., MICCAI 2015, arXiv:1505.04597).

    Each block doubles the size of the deepest features so far and is joined with the
    encoder's features of that size; the last transposed convolution gives the logits
    at the size of the input.

    Args:
      encoder: a model from images to feature maps of strides 2, 4, 8, ...; if it is
        not trainable, it runs in inference mode, batch norm included.
      make_block: makes the layer that doubles height and width, of its output
        channels; it takes a list of feature maps, to be joined along their channels.
      num_classes: channels of the logits.
      decoder_filters: output channels of each block, deepest first; one less than
        the encoder has feature maps.

    Returns:
      A model from images, float32 [batch, height, width, 3] in 0..255 (uint8 is
      taken too), to logits, float32 [batch, height, width, num_classes].
    """
    images = keras.Input(encoder.input_shape[1:], name="image")
    *skips, deepest = encoder(images)
    features = [deepest]
    for filters, skip in zip(decoder_filters, reversed(skips), strict=True):
        features = [make_block(filters)(features), skip]
    logits = convolutions.Conv2DTranspose(
        num_classes, kernel_size=3, strides=2, padding="same", name="logits"
    )(features)  # [batch, height, width, num_classes]
    if keras.backend.standardize_dtype(logits.dtype) in ("bfloat16", "float16"):
        # Loss and argmax need the range and the precision of float32.
        logits = keras.layers.Activation("linear", dtype="float32", name="cast")(logits)
    return keras.Model(images, logits, name="unet")
