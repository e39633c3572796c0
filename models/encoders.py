"""Encoders by name: image classifiers cut into feature maps at strides 2 to 32."""

import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras

from models import mobilenet_v2

_RELEASED_SIZES = (96, 128, 160, 192, 224)
"""Image sizes for which Keras has ImageNet weights of their own."""


class WeightsError(ValueError):
    """Initial weights that are not there or do not fit."""


class Encoder(NamedTuple):
    """A kind of encoder.

    Attributes:
      build: from image size, `alpha`, `bn_momentum` and `synchronized` to a model; see
        `mobilenet_v2.build_mobilenet_v2`.
      application: makes Keras' network of these layers, which there are weights for.
      features: the application's layers whose outputs are the feature maps.
      make_rescaling: makes the layer that scales images for the application.
    """

    build: Callable[..., keras.Model]
    application: Callable[..., keras.Model]
    features: tuple[str, ...]
    make_rescaling: Callable[[], keras.layers.Layer]


ENCODERS = {
    "mobilenet_v2": Encoder(
        build=mobilenet_v2.build_mobilenet_v2,
        application=keras.applications.MobileNetV2,
        features=(
            "block_1_expand_relu",
            "block_3_expand_relu",
            "block_6_expand_relu",
            "block_13_expand_relu",
            "block_16_project",
        ),
        make_rescaling=mobilenet_v2.make_rescaling,
    )
}


def build_encoder(
    name: str,
    image_size: tuple[int, int],
    *,
    alpha: float = 1.0,
    weights: str = "imagenet",
    bn_momentum: float | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Builds an encoder and gives it its initial weights.

    Args:
      name: a key of `ENCODERS`.
      image_size: height and width of the input, multiples of 32.
      alpha: width multiplier of all layers.
      weights: `imagenet` (Keras downloads them), `none`, or a file of the application
        without its top: a `.weights.h5` file, or one as Keras downloads it.
      bn_momentum: how much of the moving batch-norm statistics a training step keeps;
        None: as much as Keras' network does.
      synchronized: whether the statistics are those of all replicas together.

    Returns:
      A model from images, float32 [batch, height, width, 3] in 0..255, to the five
      feature maps at strides 2, 4, 8, 16 and 32, in this order.

    Raises:
      WeightsError: if the weights cannot be had or do not fit.
    """
    kind = ENCODERS[name]
    encoder = kind.build(
        image_size, alpha=alpha, bn_momentum=bn_momentum, synchronized=synchronized
    )
    if weights == "imagenet":
        application = _download(kind, image_size, alpha)
        _copy_weights(application, encoder)
    elif weights != "none":
        _load_file(encoder, kind, alpha, weights)
    return encoder


def _download(kind: Encoder, image_size: tuple[int, int], alpha: float) -> keras.Model:
    """Returns the application with its ImageNet weights."""
    is_square = image_size[0] == image_size[1]
    is_released_size = is_square and image_size[0] in _RELEASED_SIZES
    try:
        return kind.application(
            # Given only where Keras has weights trained at this size; else 224's serve.
            input_shape=(*image_size, 3) if is_released_size else None,
            alpha=alpha,
            include_top=False,
            weights="imagenet",
        )
    except ValueError as error:  # An alpha for which there are no weights.
        raise WeightsError(str(error)) from error
    except Exception as error:  # `keras.utils.get_file` raises a bare Exception.
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({error}); fetch them on a "
            "machine with a network and name the file, or use none"
        ) from error


def _load_file(encoder: keras.Model, kind: Encoder, alpha: float, path: str) -> None:
    """Loads a file of the application's weights."""
    if not os.path.isfile(path):
        raise WeightsError(
            "there is no such file; name a .weights.h5 file, imagenet or none"
        )
    try:
        if path.endswith(".weights.h5"):
            with warnings.catch_warnings():
                # One for each layer without weights; the error that follows says it.
                warnings.simplefilter("ignore")
                # By layers and their order, which are the application's up to its end.
                encoder.load_weights(path)
        else:
            application = kind.application(alpha=alpha, include_top=False, weights=path)
            _copy_weights(application, encoder)
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]  # Pages of numbers follow.
        raise WeightsError(
            f"this file does not hold the encoder's weights ({reason}); is it of "
            "another architecture, or of another alpha?"
        ) from error


def _copy_weights(application: keras.Model, encoder: keras.Model) -> None:
    """Copies weights from layers to the layers of the same names."""
    for layer in encoder.layers:
        if layer.weights:
            layer.set_weights(application.get_layer(layer.name).get_weights())
