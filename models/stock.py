"""Models of Keras' own layers alone, with the weights of this package's.

What loads such a model needs Keras and nothing else. A model computes the same with
them, up to rounding: each layer of this package is one or several of Keras', of the
same weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from models import layers, scaling
from models.decoders import pix2pix
from models.encoders import mit
from models.fast import convolutions, dense, normalization


def make_stock_model(model: keras.Model) -> keras.Model:
    """Makes a model of Keras' own layers, with the weights of a model.

    Args:
      model: of `factory.build_model`, in float32, for images of one size.

    Returns:
      A model from the same images to the same logits, for inference.

    Raises:
      ValueError: if it has a layer that is not Keras' own and is not known here.
    """
    made = _Translator().translate(model)
    if len(made.inputs) > 1:
        return made
    # Keras warns of a tensor where a list of one is expected.
    return keras.Model(made.inputs[0], made.outputs[0], name=model.name)


class _Translator:
    """Calls Keras' own layers in place of those of a model."""

    def __init__(self):
        """Begins without a layer."""
        self._made: dict[int, keras.layers.Layer] = {}

    def translate(self, model: keras.Model) -> keras.Model:
        """Makes the stock model of a model that may be part of another."""
        if isinstance(model, keras.Sequential):
            inputs = keras.Input(batch_shape=model.input_shape)
            outputs = inputs
            for layer in model.layers:
                outputs = self(layer, outputs)
            return keras.Model(inputs, outputs, name=model.name)
        return keras.models.clone_model(
            model, clone_function=lambda layer: layer, call_function=self
        )

    def __call__(self, layer: keras.Operation, *args, **kwargs) -> Any:
        """Calls what stands for a layer."""
        for kind, call in _CALLS.items():
            if type(layer) is kind:
                return call(self, layer, *args)
        if isinstance(layer, keras.Model):
            return self.make(layer, lambda: self.translate(layer))(*args)
        if not type(layer).__module__.startswith("keras."):
            raise ValueError(f"{type(layer).__name__} is no layer of Keras' own")
        if not isinstance(layer, keras.Layer):  # A bare operation.
            return layer(*args, **kwargs)
        return self.copy(type(layer), layer, *args, **kwargs)

    def make(self, layer: keras.Layer, make: Callable[[], keras.Layer]) -> keras.Layer:
        """Returns what `make` makes of a layer, once for all calls of it."""
        if id(layer) not in self._made:
            self._made[id(layer)] = make()
        return self._made[id(layer)]

    def copy(
        self,
        kind: type[keras.Layer],
        layer: keras.Layer,
        *args,
        prefix: str = "",
        **kwargs,
    ) -> Any:
        """Calls a layer of a kind, with settings and weights of another.

        Args:
          kind: of Keras.
          layer: whose settings it takes.
          *args: of the call, as `**kwargs` are.
          prefix: of its name.
        """
        config = layer.get_config()
        config["name"] = f"{prefix}{layer.name}"
        if kind is keras.layers.BatchNormalization:
            config["synchronized"] = False
        copy = self.make(layer, lambda: kind.from_config(config))
        outputs = copy(*args, **kwargs)
        copy.set_weights(layer.get_weights())
        return outputs


def _scale(
    translator: _Translator,
    layer: scaling.ImageScaling,
    images: keras.KerasTensor,
) -> keras.KerasTensor:
    del translator
    scale, offset = (value.numpy().tolist() for value in layer.scale_and_offset())
    for axis in (1, 2):
        size = images.shape[axis]
        positions = scaling.mirrored_positions(size, layer.multiple)
        if len(positions) > size:
            images = keras.ops.take(images, positions, axis=axis)
    if layer.clipped_range:
        images = keras.ops.clip(images, *layer.clipped_range)
    scaled = keras.layers.Rescaling(scale, offset, name=layer.name)(images)
    if layer.reverses_channels:
        order = list(reversed(range(images.shape[-1])))
        scaled = keras.ops.take(scaled, order, axis=-1)
    return scaled


