"""A `.tflite` file for LiteRT, in float32."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from trainer.exporting import network as network_lib

_FILE = "model.tflite"


def write(network: "network_lib.Network", folder: str) -> dict[str, str]:
    """Writes a model for one image at a time; arguments as for all formats."""
    return convert(network, folder, lambda converter: converter.convert())


def convert(
    network: "network_lib.Network",
    folder: str,
    make: "Callable[[tf.lite.TFLiteConverter], bytes]",
) -> dict[str, str]:
    """Writes what `make` makes of a model by its converter."""
    import tensorflow as tf

    model = network.stock  # Made here: in a graph there are no numbers yet.
    images = tf.TensorSpec([1, *network.image_shape], network.dtype, "images")

    @tf.function(input_signature=[images], autograph=False)
    def label(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(tf.cast(images, tf.float32), training=False)
        return network.outputs(logits)

    serving = tf.Module()
    serving.weights = [variable.value for variable in model.variables]
    serving.label = label
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [label.get_concrete_function()], serving
    )
    content = make(converter)
    with open(os.path.join(folder, _FILE), "wb") as file:
        file.write(content)
    height, width, channels = network.image_shape
    return {"images": f"{network.dtype} [1, {height}, {width}, {channels}]"}


def load(folder: str) -> Callable[["np.ndarray"], "dict[str, np.ndarray]"]:
    """Loads what `write` wrote, by LiteRT alone; see `saved_model.load`."""
    import numpy as np
    from ai_edge_litert import interpreter

    model = interpreter.Interpreter(os.path.join(folder, _FILE))
    run_one = model.get_signature_runner()

    def run(images: "np.ndarray") -> "dict[str, np.ndarray]":
        results = [run_one(images=image[np.newaxis]) for image in images]
        return {
            name: np.concatenate([result[name] for result in results])
            for name in results[0]
        }

    return run
