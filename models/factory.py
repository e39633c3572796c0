"""Models by the names of their parts."""

from collections.abc import Callable, Sequence

import keras

from models import encoders, layers, normalization, unet


def build_model(
    *,
    encoder: str,
    encoder_alpha: float,
    encoder_weights: str,
    encoder_bn_momentum: float | None,
    freeze_encoder: bool,
    decoder: str,
    decoder_filters: Sequence[int],
    decoder_dropout: float,
    image_size: tuple[int, int],
    num_classes: int,
    synchronized_batch_norm: bool,
) -> keras.Model:
    """Builds the U-Net that the names ask for.

    Args:
      encoder: a key of `encoders.ENCODERS`.
      encoder_alpha: its width multiplier.
      encoder_weights: `imagenet`, `none` or a file; see the encoder.
      encoder_bn_momentum: momentum of its moving batch-norm statistics, or None to
        leave it.
      freeze_encoder: whether the encoder stays as it is, batch norm included.
      decoder: a key of `DECODERS`.
      decoder_filters: channels of the four upsampling blocks, deepest first.
      decoder_dropout: share of a block's features that a training step drops.
      image_size: height and width, multiples of 32.
      num_classes: channels of the logits.
      synchronized_batch_norm: whether batch norm takes its statistics over all
        replicas.

    Returns:
      A model from images, float32 or uint8 [batch, height, width, 3] in 0..255, to
      logits, float32 [batch, height, width, num_classes].

    Raises:
      encoders.WeightsError: if the encoder's weights cannot be had or do not fit.
      ImportError: if the decoder needs a package that is not installed.
      ValueError: if the decoder cannot have this dropout.
    """
    make_block = DECODERS[decoder](decoder_dropout, synchronized_batch_norm)
    encoder_model = encoders.build_encoder(
        encoder,
        image_size,
        alpha=encoder_alpha,
        weights=encoder_weights,
        bn_momentum=encoder_bn_momentum,
        synchronized=synchronized_batch_norm,
    )
    encoder_model.trainable = not freeze_encoder
    return unet.build_unet(
        encoder_model,
        make_block,
        num_classes=num_classes,
        decoder_filters=decoder_filters,
    )


def _make_pix2pix(
    dropout: float, synchronized: bool
) -> Callable[[int], keras.layers.Layer]:
    """Returns a function that makes this package's upsampling block."""
    return lambda filters: layers.UpsampleBlock(
        filters, dropout=dropout, synchronized=synchronized
    )


def _make_tensorflow_examples(
    dropout: float, synchronized: bool
) -> Callable[[int], Callable]:
    """Returns a function that makes the block of the `tensorflow_examples` package."""
    try:
        from tensorflow_examples.models.pix2pix import pix2pix
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "tensorflow_examples":
            raise ImportError(
                f"the package tensorflow_examples cannot be imported ({error}); mend "
                "that, or use pix2pix, which is the same block"
            ) from error
        raise ImportError(
            "the package tensorflow_examples is not installed. It is not on PyPI: in a "
            "clone of this repository run `pip install '.[examples]'`, which takes it "
            "from GitHub, or use pix2pix, which is the same block"
        ) from error

    if dropout:
        raise ValueError("the original block has dropout of 0.5 or none; use pix2pix")

    def make_block(filters: int) -> Callable:
        block = pix2pix.upsample(filters, 3)
        if not isinstance(block, keras.Sequential):
            raise ImportError(
                "tensorflow_examples makes its block with another Keras than that of "
                "this package; unset the environment variable TF_USE_LEGACY_KERAS"
            )
        if synchronized:
            block = keras.Sequential([_synchronize(layer) for layer in block.layers])

        def join_and_upsample(features: list):
            if len(features) > 1:
                features = [keras.layers.Concatenate()(features)]
            return block(features[0])

        return join_and_upsample

    return make_block


def _synchronize(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a layer like the given one, whose batch norm is that of all replicas."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return layer
    # This package's, since Keras' own takes minutes to trace on two replicas.
    return normalization.BatchNormalization.from_config(
        {**layer.get_config(), "synchronized": True}
    )


DECODERS = {
    "pix2pix": _make_pix2pix,
    "tensorflow_examples": _make_tensorflow_examples,
}
