"""Models by the names of their parts."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from models import encoders, layers, registry, scaling


def build_model(
    *,
    encoder: str,
    encoder_options: Mapping[str, Any],
    encoder_weights: str,
    encoder_preset: encoders.Preset | None = None,
    encoder_bn_momentum: float | None,
    freeze_encoder: bool,
    freeze_encoder_stages: int = 0,
    decoder: str,
    decoder_filters: Sequence[int] | None,
    decoder_options: Mapping[str, Any],
    image_size: tuple[int | None, int | None],
    images: scaling.Images = scaling.RGB,
    num_classes: int,
    synchronized_batch_norm: bool,
) -> keras.Model:
    """Builds the model that the names ask for.

    Args:
      encoder: a key of `registry.ENCODERS`, or a preset.
      encoder_options: what this encoder takes; see the registry.
      encoder_weights: `imagenet`, `none` or a file.
      encoder_preset: see `encoders.build_encoder`.
      encoder_bn_momentum: of its moving batch-norm statistics; None: its own.
      freeze_encoder: whether the encoder stays as it is, batch norm included.
      freeze_encoder_stages: how many maps of a trained one stay so, the finest first.
      decoder: a key of `registry.DECODERS`.
      decoder_filters: channels inside of it, as many as by default; None: those.
      decoder_options: what this decoder takes; see the registry.
      image_size: height and width; None: any. All have the same layers and checkpoints.
      images: what comes in.
      num_classes: channels of the logits.
      synchronized_batch_norm: whether its statistics are those of all replicas.

    Returns:
      A model from images, floats or unsigned integers [batch, height, width, channels]
      in the range of `images`, to logits, float32 [batch, height, width, num_classes].

    Raises:
      encoders.PresetError: if a preset is not there or does not serve.
      encoders.WeightsError: if the encoder's weights cannot be had or do not fit.
      ImportError: if the decoder needs a package that is not installed.
      ValueError: if a part does not take an option or so many numbers of channels.
    """
    registry.check_options(decoder, decoder_options, registry.DECODERS[decoder].options)
    part = encoders.build_encoder(
        encoder,
        image_size,
        images=images,
        weights=encoder_weights,
        bn_momentum=encoder_bn_momentum,
        synchronized=synchronized_batch_norm,
        options=encoder_options,
        preset=encoder_preset,
    )
    _freeze(part.model, len(part.strides) if freeze_encoder else freeze_encoder_stages)
    filters = decoder_filters or registry.default_filters(decoder, part.strides)
    settings = {"filters": filters, "synchronized": synchronized_batch_norm}
    return _attach(part, decoder, {**decoder_options, **settings}, num_classes)


def find_encoder(model: keras.Model) -> keras.Model:
    """Returns the encoder of a model that `build_model` made."""
    # The first of its models: a decoder's blocks may be models, too.
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


@contextlib.contextmanager
def frozen_encoder(model: keras.Model) -> Iterator[None]:
    """Freezes the encoder of a model for a while, batch norm included.

    The model has the same variables in it and after it. What is asked for in between
    counts: which variables are trained, and what the graph of a step computes. Enter it
    where that graph is built, outside of replica context: replicas are traced in
    threads that take turns, and would put each other's values back.

    Args:
      model: of `build_model`.
    """
    encoder = find_encoder(model)
    own = [(layer, layer.trainable) for layer in (encoder, *encoder.layers)]
    encoder.trainable = False
    try:
        yield
    finally:
        # The encoder first: it sets all of its layers, of which some may stay frozen.
        for layer, is_trained in own:
            layer.trainable = is_trained


def _freeze(encoder: keras.Model, num_maps: int) -> None:
    """Freezes all layers of an encoder that its first maps depend on."""
    encoder.trainable = num_maps < len(encoder.outputs)
    if not encoder.trainable or not num_maps:
        return
    # A model of these maps has the layers on the way to them, and no others.
    for layer in keras.Model(encoder.inputs, encoder.outputs[:num_maps]).layers:
        layer.trainable = False


def _attach(
    encoder: encoders.Encoder,
    decoder: str,
    settings: Mapping[str, Any],
    num_classes: int,
) -> keras.Model:
    """Makes a model of both, whose logits are float32 and as large as the images."""
    decode = registry.load_decoder(decoder)
    images = keras.Input(encoder.model.input_shape[1:], name="image")
    features = encoder.model(images)
    logits = decode(features, encoder.strides, num_classes, **settings)
    if keras.backend.standardize_dtype(logits.dtype) in ("bfloat16", "float16"):
        # Loss and argmax need the range and the precision of float32.
        logits = keras.layers.Activation("linear", dtype="float32", name="cast")(logits)
    size = tuple(images.shape[1:3])
    if None in size or tuple(logits.shape[1:3]) != size:
        logits = layers.Crop(name="crop")([logits, images])
    return keras.Model(images, logits, name=f"{encoder.model.name}_{decoder}")
