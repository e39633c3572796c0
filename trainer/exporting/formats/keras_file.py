"""A `.keras` file of Keras' own layers."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from trainer.exporting import network as network_lib

_FILE = "model.keras"


def write(network: "network_lib.Network", folder: str) -> dict[str, str]:
    """Writes a model that gives scores; arguments as for all formats.

    These are logits, or, where they are asked for, probabilities.
    """
    import keras

    model = network.stock
    if network.gives_probabilities:
        softmax = keras.layers.Softmax(name="probabilities")
        model = keras.Model(model.input, softmax(model.output), name=model.name)
    model.save(os.path.join(folder, _FILE))
    height, width, channels = network.image_shape
    return {"image": f"numbers as in {network.dtype}, [batch, {height}, {width}, "
            f"{channels}]"}  # fmt: skip


def load(folder: str) -> Callable[["np.ndarray"], "dict[str, np.ndarray]"]:
    """Loads what `write` wrote, by Keras alone; see `saved_model.load`."""
    import keras
    import numpy as np

    run_graph = load_graph(folder)

    def run(images: "np.ndarray") -> "dict[str, np.ndarray]":
        ((name, scores),) = run_graph(images).items()
        scores = keras.ops.convert_to_numpy(scores)
        outputs = {"labels": np.argmax(scores, axis=-1).astype(np.uint8)}
        if name == "probabilities":
            outputs[name] = scores
        return outputs

    return run


def load_graph(folder: str) -> "Callable[[tf.Tensor], dict[str, tf.Tensor]]":
    """Loads what `write` wrote, for tensors; see `saved_model.load_graph`."""
    import keras

    model = keras.models.load_model(os.path.join(folder, _FILE), compile=False)
    gives_probabilities = isinstance(model.layers[-1], keras.layers.Softmax)
    name = "probabilities" if gives_probabilities else "logits"
    return lambda images: {name: model(images, training=False)}
