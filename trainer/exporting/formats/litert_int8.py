"""A `.tflite` file for LiteRT in 8 bits, but for what they would spoil."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.exporting.formats import litert

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from trainer.exporting import network as network_lib

load = litert.load

_FLOAT_SHARE = 0.01
"""Of all weights, for those of the smallest layers, which stay in float32; the file is
3 % larger at most. A layer of few weights gets their rounding in full, as a shift of a
whole channel, where a large one averages it: of a MobileNetV2 U-Net the first depthwise
convolution, with 288 of 5.4 million weights, made most of the errors."""


def write(network: "network_lib.Network", folder: str) -> dict[str, str]:
    """Writes a model whose numbers of 8 bits are laid out by what photos need.

    In float32 stay the scaling of the images, the smallest layers, sums and products of
    features, and what is around products.

    Arguments as for all formats.
    """

    def make(converter: "tf.lite.TFLiteConverter") -> bytes:
        import tensorflow as tf

        from trainer.exporting import (
            bias_correction,
            feature_arithmetic,
            feature_ranges,
        )

        photos = network.read_photos()

        def give() -> "Iterator[dict[str, np.ndarray]]":
            # By one it says where there are ranges; `feature_ranges` measures them.
            yield {"images": photos[:1]}

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = give
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=[])
        # It alone lets tensors stay in float32; its reports are of no use here.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_options=options
        )
        original = debugger.calibrated_model
        options.denylisted_nodes = [
            *find_small(original, _FLOAT_SHARE),
            *feature_arithmetic.find(original),
        ]
        debugger.calibrated_model = feature_ranges.narrow(original, photos)
        rounded = debugger.get_nondebug_quantized_model()
        return bias_correction.correct(rounded, original, photos)

    return litert.convert(network, folder, make)


def find_small(content: bytes, share: float) -> list[str]:
    """Names what comes out of the smallest layers, and of what is before the first one.

    The latter is the scaling of the images: in 8 bits, it is off by half a step.

    Args:
      content: of a `.tflite` file in float32.
      share: of all weights that the layers may have together.
    """
    from ai_edge_litert import schema_py_generated as schema

    from trainer.exporting import lite_layers

    graph = schema.ModelT.InitFromPackedBuf(content)
    main = graph.subgraphs[0]
    codes = [code.builtinCode for code in graph.operatorCodes]
    kinds = lite_layers.list_kinds()
    layers, names = [], []
    for operator in main.operators:
        outputs = [main.tensors[index].name.decode() for index in operator.outputs]
        if codes[operator.opcodeIndex] in kinds:
            weights = main.tensors[operator.inputs[1]].shape
            layers.append((int(weights.prod()), outputs))
        elif not layers:
            names += outputs
    left = share * sum(size for size, _ in layers)
    for size, outputs in sorted(layers, key=lambda layer: layer[0]):
        left -= size
        if left < 0:
            break
        names += outputs
    return names
