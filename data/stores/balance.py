"""How many pixels of each class a split has, and weights that make up for it."""

import numpy as np

from data import pipeline
from data.stores import store

METHODS = ("balanced", "inverse_sqrt")

_CHUNK_SIZE = 64
"""Examples counted at a time: their labels take eight times their size meanwhile."""


def count_labels(examples: pipeline.Examples) -> np.ndarray:
    """Counts the pixels of each label.

    Args:
      examples: the split; one that streams is read and decoded as a whole.

    Returns:
      int64 [256]: the number of pixels of each class, and of `schema.IGNORE_LABEL` in
      the last place.
    """
    counts = np.zeros(256, np.int64)
    for start in range(0, len(examples), _CHUNK_SIZE):
        stop = min(start + _CHUNK_SIZE, len(examples))
        if isinstance(examples, store.Store):  # Spares reading the images from disk.
            labels = examples.labels[start:stop]
        else:
            labels = examples.read(np.arange(start, stop))[1]
        counts += np.bincount(labels.ravel(), minlength=256)
    return counts


def class_weights(counts: np.ndarray, method: str) -> np.ndarray:
    """Returns a weight for each class, greater for rare ones.

    `balanced` weighs a class by the inverse of its number of pixels, so that all count
    the same in a loss (King and Zeng, "Logistic Regression in Rare Events Data", 2001);
    `inverse_sqrt` by the inverse of its square root, halfway to that.

    Args:
      counts: int64 [classes], pixels of each class.
      method: one of `METHODS`.

    Returns:
      float64 [classes]; the mean over all pixels is 1. A class without any pixel has
      the weight 1.
    """
    counts = np.asarray(counts, np.float64)
    exponent = {"balanced": -1.0, "inverse_sqrt": -0.5}[method]
    weights = np.ones_like(counts)
    present = counts > 0
    weights[present] = counts[present] ** exponent
    weights[present] *= counts.sum() / (weights * counts).sum()
    return weights
