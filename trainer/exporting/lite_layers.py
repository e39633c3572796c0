"""The layers of a `.tflite` file: its operators that have weights."""

import collections
import copy
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
    uses, layers = _count_uses(model), []
    for kind, operator, bias in _find_layers(model):
        weights = tensors[operator.inputs[1]]
        data = model.buffers[weights.buffer].data
        if data is not None:  # Of attention, both factors are features.
            numbers = _lay_out(kind, _dequantize(weights, data))
            layers.append(_describe(kind, operator, tensors, bias, uses, numbers))
    return layers


def separate_biases(content: bytes) -> bytes:
    """Gives each bias in 8 bits a buffer of its own.

    A converter writes equal buffers once, and so all biases of zeros that are as long.

    Args:
      content: of a file.

    Returns:
      The same file with more buffers; the very bytes where none was shared.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    tensors = model.subgraphs[0].tensors
    uses = _count_uses(model)
    num_buffers = len(model.buffers)
    for _, _, bias in _find_layers(model):
        if bias < 0 or tensors[bias].type != schema.TensorType.INT32:
            continue
        shared = tensors[bias].buffer
        if uses[shared] > 1:
            uses[shared] -= 1
            tensors[bias].buffer = len(model.buffers)
            model.buffers.append(copy.copy(model.buffers[shared]))
    if len(model.buffers) == num_buffers:
        return content
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


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


def _find_layers(model: Any) -> Iterator[tuple[str, Any, int]]:
    """Gives kind and operator of each layer, and the tensor of its bias, or -1."""
    kinds = list_kinds()
    for operator in model.subgraphs[0].operators:
        kind = kinds.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
        if kind:
            _, position = _INPUTS[kind]
            inputs = [*map(int, operator.inputs), -1]
            yield kind, operator, inputs[min(position, len(inputs) - 1)]


def _count_uses(model: Any) -> collections.Counter[int]:
    """Counts the inputs of operators that each buffer serves."""
    graph = model.subgraphs[0]
    return collections.Counter(
        graph.tensors[index].buffer
        for operator in graph.operators
        for index in operator.inputs
        if index >= 0
    )


def _describe(
    kind: str,
    operator: Any,
    tensors: Sequence[Any],
    bias: int,
    uses: Mapping[int, int],
    weights: np.ndarray,
) -> Layer:
    """Describes an operator as a layer.

    Args:
      kind: of the operator.
      operator: as the schema has it.
      tensors: all there are, as the schema has them.
      bias: index of that of its bias, or -1.
      uses: how many inputs of operators a buffer serves.
      weights: as the layer has them.
    """
    features, _ = _INPUTS[kind]
    options = operator.builtinOptions
    number, scale = None, None
    if bias >= 0:
        tensor = tensors[bias]
        # Layers of equal biases may have one buffer together.
        if tensor.type == _types().INT32 and uses[tensor.buffer] == 1:
            number = tensor.buffer
            scale = np.asarray(tensor.quantization.scale, np.float64)
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
