"""An `.onnx` file."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

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
        output_path=os.path.join(folder, _FILE),
    )
    height, width, channels = network.image_shape
    return {"images": f"{network.dtype} [batch, {height}, {width}, {channels}]"}


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
