"""The tutorial's U-Net of Keras' own layers: what faster ones are held against."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models import layers, registry, scaling
from models.encoders import applications


def build_keras_unet(
    *,
    encoder: str,
    encoder_options: Mapping[str, Any],
    freeze_encoder: bool,
    decoder_filters: Sequence[int],
    image_size: tuple[int, int],
    images: scaling.Images = scaling.RGB,
    num_classes: int,
) -> keras.Model:
    """Builds the U-Net as the TensorFlow tutorial does, for benchmarks and tests.

    Its weights are in the order of those of `factory.build_model` with the decoder
    `pix2pix`, which can be given to `set_weights`; they start random.

    Args:
      encoder: a key of `registry.ENCODERS`.
      encoder_options: what it takes.
      freeze_encoder: whether the encoder stays as it is.
      decoder_filters: channels of the upsampling blocks, deepest first.
      image_size: height and width.
      images: what comes in.
      num_classes: channels of the logits.

    Returns:
      A model like that of `factory.build_model`, which see.
    """
    network = applications.make_network(
        encoder, image_size, images, options=encoder_options
    )
    network.trainable = not freeze_encoder
    if freeze_encoder:
        for layer in network.layers:
            if isinstance(layer, keras.layers.Dropout):
                # That of a layer that is not trained, Keras would draw all the same.
                layer.rate = 0.0
    inputs = keras.Input((*image_size, images.num_channels))
    strides = registry.strides_of(encoder, encoder_options)
    skips = dict(zip(strides, network(inputs), strict=True))
    stride = max(strides)
    features = skips[stride]
    for filters in decoder_filters:
        stride //= 2
        features = keras.layers.Conv2DTranspose(
            filters, 3, strides=2, padding="same", use_bias=False
        )(features)
        features = keras.layers.BatchNormalization()(features)
        features = keras.layers.ReLU()(features)
        if stride in skips:
            features = keras.layers.Concatenate()([features, skips[stride]])
    logits = keras.layers.Conv2DTranspose(num_classes, 3, strides=2, padding="same")(
        features
    )
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    if logits.shape[1:3] != tuple(image_size):
        logits = layers.Crop()([logits, inputs])
    return keras.Model(inputs, logits)
