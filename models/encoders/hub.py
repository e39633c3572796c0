"""The backbones of KerasHub's presets as encoders.

A preset is opened once, when a run begins. What is left of it in the run's folder is
its architecture, of which the encoder is built again, for a checkpoint's weights.
"""

import difflib
import math
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from models import scaling
from models.encoders import cloning, mit
from models.encoders import weights as weights_lib

_PROBE_SIZE = 256
"""Height and width for which the maps are measured where a backbone takes any."""

_FINEST_STRIDE = 4
"""Decoders need a map at least as fine."""

_MIT = "keras_hub>MiTBackbone"

_EXAMPLE = "such as mit_b0_ade20k_512 or resnet_50_imagenet"


class PresetError(ValueError):
    """A preset that is not there or does not serve as an encoder."""


class Preset(NamedTuple):
    """A preset of KerasHub.

    Attributes:
      architecture: what to build the encoder of, as JSON gives it back: the backbone,
        as Keras serializes it; the `strides` of its maps; the `multiple` of which the
        sides of images are; the number of `channels`; the `scaling` of images.
      network: the backbone; None: to be built of the architecture.
      has_weights: whether the network has other than random weights.
      remark: a sentence on what is not known and assumed; empty: nothing.
    """

    architecture: Mapping[str, Any]
    network: keras.Model | None = None
    has_weights: bool = False
    remark: str = ""

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of the encoder's maps."""
        return tuple(self.architecture["strides"])


def open_preset(name: str, weights: str) -> Preset:
    """Opens a preset.

    Args:
      name: of the preset: one that KerasHub knows, a handle with a scheme, or a folder.
      weights: `imagenet` for those of the preset, `none`, or a `.weights.h5` file of
        the backbone.

    Raises:
      PresetError: if it is not there or does not serve, or KerasHub is not installed.
      weights_lib.WeightsError: if a file does not fit.
    """
    hub = _import()
    has_own = weights == "imagenet"
    if has_own and not os.path.isdir(name):
        # Before its weights are downloaded for nothing.
        _find_pyramid(hub, _load(hub, name, load_weights=False))
    network = _find_pyramid(hub, _load(hub, name, load_weights=has_own))
    if weights not in ("imagenet", "none"):
        weights_lib.load_file(network, weights)
    image_scaling = _read_scaling(hub, name)
    has_weights = weights != "none"
    remark = ""
    if image_scaling is None and has_weights:
        remark = (
            "there is no image_converter.json in this preset, which says how its "
            "weights want images; they get those of ImageNet's mean and deviation"
        )
    return Preset(
        architecture=_describe(network, image_scaling or scaling.LIKE_PHOTOS),
        network=network,
        has_weights=has_weights,
        remark=remark,
    )


def build(
    preset: Preset,
    inputs: keras.KerasTensor,
    images: scaling.Images,
    *,
    bn_momentum: float | None = None,
    synchronized: bool = False,
) -> keras.Model:
    """Builds the encoder that a preset is, with its weights if it has any.

    Args:
      preset: opened, or of an architecture alone.
      inputs: the images, [batch, height, width, channels].
      images: what they are.
      bn_momentum: see `cloning.clone_network`.
      synchronized: see there, too.

    Returns:
      A model from the images to the maps.

    Raises:
      PresetError: if it takes another number of channels, or has layers that cannot be
        copied, or KerasHub, which must build it, is not installed.
    """
    architecture, network = preset.architecture, preset.network
    num_channels = architecture["channels"]
    if num_channels not in (3, images.num_channels):
        raise PresetError(
            f"its first layer takes {num_channels} channels, and the images have "
            f"{images.num_channels}; use --image_channels={num_channels}, or a preset "
            "for photos, which serves any number"
        )
    own_scaling = scaling.Scaling(
        *(tuple(architecture["scaling"][part]) for part in ("mean", "scale"))
    )
    image_scaling = scaling.make_image_scaling(
        own_scaling, images, multiple=architecture["multiple"]
    )
    if architecture["backbone"]["registered_name"] == _MIT:
        config = architecture["backbone"]["config"]
        model = mit.build_mit(inputs, image_scaling, config)
        pairs = mit.pair(network, model) if preset.has_weights else ()
    else:
        network = _flatten(network or _make_network(architecture), own_scaling)
        model, pairs = cloning.clone_network(
            network,
            inputs,
            image_scaling,
            bn_momentum=bn_momentum,
            synchronized=synchronized,
        )
    if preset.has_weights:
        cloning.copy_weights(pairs, own_scaling.colours)
    return model


