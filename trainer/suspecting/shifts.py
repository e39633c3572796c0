"""How a mask would have to be moved to fit a prediction best."""

from typing import NamedTuple

import numpy as np

_MOST = 0.25
"""Of a side: where masks are moved further, little is left to compare."""
_LONGEST_SIDE = 64
"""Of the maps that are compared; larger ones are thinned out first."""


class Shift(NamedTuple):
    """A translation of a mask.

    Attributes:
      down: share of the height; negative: up.
      right: share of the width; negative: to the left.
      before: mean probability of the labels as they lie.
      after: the same after the move, of the pixels that have a label then.
    """

    down: float
    right: float
    before: float
    after: float

    @property
    def gain(self) -> float:
        """By how much the move raises the agreement."""
        return self.after - self.before


def find_shift(label: np.ndarray, probabilities: np.ndarray) -> Shift:
    """Finds the translation of a mask with which a model agrees best.

    The agreement after moving by d is sum(V(x - d) p(x, y(x - d))) / sum(V(x - d)), y
    the labels, V whether there is one, p the probabilities, over all pixels x of the
    image; by Fourier transforms, for all d of at most a quarter of each side.

    Args:
      label: uint8 [height, width]; values of `probabilities.shape[-1]` and above are no
        labels.
      probabilities: float32 [height, width, classes].

    Returns:
      The best one; of equally good ones the shortest. All zeros without a label.
    """
    step = -(-max(label.shape) // _LONGEST_SIDE)
    label, probabilities = label[::step, ::step], probabilities[::step, ::step]
    height, width = label.shape
    is_valid = label < probabilities.shape[-1]
    if not is_valid.any():
        return Shift(0.0, 0.0, 0.0, 0.0)
    size = (2 * height, 2 * width)  # So that nothing comes in on the other side.
    hits = np.zeros((size[0], size[1] // 2 + 1), np.complex128)
    for index in np.unique(label[is_valid]):
        of_class = np.fft.rfft2(label == index, size)
        hits += np.fft.rfft2(probabilities[..., index], size) * of_class.conj()
    inside = np.fft.rfft2(np.ones_like(is_valid), size)
    overlap = inside * np.fft.rfft2(is_valid, size).conj()
    rows, columns = (
        np.arange(-int(_MOST * n), int(_MOST * n) + 1) for n in label.shape
    )
    sums, counts = (
        np.fft.irfft2(spectrum, size)[np.ix_(rows, columns)]
        for spectrum in (hits, overlap)
    )
    agreement = np.where(counts > 0.5, sums / np.maximum(counts, 0.5), 0.0)
    length = np.hypot(rows[:, np.newaxis] / height, columns / width)
    # Rounded, or noise of the transforms would choose among equal ones.
    place = np.lexsort((length.ravel(), -agreement.ravel().round(6)))[0]
    row, column = np.unravel_index(place, agreement.shape)
    zero = agreement[len(rows) // 2, len(columns) // 2]
    return Shift(
        float(rows[row] / height),
        float(columns[column] / width),
        float(zero),
        float(agreement[row, column]),
    )