def _convolve(
    translator: _Translator,
    layer: convolutions.Conv2D,
    features: keras.KerasTensor | Sequence[keras.KerasTensor],
) -> keras.KerasTensor:
    features = _join(features)
    if layer.groups == 1:
        return translator.copy(keras.layers.Conv2D, layer, features)
    # Keras sends groups through XLA, which neither LiteRT nor ONNX has.
    kernel, *bias = layer.get_weights()
    kernels = keras.ops.split(kernel, layer.groups, axis=-1)
    parts = []
    for index, part in enumerate(keras.ops.split(features, layer.groups, axis=-1)):
        config = {**layer.get_config(), "groups": 1, "name": f"{layer.name}_{index}"}
        config |= {"filters": layer.filters // layer.groups}
        config |= {"use_bias": False, "activation": None}
        convolution = keras.layers.Conv2D.from_config(config)
        parts.append(convolution(part))
        convolution.set_weights([kernels[index]])
    outputs = keras.layers.Concatenate(name=f"{layer.name}_join")(parts)
    if bias:
        outputs = _scale_channels(outputs, None, bias[0], f"{layer.name}_bias")
    return keras.layers.Activation(layer.activation)(outputs)


def _scale_channels(
    features: keras.KerasTensor, scale: Any, shift: Any, name: str
) -> keras.KerasTensor:
    """Multiplies channels and adds to them, each number or [channels] or None."""
    scale = 1.0 if scale is None else scale.tolist()
    shift = 0.0 if shift is None else shift.tolist()
    return keras.layers.Rescaling(scale, shift, name=name)(features)


def _apply_dense(
    translator: _Translator, layer: dense.Dense, features: keras.KerasTensor
) -> keras.KerasTensor:
    return translator.copy(keras.layers.Dense, layer, features)


def _convolve_depthwise(
    translator: _Translator,
    layer: convolutions.DepthwiseConv2D,
    features: keras.KerasTensor,
) -> keras.KerasTensor:
    return translator.copy(keras.layers.DepthwiseConv2D, layer, features)


def _convolve_transposed(
    translator: _Translator,
    layer: convolutions.Conv2DTranspose,
    features: Sequence[keras.KerasTensor],
    prefix: str = "",
) -> keras.KerasTensor:
    return translator.copy(
        keras.layers.Conv2DTranspose, layer, _join(features), prefix=prefix
    )


def _normalize(
    translator: _Translator,
    layer: normalization.BatchNormalization | normalization.GroupNormalization,
    features: keras.KerasTensor,
    prefix: str = "",
) -> keras.KerasTensor:
    kind = keras.layers.GroupNormalization
    if isinstance(layer, normalization.BatchNormalization):
        kind = keras.layers.BatchNormalization
    return translator.copy(kind, layer, features, prefix=prefix)


def _upsample(
    translator: _Translator,
    layer: pix2pix.UpsampleBlock,
    features: Sequence[keras.KerasTensor],
) -> keras.KerasTensor:
    convolution, norm = layer.parts
    prefix = f"{layer.name}_"
    outputs = _convolve_transposed(translator, convolution, features, prefix)
    outputs = _normalize(translator, norm, outputs, prefix)
    return keras.layers.ReLU(name=f"{prefix}relu")(outputs)


def _attend(
    translator: _Translator,
    layer: mit.Attention,
    inputs: Sequence[keras.KerasTensor],
) -> keras.KerasTensor:
    del translator
    queries, keys, values = (_split_heads(maps, layer.num_heads) for maps in inputs)
    queries = queries * queries.shape[-1] ** -0.5
    scores = keras.ops.matmul(queries, keras.ops.transpose(keys, (0, 1, 3, 2)))
    attended = keras.ops.matmul(keras.ops.softmax(scores), values)
    attended = keras.ops.transpose(attended, (0, 2, 1, 3))
    return keras.layers.Reshape(inputs[0].shape[1:], name=layer.name)(attended)


def _split_heads(maps: keras.KerasTensor, num_heads: int) -> keras.KerasTensor:
    """Returns [batch, heads, places, channels of a head]."""
    _, height, width, channels = maps.shape
    size = channels // num_heads
    parts = keras.ops.reshape(maps, (-1, height * width, num_heads, size))
    return keras.ops.transpose(parts, (0, 2, 1, 3))


def _enlarge(
    translator: _Translator, layer: layers.Resize, features: keras.KerasTensor
) -> keras.KerasTensor:
    del translator
    if layer.factor == 1:
        return features
    return keras.layers.UpSampling2D(
        layer.factor, interpolation="bilinear", name=layer.name
    )(features)


def _take_mean(
    translator: _Translator, layer: layers.ImageMean, features: keras.KerasTensor
) -> keras.KerasTensor:
    del translator
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=layer.name)
    return mean(features)


def _spread(
    translator: _Translator,
    layer: layers.Spread,
    inputs: Sequence[keras.KerasTensor],
) -> keras.KerasTensor:
    del translator
    values, features = inputs
    return keras.layers.UpSampling2D(features.shape[1:3], name=layer.name)(values)


def _crop(
    translator: _Translator, layer: layers.Crop, inputs: Sequence[keras.KerasTensor]
) -> keras.KerasTensor:
    del translator
    logits, images = inputs
    margins = [
        (0, have - want)
        for have, want in zip(logits.shape[1:3], images.shape[1:3], strict=True)
    ]
    if margins == [(0, 0), (0, 0)]:
        return logits
    return keras.layers.Cropping2D(margins, name=layer.name)(logits)


def _keep(
    translator: _Translator, layer: layers.RowDropout, features: keras.KerasTensor
) -> keras.KerasTensor:
    del translator, layer
    return features


def _rectify(
    translator: _Translator, layer: layers.DroppingReLU, features: keras.KerasTensor
) -> keras.KerasTensor:
    del translator
    return keras.layers.ReLU(name=layer.name)(features)


def _join(
    features: keras.KerasTensor | Sequence[keras.KerasTensor],
) -> keras.KerasTensor:
    maps = keras.tree.flatten(features)
    return maps[0] if len(maps) == 1 else keras.layers.Concatenate()(maps)


_CALLS: dict[type, Callable] = {
    scaling.ImageScaling: _scale,
    dense.Dense: _apply_dense,
    convolutions.Conv2D: _convolve,
    convolutions.JoinedConv2D: _convolve,
    convolutions.DepthwiseConv2D: _convolve_depthwise,
    convolutions.Conv2DTranspose: _convolve_transposed,
    normalization.BatchNormalization: _normalize,
    normalization.GroupNormalization: _normalize,
    pix2pix.UpsampleBlock: _upsample,
    mit.Attention: _attend,
    layers.Resize: _enlarge,
    layers.ImageMean: _take_mean,
    layers.Spread: _spread,
    layers.Crop: _crop,
    layers.RowDropout: _keep,
    layers.DroppingReLU: _rectify,
}
"""This package's layers, and what calls Keras' in their place."""
