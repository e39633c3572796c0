"""Initial weights of encoders: ImageNet's, or those of a file."""

import os
import warnings
from collections.abc import Callable

import keras

from models import scaling
from models.encoders import cloning


class WeightsError(ValueError):
    """Initial weights that are not there or do not fit."""


def read_into(make: Callable[..., keras.Model], weights: str) -> keras.Model:
    """Makes Keras' network with initial weights.

    Args:
      make: makes the network, of its argument `weights`.
      weights: `imagenet` or a file.

    Raises:
      WeightsError: if the weights cannot be had or do not fit.
    """
    if weights != "imagenet":
        return _load_file(lambda: make(weights=weights), weights)
    try:
        return make(weights=weights)
    except ValueError as error:  # An alpha for which there are no weights.
        raise WeightsError(str(error)) from error
    except Exception as error:  # `keras.utils.get_file` raises a bare Exception.
        raise WeightsError(
            f"the ImageNet weights could not be downloaded ({error}); fetch them on a "
            "machine with a network and name the file, or use none"
        ) from error


def load_file(model: keras.Model, path: str) -> None:
    """Loads a `.weights.h5` file of a network that begins with the model's layers.

    Raises:
      WeightsError: if it is not there or does not fit.
    """
    # Keras goes by the layers and their order.
    _load_file(lambda: model.load_weights(path), path)


def pair_by_name(network: keras.Model, model: keras.Model) -> cloning.Pairs:
    """Returns the layers of a network that the layers with weights are named after.

    The scaling is not one: what it has is measured.
    """
    return [
        (network.get_layer(layer.name), layer)
        for layer in model.layers
        if layer.weights and not isinstance(layer, scaling.ImageScaling)
    ]


def _load_file(load: Callable[[], keras.Model | None], path: str) -> keras.Model | None:
    """Calls what reads a file; its errors become ones that a user can act on."""
    if not os.path.isfile(path):
        raise WeightsError(
            "there is no such file; name a .weights.h5 file, imagenet or none"
        )
    try:
        with warnings.catch_warnings():
            # One for each layer without weights; the error that follows says it.
            warnings.simplefilter("ignore")
            return load()
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]  # Pages of numbers follow.
        raise WeightsError(
            f"this file does not hold the encoder's weights ({reason}); is it of "
            "another architecture, or of another alpha?"
        ) from error
