"""The same U-Net of Keras' own layers: what the faster layers are held against."""

from collections.abc import Sequence

import keras

from models import encoders


def build_keras_unet(
    *,
    encoder: str,
    encoder_alpha: float,
    freeze_encoder: bool,
    decoder_filters: Sequence[int],
    image_size: tuple[int, int],
    num_classes: int,
) -> keras.Model:
    """Builds the U-Net as the TensorFlow tutorial does, for benchmarks and tests.

    Its weights are in the order of those of `factory.build_model`, which can be given
    to `set_weights`; they start random.

    Args:
      encoder: a key of `encoders.ENCODERS`.
      encoder_alpha: its width multiplier.
      freeze_encoder: whether the encoder stays as it is.
      decoder_filters: channels of the upsampling blocks, deepest first.
      image_size: height and width, multiples of 32.
      num_classes: channels of the logits.

    Returns:
      A model like that of `factory.build_model`, which see.
    """
    kind = encoders.ENCODERS[encoder]
    application = kind.application(
        input_shape=(*image_size, 3),
        alpha=encoder_alpha,
        include_top=False,
        weights=None,
    )
    outputs = [application.get_layer(name).output for name in kind.features]
    encoder_model = keras.Model(application.inputs, outputs)
    encoder_model.trainable = not freeze_encoder
    images = keras.Input((*image_size, 3))
    *skips, features = encoder_model(kind.make_rescaling()(images))
    for filters, skip in zip(decoder_filters, reversed(skips), strict=True):
        features = keras.layers.Conv2DTranspose(
            filters, 3, strides=2, padding="same", use_bias=False
        )(features)
        features = keras.layers.BatchNormalization()(features)
        features = keras.layers.ReLU()(features)
        features = keras.layers.Concatenate()([features, skip])
    logits = keras.layers.Conv2DTranspose(num_classes, 3, strides=2, padding="same")(
        features
    )
    return keras.Model(
        images, keras.layers.Activation("linear", dtype="float32")(logits)
    )
