"""Encoders by name: image classifiers cut into feature maps."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from models import registry, scaling
from models.encoders import applications, cloning
from models.encoders import weights as weights_lib
from models.encoders.weights import WeightsError

__all__ = ["Encoder", "WeightsError", "build_encoder"]


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


def build_encoder(
    name: str,
    image_size: tuple[int | None, int | None],
    *,
    images: scaling.Images = scaling.RGB,
    weights: str = "imagenet",
    bn_momentum: float | None = None,
    synchronized: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """Builds an encoder and gives it its initial weights.

    Args:
      name: a key of `registry.ENCODERS`.
      image_size: height and width of the input; None: any.
      images: what comes in. Weights of colour photos serve other numbers of channels,
        too; see `scaling.adapt_kernel`.
      weights: `imagenet` (Keras downloads them), `none`, or a file of the application
        without its top, `.weights.h5` or as Keras downloads it.
      bn_momentum: how much of the moving batch-norm statistics a training step keeps;
        None: as much as Keras' network does.
      synchronized: whether the statistics are those of all replicas together.
      options: of this encoder; see `registry.Encoder`.

    Raises:
      WeightsError: if the weights cannot be had or do not fit.
      ValueError: if the encoder does not take an option.
    """
    options = dict(options or {})
    registry.check_options(name, options, registry.ENCODERS[name].options)
    strides = registry.strides_of(name, options)
    application = applications.APPLICATIONS[name]
    inputs = keras.Input((*image_size, images.num_channels), name="image")
    image_scaling = scaling.make_image_scaling(
        application.scaling, images, multiple=max(strides)
    )
    norms = {"bn_momentum": bn_momentum, "synchronized": synchronized}
    make = functools.partial(
        applications.make_network, name, image_size, options=options
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
