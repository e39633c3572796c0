"""Encoders: image classifiers cut into feature maps at strides 2, 4, 8, 16 and 32."""

import collections
import os

import keras

from models import convolutions, normalization

_MOBILENET_V2_FEATURES = (
    "block_1_expand_relu",  # stride 2
    "block_3_expand_relu",  # stride 4
    "block_6_expand_relu",  # stride 8
    "block_13_expand_relu",  # stride 16
    "block_16_project",  # stride 32
)
_SIZES = (96, 128, 160, 192, 224)
"""Image sizes for which Keras has ImageNet weights of their own."""


class WeightsError(ValueError):
    """Initial weights that are not there or do not fit."""


def build_mobilenet_v2(
    image_size: tuple[int, int], *, alpha: float = 1.0, weights: str = "imagenet"
) -> keras.Model:
    """Builds MobileNetV2 (Sandler et al., CVPR 2018, arXiv:1801.04381).

    The input scaling that its weights were trained with is part of the model.

    Args:
      image_size: height and width of the input, multiples of 32.
      alpha: width multiplier of all layers.
      weights: `imagenet` (Keras downloads them), `none`, or a `.weights.h5` file of
        `keras.applications.MobileNetV2(include_top=False)`.

    Returns:
      A model from images, float32 [batch, height, width, 3] in 0..255, to the five
      feature maps at strides 2, 4, 8, 16 and 32, in this order.

    Raises:
      WeightsError: if the weights cannot be had or do not fit.
    """
    images = keras.Input((*image_size, 3), name="image")
    # Rounded to bfloat16 on the way, it would be off by up to 1.2 of the 255 steps.
    rescale = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype=keras.config.floatx())
    scaled = rescale(images)
    is_released_size = image_size[0] == image_size[1] and image_size[0] in _SIZES
    backbone = _load(
        lambda source: keras.applications.MobileNetV2(
            # Given only where Keras has weights trained at this size; else 224's serve.
            input_shape=(*image_size, 3) if is_released_size else None,
            input_tensor=scaled,
            alpha=alpha,
            include_top=False,
            weights=source,
        ),
        weights,
    )
    outputs = [backbone.get_layer(name).output for name in _MOBILENET_V2_FEATURES]
    return keras.Model(images, outputs, name="mobilenet_v2")


ENCODERS = {"mobilenet_v2": build_mobilenet_v2}


def replace_layers(
    encoder: keras.Model, *, momentum: float | None, synchronized: bool
) -> keras.Model:
    """Copies an encoder, weights included, with this package's layers for Keras'.

    Variables and results are those of the encoder; see `models.convolutions` and
    `models.normalization` for what is better about the layers.

    Args:
      encoder: the model to copy.
      momentum: how much of the moving statistics a training step keeps; None: as is.
      synchronized: whether a step's statistics are those of all replicas together.
    """

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        kind = _REPLACEMENTS.get(type(layer), type(layer))
        if kind is normalization.BatchNormalization:
            config["synchronized"] = synchronized
            if momentum is not None:
                config["momentum"] = momentum
        return kind.from_config(config)

    copy = keras.models.clone_model(encoder, clone_function=replace)
    copy.set_weights(encoder.get_weights())
    _fold_batch_norms(copy)
    return copy


_REPLACEMENTS = {
    keras.layers.BatchNormalization: normalization.BatchNormalization,
    keras.layers.Conv2D: convolutions.Conv2D,
    keras.layers.DepthwiseConv2D: convolutions.DepthwiseConv2D,
}


def _fold_batch_norms(model: keras.Model) -> None:
    """Lets each convolution take in the batch norm that alone follows it."""
    consumers = collections.Counter(id(tensor) for tensor in model.outputs)
    for layer in model.layers:
        consumers.update(id(tensor) for tensor in keras.tree.flatten(layer.input))
    foldable = {
        id(layer.output): layer
        for layer in model.layers
        if isinstance(layer, (convolutions.Conv2D, convolutions.DepthwiseConv2D))
        and layer.activation in (None, keras.activations.linear)
        and consumers[id(layer.output)] == 1
    }
    for layer in model.layers:
        is_norm = isinstance(layer, normalization.BatchNormalization)
        if is_norm and (convolution := foldable.get(id(layer.input))):
            convolution.fold(layer)


def _load(build, weights: str) -> keras.Model:
    """Builds a Keras application with `weights`, in the words of this package."""
    if weights == "none":
        return build(None)
    if weights == "imagenet":
        try:
            return build("imagenet")
        except ValueError as error:  # An alpha for which there are no weights.
            raise WeightsError(str(error)) from error
        except Exception as error:  # `keras.utils.get_file` raises a bare Exception.
            raise WeightsError(
                f"the ImageNet weights could not be downloaded ({error}); fetch them "
                "on a machine with a network and name the file, or use none"
            ) from error
    if not os.path.isfile(weights):
        raise WeightsError(
            "there is no such file; name a .weights.h5 file, imagenet or none"
        )
    try:
        return build(weights)
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]  # Pages of numbers follow.
        raise WeightsError(
            f"this file does not hold the encoder's weights ({reason}); is it of "
            "another architecture, or of another alpha?"
        ) from error
