"""Mean and deviation of each channel over the images of a split."""

from typing import NamedTuple

import numpy as np
from absl import logging

from data import pipeline
from data.stores import store, streaming

_CHUNK_SIZE = 64
"""Examples summed up at a time."""

_MAX_STREAMED = 512
"""So many examples are measured where each must be read and decoded for it."""


class ChannelStatistics(NamedTuple):
    """Of the values of the images.

    Attributes:
      mean: float64 [channels].
      deviation: float64 [channels]; of a channel that is the same everywhere, 1.
    """

    mean: np.ndarray
    deviation: np.ndarray


def measure_channels(examples: pipeline.Examples) -> ChannelStatistics:
    """Measures each channel over all pixels of a split, from exact sums.

    Of a split that streams, at most 512 examples are read, spread evenly over it, which
    is said in the log. What fills images up counts like other pixels: the network meets
    it, too.

    Args:
      examples: the split, not empty.

    Raises:
      schema.DataError: for an example that cannot be used.
    """
    ids = np.arange(len(examples))
    if isinstance(examples, streaming.StreamingStore) and len(ids) > _MAX_STREAMED:
        ids = np.unique(np.linspace(0, len(ids) - 1, _MAX_STREAMED).round().astype(int))
        logging.info(
            "%s: with --cache=none, the channels are measured on %d of the %d "
            "examples.",
            examples.name,
            len(ids),
            len(examples),
        )
    # Python's integers, which have no greatest: 65535 squared is 2 ** 32.
    count, sums, squares = 0, 0, 0
    for start in range(0, len(ids), _CHUNK_SIZE):
        chunk = ids[start : start + _CHUNK_SIZE]
        if isinstance(examples, store.Store):  # Spares reading the labels.
            images = examples.images[chunk]
        else:
            images = examples.read(chunk)[0]
        pixels = images.reshape(-1, images.shape[-1])  # [pixels, channels]
        wide = pixels.astype(np.uint32)  # Holds squares of 16 bits.
        count += len(pixels)
        sums = sums + pixels.sum(axis=0, dtype=np.uint64).astype(object)
        squares = squares + (wide * wide).sum(axis=0, dtype=np.uint64).astype(object)
    mean = np.array([total / count for total in sums], np.float64)
    # count² variance = count Σx² - (Σx)², in integers: nothing is lost.
    spreads = [
        int(count * square - total * total)
        for total, square in zip(sums, squares, strict=True)
    ]
    deviation = np.array([spread**0.5 / count for spread in spreads], np.float64)
    for channel in np.flatnonzero(deviation == 0):
        logging.warning(
            "%s: channel %d (from 0) is %g everywhere; nothing is learned of it.",
            examples.name,
            channel,
            mean[channel],
        )
    return ChannelStatistics(mean, np.where(deviation > 0, deviation, 1.0))
