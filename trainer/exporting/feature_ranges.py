"""Ranges of features in 8 bits by the error that they make, not by the largest value.

A converter lays the steps of a tensor over all that it met. A few large values make
them wide for all others, and to clip those few costs less. What is chosen here is the
range of the least mean squared error, as Banner, Nahshan, Soudry (NeurIPS 2019,
arXiv:1810.05723) have it; but of counted values, without a formula for them.
"""

import numpy as np

from trainer.exporting import lite_layers

_NUM_BINS = 2048
_NUM_STEPS = 255
_SHARES = np.linspace(0.3, 1.0, 36)
"""Of the range of all values, those that are tried."""


def narrow(content: bytes, photos: np.ndarray) -> bytes:
    """Narrows the ranges that a converter has measured.

    Nothing of what it has measured counts: where an operator writes its outputs over
    its inputs, it has taken the former for the latter, too.

    Args:
      content: of a calibrated `.tflite` file in float32.
      photos: [photos, height, width, channels], as they go into it.

    Returns:
      The same file with other ranges.
    """
    from ai_edge_litert import schema_py_generated as schema

    narrowed = bytearray(content)
    file = schema.Model.GetRootAs(narrowed)
    graph = file.Subgraphs(0)
    found = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        is_constant = file.Buffers(tensor.Buffer()).DataLength() > 0
        steps = tensor.Quantization()
        if not is_constant and steps is not None and steps.MinLength() == 1:
            found[index] = steps
    limits = dict.fromkeys(found, (0.0, 0.0))
    for get in lite_layers.run(content, photos):
        for index, (low, high) in limits.items():
            values = get(index)
            limits[index] = min(low, values.min()), max(high, values.max())
    counts = {index: np.zeros(_NUM_BINS) for index in found}
    for get in lite_layers.run(content, photos):
        for index, limit in limits.items():
            counts[index] += np.histogram(get(index), _NUM_BINS, limit)[0]
    for index, steps in found.items():
        low, high = choose_range(counts[index], *limits[index])
        steps.MinAsNumpy()[:] = low
        steps.MaxAsNumpy()[:] = high
    return bytes(narrowed)


def choose_range(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Chooses the range of the least squared error.

    A value inside is off by up to half a step, its square by step^2 / 12 on the mean;
    one outside by what is clipped. 0 is always a step.

    Args:
      counts: of values, in bins of equal width.
      low: where the first bin begins, 0 or less.
      high: where the last one ends, 0 or more.

    Returns:
      Lowest and highest value of the range; both ends have the same share of the whole.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    values = (edges[:-1] + edges[1:]) / 2
    inexact = np.where((edges[:-1] <= 0) & (edges[1:] >= 0), 0, counts)
    errors = []
    for share in _SHARES:
        clipped = np.clip(values, low * share, high * share)
        step = (high - low) * share / _NUM_STEPS
        rounded = inexact[clipped == values].sum() * step**2 / 12
        errors.append(counts @ (values - clipped) ** 2 + rounded)
    share = _SHARES[np.argmin(errors)]
    return low * share, high * share
