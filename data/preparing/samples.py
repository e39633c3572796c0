"""A few examples of a split, for what is to be said of it at once."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from data import pipeline, schema

_NUM_ALL_OVER = 32
"""Of a split that is read at random."""
_NUM_FIRST = 4
"""Of another, where to come to the last example is to read all."""


def read_some(source: schema.Source) -> Iterator[dict[str, Any]]:
    """Yields some examples as NumPy values; what cannot be read is passed over.

    Args:
      source: if it is read at random, the examples are from all over; else the first.
    """
    if isinstance(source, schema.RandomAccessSource):
        ids = np.linspace(0, len(source) - 1, min(_NUM_ALL_OVER, len(source)))
        for index in ids.round().astype(np.int64):
            with contextlib.suppress(tf.errors.OpError):
                example = source.load(tf.constant(index))
                yield {key: value.numpy() for key, value in example.items()}
        return
    with contextlib.suppress(tf.errors.OpError):
        first = source.examples(0, min(_NUM_FIRST, len(source)))
        yield from pipeline.end_at_once(first).as_numpy_iterator()
