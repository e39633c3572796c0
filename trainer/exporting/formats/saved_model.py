"""TensorFlow's SavedModel: images of any size, or the bytes of a file."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from trainer.exporting import network as network_lib

_DECODED = {
    ("uint8", 1): "JPEG or PNG",
    ("uint8", 3): "JPEG, PNG, BMP or GIF",
    ("uint8", 4): "PNG or BMP",
    # It decodes others, too, but these have 8 bits.
    ("uint16", 1): "PNG",
    ("uint16", 3): "PNG",
    ("uint16", 4): "PNG",
}
"""The files that TensorFlow decodes to a dtype and a number of channels."""


def write(network: "network_lib.Network", folder: str) -> dict[str, str]:
    """Writes a model with its resizing; arguments as for all formats.

    Args:
      network: what to write.
      folder: to write into; it is there.

    Returns:
      What the inputs of the file are, by their names, for people.
    """
    import tensorflow as tf

    sides = (None, None) if network.any_size else network.image_size
    serving = tf.Module()
    # So that they are saved with it.
    serving.weights = [variable.value for variable in network.model.variables]
    images = tf.TensorSpec(
        [None, *sides, network.num_channels], network.dtype, "images"
    )

    @tf.function(input_signature=[images], autograph=False)
    def label(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _label(network, images)

    serving.label = label
    signatures = {"serving_default": label}
    height, width = ("height", "width") if network.any_size else network.image_size
    inputs = {
        "images": f"{network.dtype} [batch, {height}, {width}, {network.num_channels}]"
    }
    if kinds := _DECODED.get((network.dtype, network.num_channels)):
        serving.label_encoded = signatures["encoded"] = _make_encoded(network)
        bits = " of 16 bits" if network.dtype == "uint16" else ""
        inputs["encoded"] = f"string [], the bytes of a {kinds} file{bits}"
    tf.saved_model.save(serving, folder, signatures=signatures)
    return inputs


def _make_encoded(network: "network_lib.Network") -> Callable:
    """Makes the function from the bytes of a file to labels."""
    import tensorflow as tf

    dtype = tf.dtypes.as_dtype(network.dtype)
    encoded = tf.TensorSpec([], tf.string, "encoded")

    @tf.function(input_signature=[encoded], autograph=False)
    def label_encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        if dtype == tf.uint8:
            image = tf.io.decode_image(
                encoded, network.num_channels, expand_animations=False
            )
        else:
            image = tf.io.decode_png(encoded, network.num_channels, dtype=dtype)
        if not network.any_size:
            image = tf.ensure_shape(image, network.image_shape)
        outputs = _label(network, image[tf.newaxis])
        return {name: value[0] for name, value in outputs.items()}

    return label_encoded


def _label(
    network: "network_lib.Network", images: "tf.Tensor"
) -> "dict[str, tf.Tensor]":
    """Returns the outputs for images, at their own size."""
    import tensorflow as tf

    if not network.any_size:
        return network.outputs(network.model(images, training=False))
    size = tf.shape(images)[1:3]
    shown = tf.map_fn(
        network.resize,
        images,
        fn_output_signature=tf.TensorSpec(network.image_shape, network.dtype),
    )
    logits = network.model(shown, training=False)

    def finish(logits: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = network.outputs(network.restore(logits, size)[tf.newaxis])
        return {name: value[0] for name, value in outputs.items()}

    specs = {"labels": tf.TensorSpec([None, None], tf.uint8)}
    if network.gives_probabilities:
        num_classes = logits.shape[-1]
        specs["probabilities"] = tf.TensorSpec([None, None, num_classes], tf.float32)
    # One at a time: scores of many classes at the size of a photo are large.
    return tf.map_fn(finish, logits, fn_output_signature=specs, parallel_iterations=1)


def load(folder: str) -> Callable[["np.ndarray"], "dict[str, np.ndarray]"]:
    """Loads what `write` wrote, by TensorFlow alone.

    Args:
      folder: of the file.

    Returns:
      A function from images, of the type and size that `model.json` names, [batch,
      height, width, channels], to `labels`, uint8 [batch, height, width], and, if the
      file gives them, `probabilities`, float32 [batch, height, width, classes].
    """
    import tensorflow as tf

    run_graph = load_graph(folder)

    def run(images: "np.ndarray") -> "dict[str, np.ndarray]":
        outputs = run_graph(tf.constant(images))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def load_graph(folder: str) -> "Callable[[tf.Tensor], dict[str, tf.Tensor]]":
    """Loads what `write` wrote, as `load` does, for tensors in place of arrays.

    Returns:
      A function as that of `load`. What gives neither labels nor probabilities gives
      `logits`, float32 [batch, height, width, classes].
    """
    import tensorflow as tf

    model = tf.saved_model.load(folder)
    label = model.signatures["serving_default"]
    # The function is gone with its model.
    return lambda images, model=model: label(images=images)
