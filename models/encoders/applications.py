"""The networks of `keras.applications` that serve as encoders, a table row each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from models import registry, scaling
from models.encoders import mobilenet_v2, plain

_TO_ONE = scaling.Scaling(mean=(127.5,), scale=(1 / 127.5,))
"""From -1 to 1, as Keras' `preprocess_input` does in its mode `tf`."""

_TO_128THS = scaling.Scaling(mean=(128.0,), scale=(1 / 128,))
"""Of the larger EfficientNetV2 networks, whose layers of scaling have it."""

_CAFFE = scaling.Scaling(mean=(123.68, 116.779, 103.939), scale=(1.0,), is_bgr=True)
"""Blue first, ImageNet's mean taken away: its mode `caffe`."""

INPUT_OF, OUTPUT = "input of ", "output"
"""How to name maps that no layer with a stable name makes: the input of a layer that
has a stable name, and the output of the network."""


class Application(NamedTuple):
    """A network of Keras, and how to use it as an encoder.

    Attributes:
      make: makes the network; the options of its encoder in `models.registry` are
        arguments of it.
      maps: the layer that gives each feature map, finest first. Where an activation
        follows that layer, its output is the map: it has no stable name in some
        networks, so name the convolution or the norm before it. See `INPUT_OF`, too.
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


_UNSCALED = {"include_preprocessing": False}


def _mobilenet_v3(
    make: Callable[..., keras.Model], strided: tuple[str, ...], last: int
) -> Application:
    """Returns the row of a MobileNetV3, like that of V2.

    Args:
      make: of Keras.
      strided: what comes before each strided depthwise convolution.
      last: number of the last block; the convolution after it is the classifier's.
    """
    maps = (*(f"{name}_bn" for name in strided), f"expanded_conv_{last}_add")
    return Application(make, maps, _TO_ONE, settings=_UNSCALED)


def _resnet(
    make: Callable[..., keras.Model], num_blocks: tuple[int, ...]
) -> Application:
    """Returns the row of a ResNet of so many blocks in its four stages."""
    stages = enumerate(num_blocks, start=2)
    maps = ("conv1_bn", *(f"conv{i}_block{count}_add" for i, count in stages))
    return Application(make, maps, _CAFFE)


def _efficientnet_v2(
    make: Callable[..., keras.Model],
    last_blocks: tuple[str, ...],
    image_scaling: scaling.Scaling = scaling.LIKE_PHOTOS,
) -> Application:
    """Returns the row of an EfficientNetV2.

    Args:
      make: of Keras.
      last_blocks: the last block of each stride; the convolution after them is the
        classifier's.
      image_scaling: how its weights want the images.
    """
    first, *others = last_blocks
    # A single block has no sum.
    first = f"block{first}_{'project_bn' if first == '1a' else 'add'}"
    maps = (first, *(f"block{name}_add" for name in others))
    return Application(make, maps, image_scaling, settings=_UNSCALED, drop_connect=0.2)


def _convnext(make: Callable[..., keras.Model], name: str) -> Application:
    """Returns the row of a ConvNeXt: the sums that end its stages have no name."""
    maps = tuple(f"{INPUT_OF}{name}_downsampling_block_{i}" for i in range(3))
    return Application(make, (*maps, OUTPUT), scaling.LIKE_PHOTOS, settings=_UNSCALED)


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
    "mobilenet_v3_small": _mobilenet_v3(
        keras.applications.MobileNetV3Small,
        ("conv", *(f"expanded_conv_{i}_expand" for i in (1, 3, 8))),
        last=10,
    ),
    "mobilenet_v3_large": _mobilenet_v3(
        keras.applications.MobileNetV3Large,
        tuple(f"expanded_conv_{i}_expand" for i in (1, 3, 6, 12)),
        last=14,
    ),
    "efficientnetv2_b0": _efficientnet_v2(
        keras.applications.EfficientNetV2B0, ("1a", "2b", "3b", "5e", "6h")
    ),
    "efficientnetv2_b1": _efficientnet_v2(
        keras.applications.EfficientNetV2B1, ("1b", "2c", "3c", "5f", "6i")
    ),
    "efficientnetv2_b2": _efficientnet_v2(
        keras.applications.EfficientNetV2B2, ("1b", "2c", "3c", "5f", "6j")
    ),
    "efficientnetv2_b3": _efficientnet_v2(
        keras.applications.EfficientNetV2B3, ("1b", "2c", "3c", "5g", "6l")
    ),
    "efficientnetv2_s": _efficientnet_v2(
        keras.applications.EfficientNetV2S, ("1b", "2d", "3d", "5i", "6o"), _TO_128THS
    ),
    "resnet50": _resnet(keras.applications.ResNet50, (3, 4, 6, 3)),
    "resnet101": _resnet(keras.applications.ResNet101, (3, 4, 23, 3)),
    "resnet50_v2": Application(
        keras.applications.ResNet50V2,
        # The last block of a stage halves the size; its first norm sees the sum of all
        # before it.
        maps=(
            "conv1_conv",
            "conv2_block3_preact_bn",
            "conv3_block4_preact_bn",
            "conv4_block6_preact_bn",
            "post_bn",
        ),
        scaling=_TO_ONE,
    ),
    "convnext_tiny": _convnext(keras.applications.ConvNeXtTiny, "convnext_tiny"),
    "convnext_small": _convnext(keras.applications.ConvNeXtSmall, "convnext_small"),
    "densenet121": Application(
        keras.applications.DenseNet121,
        maps=("conv1_bn", "pool2_bn", "pool3_bn", "pool4_bn", "bn"),
        scaling=scaling.LIKE_PHOTOS,
    ),
    "plain": Application(plain.make_plain, plain.MAPS, scaling.LIKE_PHOTOS),
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
      options: of the encoder. `output_stride` only changes how images are padded here;
        `cloning.clone_network` does the rest.

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
        multiple=max(registry.strides_of(name, options)),
    )
    # What Keras' builders do not take: they give rates of their own to dropout, the
    # blocks' stochastic depth, and the last stage has a stride.
    taken = {
        key: value
        for key, value in options.items()
        if key not in ("drop_connect", "output_stride")
    }
    drop_connect = options.get("drop_connect", application.drop_connect)
    network = application.make(
        input_tensor=image_scaling(inputs),
        input_shape=_weight_shape(application, image_size) if weights else None,
        include_top=False,
        weights=weights,
        **application.settings,
        **taken,
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate *= drop_connect / application.drop_connect
    maps = [find_map(network, layer) for layer in application.maps]
    return keras.Model(inputs, maps, name=name)


def _weight_shape(
    application: Application, image_size: tuple[int | None, int | None]
) -> tuple[int, int, int] | None:
    """Returns the input shape by which Keras chooses weights; None: no choice."""
    height, width = image_size
    if height != width or height not in application.weight_sizes:
        return None
    return height, width, 3


def find_map(network: keras.Model, name: str) -> keras.KerasTensor:
    """Returns a map by its name in `Application.maps`."""
    if name == OUTPUT:
        return network.output
    if name.startswith(INPUT_OF):
        return network.get_layer(name.removeprefix(INPUT_OF)).input
    output = network.get_layer(name).output
    for layer in network.layers:
        is_activation = isinstance(layer, keras.layers.Activation | keras.layers.ReLU)
        if is_activation and layer.input is output:
            return layer.output
    return output