def _import() -> types.ModuleType:
    """Returns KerasHub."""
    try:
        import keras_hub
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "keras_hub":
            raise PresetError(
                f"the package keras_hub cannot be imported ({error}); mend that"
            ) from error
        raise PresetError(
            "the package keras_hub is not installed; `pip install '.[hub]'` in a clone "
            "of this repository, or install its wheel with `[hub]` behind the file's "
            "name"
        ) from error
    return keras_hub


def _load(hub: types.ModuleType, name: str, *, load_weights: bool) -> keras.Model:
    """Returns the backbone of a preset."""
    is_folder = os.path.isdir(name)
    if not is_folder and "://" not in name:
        known = hub.models.Backbone.presets
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise PresetError(
                f"KerasHub {hub.__version__} knows no such preset{hint}, and there is "
                f"no such folder; name a preset, {_EXAMPLE}, or a folder that "
                "backbone.save_to_preset(FOLDER) wrote"
            )
    try:
        return hub.models.Backbone.from_preset(name, load_weights=load_weights)
    except Exception as error:  # Of KerasHub, Keras, Kaggle's client and the network.
        reason = str(error).strip().partition("\n")[0]
        if is_folder:
            raise PresetError(
                f"this folder is no preset that can be read ({reason}); write it by "
                "backbone.save_to_preset(FOLDER)"
            ) from error
        raise PresetError(
            f"the preset could not be downloaded ({reason}); fetch it on a machine "
            "with a network, write it by backbone.save_to_preset(FOLDER), and name "
            "that folder"
        ) from error


def _find_pyramid(hub: types.ModuleType, backbone: keras.Model) -> keras.Model:
    """Returns the part of a backbone that has maps of several sizes."""
    # Of SegFormer, DeepLab and RetinaNet, what lies before their decoders.
    for part in (getattr(backbone, "image_encoder", None), backbone):
        if isinstance(part, hub.models.FeaturePyramidBackbone):
            maps = part.pyramid_outputs.values()
            if maps and all(len(features.shape) == 4 for features in maps):
                return part
    raise PresetError(
        f"a {type(backbone).__name__} has no feature maps of several sizes, which "
        "decoders need; use a preset of MiT, SegFormer, ResNet, EfficientNet, DenseNet "
        f"or CSPNet, {_EXAMPLE}"
    )


