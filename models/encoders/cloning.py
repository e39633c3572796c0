"""Copies of Keras' networks that are made of this package's layers."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from models import layers, scaling
from models.fast import convolutions, dense, normalization

_KINDS = {
    keras.layers.BatchNormalization: normalization.BatchNormalization,
    keras.layers.Conv2D: convolutions.Conv2D,
    keras.layers.Dense: dense.Dense,
    keras.layers.DepthwiseConv2D: convolutions.DepthwiseConv2D,
    keras.layers.Dropout: layers.RowDropout,
}
"""The layers of Keras that this package has its own of."""

Pairs = Sequence[tuple[keras.layers.Layer, keras.layers.Layer]]


class Clone(NamedTuple):
    """A copy of a network.

    Attributes:
      model: the copy, its weights random.
      pairs: each layer of the network, nested ones too, and its copy.
    """

    model: keras.Model
    pairs: Pairs


class _Call(NamedTuple):
    """The call of a layer in a graph."""

    layer: keras.layers.Layer
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


class _Recorder:
    """Calls layers, and keeps in mind what went in and came out."""

    def __init__(self):
        """Begins without a call."""
        self.calls: list[_Call] = []

    def __call__(self, layer: keras.layers.Layer, *args, **kwargs) -> Any:
        outputs = layer(*args, **kwargs)
        tensors = [
            value
            for value in keras.tree.flatten((args, kwargs))
            if isinstance(value, keras.KerasTensor)
        ]
        self.calls.append(_Call(layer, tensors, keras.tree.flatten(outputs)))
        return outputs


def clone_network(
    network: keras.Model,
    images: keras.KerasTensor,
    image_scaling: scaling.ImageScaling,
    *,
    bn_momentum: float | None = None,
    synchronized: bool = False,
    dilates_last_stage: bool = False,
) -> Clone:
    """Copies a network with this package's layers in place of Keras'.

    The copy computes the same, up to rounding; only dropout draws other masks. In
    inference mode, the convolution before a batch norm does the work of both, unless
    something else reads the output of the convolution.

    Args:
      network: of one input, its first layer a `scaling.ImageScaling`.
      images: the input of the copy.
      image_scaling: the copy's first layer.
      bn_momentum: the share of the moving statistics that a training step keeps, 0..1;
        None: that of the network.
      synchronized: whether a step's statistics are those of all replicas together.
      dilates_last_stage: whether to take the stride from the layers between the last
        two outputs of the network, and to give the convolutions behind it a dilation
        of 2. The last map is then twice as fine, with the same weights (Chen et al.,
        TPAMI 2018, arXiv:1606.00915).
    """
    pairs: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
    recorder = _Recorder()
    last_stage = _names_of_last_stage(network) if dilates_last_stage else ()

    def make(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, scaling.ImageScaling):
            return image_scaling
        kind, config = _translate(layer)
        if layer.name in last_stage:
            _dilate(kind, config)
        if kind is normalization.BatchNormalization:
            config["synchronized"] = synchronized
            if bn_momentum is not None:
                config["momentum"] = bn_momentum
        elif kind is layers.RowDropout:
            # Numbered, as the names of some layers differ from one start to the next.
            config["stream"] = f"encoder_{len(pairs)}"
            del config["seed"]  # Of Keras' own draws.
        copy = kind.from_config(config)
        if isinstance(copy, keras.Layer):  # And not a bare operation.
            pairs.append((layer, copy))
        return copy

    model = keras.models.clone_model(
        network,
        input_tensors=images,
        clone_function=make,
        call_function=recorder,
        recursive=True,
    )
    _fold(recorder.calls, model.outputs)
    return Clone(model, pairs)


def copy_weights(pairs: Pairs, colours: Sequence[int]) -> None:
    """Copies the weights of a network's layers to their copies.

    Args:
      pairs: layers and their copies. A depthwise convolution may be the copy of a
        grouped one; the first one may have another number of input channels.
      colours: where the network's first layer has red, green and blue.

    Raises:
      ValueError: if layers do not fit each other.
    """
    for layer, copy in pairs:
        if not copy.weights:
            continue
        values = []
        for value, weight in zip(layer.get_weights(), copy.weights, strict=True):
            if value.size == weight.shape.num_elements():
                value = value.reshape(weight.shape)
            elif value.ndim == 4 and value.shape[2] == 3:
                value = scaling.adapt_kernel(value, weight.shape[2], colours)
            values.append(value)
        copy.set_weights(values)


def _translate(
    layer: keras.layers.Layer,
) -> tuple[type[keras.layers.Layer], dict]:
    """Returns the kind of a layer's copy, and its settings."""
    kind, config = type(layer), layer.get_config()
    is_depthwise = (
        kind is keras.layers.Conv2D
        and layer.groups > 1
        and layer.kernel.shape[2] == 1  # As many groups as channels.
    )
    if not is_depthwise:
        return _KINDS.get(kind, kind), config
    # Keras sends grouped convolutions through XLA, which fails on two CPU replicas.
    config["depth_multiplier"] = config.pop("filters") // config.pop("groups")
    for part in ("initializer", "regularizer", "constraint"):
        config[f"depthwise_{part}"] = config.pop(f"kernel_{part}")
    return convolutions.DepthwiseConv2D, config


def _names_of_last_stage(network: keras.Model) -> frozenset[str]:
    """Returns the layers between the last two outputs of a network."""
    *_, before, last = network.outputs
    return frozenset(layer.name for layer in keras.Model(before, last).layers)


def _dilate(kind: type[keras.layers.Layer], config: dict) -> None:
    """Takes the stride from a layer, or gives it a dilation of 2, in its settings."""
    if issubclass(kind, keras.layers.ZeroPadding2D):
        # In front of a stride, one end has a pixel less; without the stride, none has.
        config["padding"] = [[(sum(side) + 1) // 2] * 2 for side in config["padding"]]
    elif issubclass(kind, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        if max(config["strides"]) > 1:
            config["strides"] = (1, 1)
        else:
            config["dilation_rate"] = (2, 2)


def _fold(calls: Sequence[_Call], outputs: Sequence[keras.KerasTensor]) -> None:
    """Lets convolutions do the work of the batch norms that follow them.

    It does so only if both are called once, and nothing else reads what the convolution
    gives.
    """
    num_calls = Counter(id(call.layer) for call in calls)
    makers = {id(tensor): call.layer for call in calls for tensor in call.outputs}
    readers: dict[int, list] = defaultdict(list)
    for call in calls:
        for tensor in call.inputs:
            readers[id(tensor)].append(call.layer)
    for tensor in outputs:
        readers[id(tensor)].append(None)

    for call in calls:
        if len(call.inputs) != 1 or num_calls[id(call.layer)] != 1:
            continue
        (tensor,) = call.inputs
        before = makers.get(id(tensor))
        if num_calls[id(before)] == 1 and len(readers[id(tensor)]) == 1:
            _fold_norm(before, call.layer)


def _fold_norm(before: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    if (
        isinstance(before, convolutions.Conv2D | convolutions.DepthwiseConv2D)
        and isinstance(layer, normalization.BatchNormalization)
        and before.activation in (None, keras.activations.linear)
    ):
        before.fold(layer)
