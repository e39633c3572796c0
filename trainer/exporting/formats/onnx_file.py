"""An `.onnx` file."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tf2onnx

    from trainer.exporting import network as network_lib

_FILE = "model.onnx"
_OPSET = 17
"""Of ONNX 1.12, from 2022 on: what most runtimes know."""


def write(network: "network_lib.Network", folder: str) -> dict[str, str]:
    """Writes a model for batches of any length; arguments as for all formats."""
    import tensorflow as tf
    import tf2onnx

    model = network.stock  # Made here: in a graph there are no numbers yet.
    images = tf.TensorSpec([None, *network.image_shape], network.dtype, "images")

    @tf.function(input_signature=[images], autograph=False)
    def label(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(tf.cast(images, tf.float32), training=False)
        return network.outputs(logits)

    tf2onnx.convert.from_function(
        label,
        input_signature=[images],
        opset=_OPSET,
        custom_op_handlers={"Erfc": (_write_erfc, [])},
        output_path=os.path.join(folder, _FILE),
    )
    height, width, channels = network.image_shape
    return {"images": f"{network.dtype} [batch, {height}, {width}, {channels}]"}


def _write_erfc(
    graph: "tf2onnx.graph.Graph",
    node: "tf2onnx.graph.Node",
    name: str,
    arguments: list,
) -> None:
    """Writes erfc(x) as 1 - erf(x): GELU has it, and neither ONNX nor tf2onnx."""
    import numpy as np

    del arguments
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    one = graph.make_const(f"{name}/one", np.ones([], np.float32))
    erf = graph.make_node("Erf", node.input, name=f"{name}/erf")
    graph.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        name=name,
        outputs=node.output,
        shapes=shapes,
        dtypes=dtypes,
    )


def load(folder: str) -> Callable[["np.ndarray"], "dict[str, np.ndarray]"]:
    """Loads what `write` wrote, by ONNX Runtime alone; see `saved_model.load`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.path.join(folder, _FILE), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(images: "np.ndarray") -> "dict[str, np.ndarray]":
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return run
