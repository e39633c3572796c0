"""The layers of a `.tflite` file: its operators that have weights."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_INPUTS = {
    "CONV_2D": (0, 2),
    "DEPTHWISE_CONV_2D": (0, 2),
    "FULLY_CONNECTED": (0, 2),
    "TRANSPOSE_CONV": (2, 3),
}
"""By kind, which inputs of an operator are its features and its bias; the second one
are the weights of each kind."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """An operator that has weights.

    Attributes:
      kind: its name in the schema of such files.
      features: index of the tensor that it takes, [1, height, width, channels]; that of
        FULLY_CONNECTED may have other axes before its channels.
      weights: the numbers that its weights stand for, float64 [outputs, height, width,
        channels of one group], however the file has them laid out.
      strides: along height and width.
      dilations: as many.
      output_size: height and width of what it gives.
      bias: number of the buffer that has its bias, int32 [outputs], and nothing else;
        None if there is no such.
      bias_scale: what a step of that bias stands for, float64 [outputs].
    """

    kind: str
    features: int
    weights: np.ndarray
    strides: tuple[int, int]
    dilations: tuple[int, int]
    output_size: tuple[int, int]
    bias: int | None
    bias_scale: np.ndarray | None


def list_kinds() -> dict[int, str]:
    """Returns the names of the operators that have weights, by their numbers."""
    from ai_edge_litert import schema_py_generated as schema

    return {getattr(schema.BuiltinOperator, name): name for name in _INPUTS}


def read(content: bytes) -> list[Layer]:
    """Reads the layers of a file, in the order in which they are computed."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    tensors = model.subgraphs[0].tensors
    operators = model.subgraphs[0].operators
    uses = collections.Counter(
        tensors[index].buffer for o in operators for index in o.inputs if index >= 0
    )
    kinds, layers = list_kinds(), []
    for operator in operators:
        kind = kinds.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
        if not kind:
            continue
        weights = tensors[operator.inputs[1]]
        data = model.buffers[weights.buffer].data
        if data is not None:  # Of attention, both factors are features.
            numbers = _lay_out(kind, _dequantize(weights, data))
            layers.append(_describe(kind, operator, tensors, uses, numbers))
    return layers


def run(content: bytes, photos: np.ndarray) -> Iterator[Callable[[int], np.ndarray]]:
    """Runs a file with photos, one after the other.

    Args:
      content: of the file.
      photos: [photos, height, width, channels], as they go into it.

    Yields:
      For each photo, what gives the values of a tensor by its index.
    """
    from ai_edge_litert import interpreter

    model = interpreter.Interpreter(
        model_content=content, experimental_preserve_all_tensors=True
    )
    model.allocate_tensors()
    (images,) = model.get_input_details()
    for photo in photos:
        model.set_tensor(images["index"], photo[np.newaxis])
        model.invoke()
        yield model.get_tensor


def _describe(
    kind: str,
    operator: Any,
    tensors: Sequence[Any],
    uses: Mapping[int, int],
    weights: np.ndarray,
) -> Layer:
    """Describes an operator as a layer.

    Args:
      kind: of the operator.
      operator: as the schema has it.
      tensors: all there are, as the schema has them.
      uses: how many inputs of operators a buffer serves.
      weights: as the layer has them.
    """
    features, position = _INPUTS[kind]
    options = operator.builtinOptions
    number, scale = None, None
    if len(operator.inputs) > position and operator.inputs[position] >= 0:
        bias = tensors[operator.inputs[position]]
        # Layers of equal biases have one buffer together.
        if bias.type == _types().INT32 and uses[bias.buffer] == 1:
            number = bias.buffer
            scale = np.asarray(bias.quantization.scale, np.float64)
    return Layer(
        kind=kind,
        features=int(operator.inputs[features]),
        weights=weights,
        strides=(getattr(options, "strideH", 1), getattr(options, "strideW", 1)),
        dilations=(
            getattr(options, "dilationHFactor", 1),
            getattr(options, "dilationWFactor", 1),
        ),
        output_size=tuple(map(int, tensors[operator.outputs[0]].shape[1:3])),
        bias=number,
        bias_scale=scale,
    )


def _dequantize(tensor: Any, data: np.ndarray) -> np.ndarray:
    """Returns the numbers that a tensor's bytes stand for, float64."""
    if tensor.type == _types().FLOAT32:
        return data.view(np.float32).reshape(tensor.shape).astype(np.float64)
    steps = data.view(np.int8).reshape(tensor.shape)
    shape = np.ones(steps.ndim, int)
    shape[tensor.quantization.quantizedDimension] = -1
    return steps * np.reshape(tensor.quantization.scale, shape).astype(np.float64)


def _lay_out(kind: str, weights: np.ndarray) -> np.ndarray:
    """Lays weights out as `Layer` has them."""
    if kind == "FULLY_CONNECTED":  # [outputs, channels]
        return weights[:, np.newaxis, np.newaxis]
    if kind == "DEPTHWISE_CONV_2D":  # [1, height, width, outputs], a group each
        return np.moveaxis(weights[0], -1, 0)[..., np.newaxis]
    return weights


def _types() -> type:
    from ai_edge_litert import schema_py_generated as schema

    return schema.TensorType