def _read_scaling(hub: types.ModuleType, name: str) -> scaling.Scaling | None:
    """Returns how a preset wants images; None if it does not say."""
    try:
        converter = hub.layers.ImageConverter.from_preset(name)
    except (OSError, ValueError):  # There is no file, or no class for the backbone.
        return None
    scale, offset = (
        _as_tuple(default if value is None else value)
        for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
    )
    count = max(len(scale), len(offset))
    scale, offset = (values * (count // len(values)) for values in (scale, offset))
    mean = tuple(-o / s for o, s in zip(offset, scale, strict=True))
    return scaling.Scaling(mean=mean, scale=scale)


def _as_tuple(value: float | Sequence[float]) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(float(item) for item in values)


def _describe(network: keras.Model, image_scaling: scaling.Scaling) -> dict[str, Any]:
    """Returns the architecture of a preset; see `Preset`."""
    backbone = keras.saving.serialize_keras_object(network)
    # Those of one way to compute, which may be another one the next time.
    config = {k: v for k, v in backbone["config"].items() if k != "dtype"}
    backbone = {
        "module": backbone["module"],
        "class_name": backbone["class_name"],
        "config": config,
        "registered_name": backbone["registered_name"],
    }
    strides = _measure_strides(network)
    multiple = max(strides)
    if backbone["registered_name"] == _MIT:
        multiple = math.lcm(multiple, mit.multiple_of(config))
    return {
        "backbone": backbone,
        "strides": list(strides),
        "multiple": multiple,
        "channels": network.inputs[0].shape[-1],
        "scaling": {
            "mean": list(image_scaling.mean),
            "scale": list(image_scaling.scale),
        },
    }


def _measure_strides(network: keras.Model) -> tuple[int, ...]:
    """Returns the strides of a network's maps: their names do not always say them."""
    _, *sizes, channels = network.inputs[0].shape
    sizes = [size or _PROBE_SIZE for size in sizes]
    maps = _to_maps(network)
    shapes = maps.compute_output_shape((1, *sizes, channels))
    strides = []
    for _, *lengths, _ in shapes:
        ratios = {size / length for size, length in zip(sizes, lengths, strict=True)}
        ratio = ratios.pop()
        if ratios or ratio not in (1, 2, 4, 8, 16, 32, 64):
            raise PresetError(
                f"of images of {sizes[0]}x{sizes[1]} pixels it makes a map of "
                f"{lengths[0]}x{lengths[1]}, which is no size over a power of 2; use "
                f"another preset, {_EXAMPLE}"
            )
        strides.append(int(ratio))
    if strides != sorted(strides) or strides[0] > _FINEST_STRIDE:
        raise PresetError(
            f"its maps have strides of {', '.join(map(str, strides))}, and decoders "
            f"need them from {_FINEST_STRIDE} or less on, finest first; use another "
            f"preset, {_EXAMPLE}"
        )
    return tuple(strides)


def _to_maps(network: keras.Model) -> keras.Model:
    return keras.Model(network.inputs[0], list(network.pyramid_outputs.values()))


def _make_network(architecture: Mapping[str, Any]) -> keras.Model:
    """Builds a backbone with random weights."""
    _import()  # It tells Keras of its classes.
    try:
        return keras.saving.deserialize_keras_object(dict(architecture["backbone"]))
    except (TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PresetError(
            f"the run's {architecture['backbone']['class_name']} cannot be built by "
            f"this version of keras_hub ({reason}); install the one that it was "
            "trained with"
        ) from error


def _flatten(network: keras.Model, image_scaling: scaling.Scaling) -> keras.Model:
    """Returns a network from images to maps, of Keras' own layers alone.

    Blocks that are layers, as EfficientNet's are, give way to the layers within them.
    """
    maps = _to_maps(network)
    num_channels = network.inputs[0].shape[-1]
    images = keras.Input((None, None, num_channels), name="image")
    scale = scaling.make_image_scaling(
        image_scaling, scaling.Images(num_channels), multiple=1
    )
    whole = keras.Model(images, maps.call(scale(images)), name="keras_hub")
    flat = keras.models.clone_model(
        whole,
        input_tensors=images,
        clone_function=lambda layer: layer,
        call_function=_call_within,
    )
    strange = [layer for layer in flat.layers if not _is_known(layer) and layer.weights]
    if strange or len(flat.weights) != len(whole.weights):
        kinds = ", ".join(sorted({type(layer).__name__ for layer in strange}))
        raise PresetError(
            f"it has layers ({kinds or 'with weights of their own'}) that are not made "
            f"of Keras' own; use another preset, {_EXAMPLE}"
        )
    return flat


def _call_within(layer: keras.Operation, *args, **kwargs) -> Any:
    """Calls a layer; of one that is not Keras' own, the layers within it."""
    return (layer if _is_known(layer) else layer.call)(*args, **kwargs)


def _is_known(layer: keras.Operation) -> bool:
    kind = type(layer)
    return kind.__module__.startswith("keras.") or kind is scaling.ImageScaling
