"""Encoders by name: image classifiers cut into feature maps."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from models import registry, scaling
from models.encoders import applications, cloning, hub
from models.encoders import weights as weights_lib
from models.encoders.hub import Preset, PresetError
from models.encoders.weights import WeightsError

__all__ = [
    "Encoder",
    "Preset",
    "PresetError",
    "WeightsError",
    "build_encoder",
    "open_preset",
]


class Encoder(NamedTuple):
    """An encoder.

    Attributes:
      model: from images, [batch, height, width, channels], to feature maps. The images
        are padded to multiples of the largest stride first, so a map is that size over
        its stride.
      strides: of the maps, in their order, finest first.
    """

    model: keras.Model
    strides: tuple[int, ...]


def open_preset(name: str, weights: str) -> Preset | None:
    """Opens the preset that an encoder is built of.

    Args:
      name: of the encoder.
      weights: as `build_encoder` takes them.

    Returns:
      None for an encoder of this package.

    Raises:
      PresetError: if it is not there or does not serve.
      WeightsError: if the weights cannot be had or do not fit.
    """
    if not registry.library_of(name):
        return None
    return hub.open_preset(name.partition(":")[2], weights)


def build_encoder(
    name: str,
    image_size: tuple[int | None, int | None],
    *,
    images: scaling.Images = scaling.RGB,
    weights: str = "imagenet",
    bn_momentum: float | None = None,
    synchronized: bool = False,
    options: Mapping[str, Any] | None = None,
    preset: Preset | None = None,
) -> Encoder:
    """Builds an encoder and gives it its initial weights.

    Args:
      name: a key of `registry.ENCODERS`, or of a preset.
      image_size: height and width of the input; None: any.
      images: what comes in. Weights of colour photos serve other numbers of channels,
        too; see `scaling.adapt_kernel`.
      weights: `imagenet` (Keras downloads them), `none`, or a file of the application
        without its top, `.weights.h5` or as Keras downloads it.
      bn_momentum: how much of the moving batch-norm statistics a training step keeps;
        None: as much as Keras' network does.
      synchronized: whether the statistics are those of all replicas together.
      options: of this encoder; see `registry.Encoder`.
      preset: what `open_preset` gave, or of an architecture; None: it is opened.

    Raises:
      PresetError: if a preset is not there or does not serve.
      WeightsError: if the weights cannot be had or do not fit.
      ValueError: if the encoder does not take an option.
    """
    options = dict(options or {})
    registry.check_options(name, options, registry.options_of(name))
    inputs = keras.Input((*image_size, images.num_channels), name="image")
    norms = {"bn_momentum": bn_momentum, "synchronized": synchronized}
    if registry.library_of(name):
        preset = preset or open_preset(name, weights)
        return Encoder(hub.build(preset, inputs, images, **norms), preset.strides)
    return _build_application(
        name, inputs, images=images, weights=weights, norms=norms, options=options
    )


def _build_application(
    name: str,
    inputs: keras.KerasTensor,
    *,
    images: scaling.Images,
    weights: str,
    norms: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Encoder:
    """Builds an encoder of `applications`; arguments as for `build_encoder`.

    Args:
      inputs: the images.
      norms: what there is to say of batch norms, `bn_momentum` and `synchronized`.
    """
    strides = registry.strides_of(name, options)
    application = applications.APPLICATIONS[name]
    image_scaling = scaling.make_image_scaling(
        application.scaling, images, multiple=max(strides)
    )
    make = functools.partial(
        applications.make_network, name, tuple(inputs.shape[1:3]), options=options
    )
    if application.build:
        model = application.build(inputs, image_scaling, **norms, **options)
        # The file has three channels, and no statistics of images.
        has_same_weights = images.num_channels == 3 and not images.num_measured
        if weights.endswith(".weights.h5") and has_same_weights:
            weights_lib.load_file(model, weights)
        elif weights != "none":
            network = weights_lib.read_into(make, weights)
            pairs = weights_lib.pair_by_name(network, model)
            cloning.copy_weights(pairs, application.scaling.colours)
        return Encoder(model, strides)
    is_random = weights == "none"
    network = make() if is_random else weights_lib.read_into(make, weights)
    is_dilated = strides != registry.ENCODERS[name].strides
    model, pairs = cloning.clone_network(
        network, inputs, image_scaling, dilates_last_stage=is_dilated, **norms
    )
    if not is_random:
        cloning.copy_weights(pairs, application.scaling.colours)
    return Encoder(model, strides)
