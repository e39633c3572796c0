"""How many pixels of each class the examples of a split have."""

import numpy as np

from data import pipeline, store

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
