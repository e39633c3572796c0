"""The networks of `keras.applications` that serve as encoders, a table row each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from models import registry, scaling
from models.encoders import mobilenet_v2

_TO_ONE = scaling.Scaling(mean=(127.5,), scale=(1 / 127.5,))
"""From -1 to 1, as Keras' `preprocess_input` does in its mode `tf`."""

_CAFFE = scaling.Scaling(mean=(123.68, 116.779, 103.939), scale=(1.0,), is_bgr=True)
"""Blue first, ImageNet's mean taken away: its mode `caffe`."""

_IMAGENET = scaling.Scaling(
    mean=scaling.PHOTO_MEAN,
    scale=tuple(1 / deviation for deviation in scaling.PHOTO_DEVIATION),
)
"""ImageNet's mean and standard deviation: its mode `torch`."""


class Application(NamedTuple):
    """A network of Keras, and how to use it as an encoder.

    Attributes:
      make: makes the network; the options of its encoder in `models.registry` are
        arguments of it.
      maps: the layer that gives each feature map, finest first. Where an activation
        follows that layer, its output is the map: it has no stable name in some
        networks, so name the convolution or the norm before it.
      scaling: how its weights want the images.
      settings: further arguments of `make`.
      drop_connect: the rate of stochastic depth that `make` gives its last residual
        block, and the others less; None: it has none.
      weight_sizes: image sizes for which Keras has ImageNet weights of their own.
      build: makes the encoder where that is faster than cloning the network: a function
        like `mobilenet_v2.build_mobilenet_v2`, of layers with the network's names.
    """

    make: Callable[..., keras.Model]
    maps: tuple[str, ...]
    scaling: scaling.Scaling
    settings: Mapping[str, Any] = {}
    drop_connect: float | None = None
    weight_sizes: tuple[int, ...] = ()
    build: Callable[..., keras.Model] | None = None


APPLICATIONS = {
    "mobilenet_v2": Application(
        keras.applications.MobileNetV2,
        maps=(
            "block_1_expand_BN",
            "block_3_expand_BN",
            "block_6_expand_BN",
            "block_13_expand_BN",
            "block_16_project",
        ),
        scaling=_TO_ONE,
        weight_sizes=(96, 128, 160, 192, 224),
        build=mobilenet_v2.build_mobilenet_v2,
    ),
    "resnet50": Application(
        keras.applications.ResNet50,
        maps=(
            "conv1_bn",
            "conv2_block3_add",
            "conv3_block4_add",
            "conv4_block6_add",
            "conv5_block3_add",
        ),
        scaling=_CAFFE,
    ),
    "efficientnetv2_b0": Application(
        keras.applications.EfficientNetV2B0,
        # The last block of each stride; the 1280 channels after them are the
        # classifier's.
        maps=(
            "block1a_project_bn",
            "block2b_add",
            "block3b_add",
            "block5e_add",
            "block6h_add",
        ),
        scaling=_IMAGENET,
        settings={"include_preprocessing": False},
        drop_connect=0.2,
    ),
}
"""By the names of `registry.ENCODERS`."""


def make_network(
    name: str,
    image_size: tuple[int | None, int | None],
    images: scaling.Images = scaling.RGB,
    *,
    weights: str | None = None,
    options: Mapping[str, Any],
) -> keras.Model:
    """Makes Keras' network, from images to the feature maps.

    Args:
      name: a key of `APPLICATIONS`.
      image_size: height and width of the input; None: any.
      images: what comes in; of other numbers of channels than 3, without weights.
      weights: None for random ones, `imagenet`, or a file.
      options: of the encoder.

    Returns:
      A model of Keras' layers behind one of this package's, which scales the images. It
      takes [batch, height, width, channels].

    Raises:
      Exception: whatever Keras raises for weights that cannot be had or do not fit.
    """
    application = APPLICATIONS[name]
    inputs = keras.Input((*image_size, images.num_channels), name="image")
    image_scaling = scaling.make_image_scaling(
        application.scaling,
        images,
        multiple=max(registry.ENCODERS[name].strides),
    )
    # Keras' builders do not take it.
    drop_connect = options.get("drop_connect", application.drop_connect)
    network = application.make(
        input_tensor=image_scaling(inputs),
        input_shape=_weight_shape(application, image_size) if weights else None,
        include_top=False,
        weights=weights,
        **application.settings,
        **{key: value for key, value in options.items() if key != "drop_connect"},
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate *= drop_connect / application.drop_connect
    maps = [find_map(network, layer) for layer in application.maps]
    return keras.Model(inputs, maps, name=name)


def _weight_shape(
    application: Application, image_size: tuple[int | None, int | None]
) -> tuple[int, int, int] | None:
    """Returns the shape that Keras chooses the weights by, if there is a choice."""
    height, width = image_size
    if height != width or height not in application.weight_sizes:
        return None
    return height, width, 3


def find_map(network: keras.Model, name: str) -> keras.KerasTensor:
    """Returns the output of a layer, or of the activation that follows it."""
    output = network.get_layer(name).output
    for layer in network.layers:
        is_activation = isinstance(layer, keras.layers.Activation | keras.layers.ReLU)
        if is_activation and layer.input is output:
            return layer.output
    return output
