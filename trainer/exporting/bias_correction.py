"""Biases that take back what the rounding of weights adds to each channel on average.

A weight in 8 bits is off by up to half a step, by the same amount for all photos. So
each channel of a layer is off on average, and that shift goes on to the next layers,
while what the rounding of features does averages out. The shift is the sum, over a
channel's weights, of their errors times the mean of what they are multiplied with.

Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization through Weight
Equalization and Bias Correction, ICCV 2019, arXiv:1906.04721, sections 3.3 and 4.2. The
means are those of photos here, not of batch norms.
"""

import numpy as np
from absl import logging

from trainer.exporting import lite_layers


def correct(content: bytes, original: bytes, photos: np.ndarray) -> bytes:
    """Corrects the biases of a `.tflite` file in 8 bits.

    A layer without a bias stays as it is, and so does a file that the converter has
    given other layers than those of the original; the log says so.

    Args:
      content: of the file.
      original: of the file in float32 that it was made of.
      photos: [photos, height, width, channels], as they go into it.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = lite_layers.separate_biases(content)
    layers, originals = lite_layers.read(content), lite_layers.read(original)
    if [x.weights.shape for x in layers] != [x.weights.shape for x in originals]:
        logging.warning(
            "The biases in 8 bits are not corrected: the converter has merged layers."
        )
        return content
    in_8_bits = [
        (rounded, exact)
        for rounded, exact in zip(layers, originals, strict=True)
        if not np.array_equal(rounded.weights, exact.weights)
    ]
    pairs = [pair for pair in in_8_bits if pair[0].bias is not None]
    logging.info(
        "Corrected the biases of %d of %d layers in 8 bits; the others have none.",
        len(pairs),
        len(in_8_bits),
    )
    means = measure_means(original, photos, {exact.features for _, exact in pairs})
    corrected = bytearray(content)
    file = schema.Model.GetRootAs(corrected)
    for rounded, exact in pairs:
        errors = rounded.weights - exact.weights
        shift = expect_shift(exact, errors, means[exact.features])
        bias = file.Buffers(rounded.bias).DataAsNumpy().view(np.int32)
        bias -= np.rint(shift / rounded.bias_scale).astype(np.int32)
    return bytes(corrected)


def measure_means(
    content: bytes, photos: np.ndarray, tensors: set[int]
) -> dict[int, np.ndarray]:
    """Measures the means of a file's tensors over photos.

    Args:
      content: of a `.tflite` file.
      photos: [photos, height, width, channels], as they go into it.
      tensors: their indexes.

    Returns:
      float64 by index, each of the tensor's shape.
    """
    sums = dict.fromkeys(tensors, np.float64(0.0))
    for get in lite_layers.run(content, photos):
        for tensor in tensors:
            sums[tensor] = sums[tensor] + get(tensor)
    return {tensor: total / len(photos) for tensor, total in sums.items()}


def expect_shift(
    layer: lite_layers.Layer, errors: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Returns what errors of weights add to each output, on the mean over its pixels.

    Args:
      layer: whose weights they are of.
      errors: as `layer.weights`.
      mean: of its features over photos, in their shape.

    Returns:
      float64 [outputs].
    """
    outputs, height, width, channels = errors.shape
    if layer.kind == "FULLY_CONNECTED":
        factors = mean.reshape(-1, channels).mean(axis=0)[np.newaxis, np.newaxis]
    else:
        is_transposed = layer.kind == "TRANSPOSE_CONV"
        shares = [
            count_visits(*numbers, is_transposed=is_transposed)
            for numbers in zip(
                mean.shape[1:3],
                layer.output_size,
                (height, width),
                layer.strides,
                layer.dilations,
                strict=True,
            )
        ]
        factors = np.einsum("ih,hwc,jw->ijc", shares[0], mean[0], shares[1])
    # What each weight is multiplied with, on the mean.
    factors = factors.reshape(height, width, -1, channels)  # [.., groups, channels]
    grouped = errors.reshape(factors.shape[2], -1, height, width, channels)
    return np.einsum("gohwc,hwgc->go", grouped, factors).reshape(outputs)


def count_visits(
    size: int,
    output_size: int,
    kernel_size: int,
    stride: int,
    dilation: int,
    *,
    is_transposed: bool,
) -> np.ndarray:
    """Says where along an axis each weight of a kernel meets the features.

    Beyond the borders it meets zeros, and so weights at the rim of a kernel count less.

    Args:
      size: of the features.
      output_size: of what comes out.
      kernel_size: of the kernel.
      stride: of the kernel, or of the outputs where it is transposed.
      dilation: between weights of the kernel.
      is_transposed: whether each feature is spread over outputs, and not each output
        gathered from features.

    Returns:
      float64 [kernel_size, size]; the share of the outputs that a weight makes of a
      feature at each place.
    """
    small, large = (size, output_size) if is_transposed else (output_size, size)
    extent = (small - 1) * stride + (kernel_size - 1) * dilation + 1
    padding = max(extent - large, 0) // 2  # 0 where there is none, as extent fits.
    visits = np.zeros([kernel_size, size])
    for weight in range(kernel_size):
        for place in range(small):
            met = place * stride + weight * dilation - padding
            if 0 <= met < large:
                visits[weight, place if is_transposed else met] += 1 / output_size
    return visits
