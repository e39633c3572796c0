"""Whether masks lie on their images, told by the edges in both."""

import math
from collections.abc import Sequence

import numpy as np

_LEAST_PAIRS = 5
_LEAST_GAIN = 0.03
_SURE = 4.0
"""Standard errors from chance, of the mean over a set: once in some 30,000 sets."""


def compare(first: np.ndarray, second: np.ndarray, values: np.ndarray) -> float:
    """Compares how well a mask lies on an image placed in two ways.

    Args:
      first: uint8 [height, width, 3], the image placed in one way.
      second: the same in the other way.
      values: integers [height, width], the mask.

    Returns:
      The logarithm of the mean gradient of the image along the borders of the mask, in
      the first way over the second: 0 if both fit alike.
    """
    borders = np.zeros(values.shape, bool)
    for axis in (0, 1):
        differs = np.diff(values, axis=axis) != 0
        margin = [(0, 0), (0, 0)]
        margin[axis] = (0, 1)
        borders |= np.pad(differs, margin)
    if not borders.any():
        return 0.0
    means = [_measure_gradient(image)[borders].mean() for image in (first, second)]
    return math.log((means[0] + 1) / (means[1] + 1))


def decide(gains: Sequence[float]) -> int:
    """Decides between two ways by all pairs of a set.

    Args:
      gains: of `compare`, one of each pair.

    Returns:
      1 for the first way, -1 for the second, 0 if that cannot be told.
    """
    if len(gains) < _LEAST_PAIRS:
        return 0
    mean = float(np.mean(gains))
    error = float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    if abs(mean) < max(_LEAST_GAIN, _SURE * error):
        return 0
    return 1 if mean > 0 else -1


def _measure_gradient(image: np.ndarray) -> np.ndarray:
    """Returns the differences to the next pixel, downwards and to the right."""
    gray = image.astype(np.float32).mean(-1)
    gradient = np.zeros_like(gray)
    gradient[:-1] += np.abs(np.diff(gray, axis=0))
    gradient[:, :-1] += np.abs(np.diff(gray, axis=1))
    return gradient
