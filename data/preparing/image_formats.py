"""Which range of values the images of a data set are kept in."""

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from data import pipeline, schema
from data.files import images

_NUM_LOOKED_AT = 32
"""Headers of a split that is read at random; of another one, the first few."""
_NUM_FIRST = 4

_RANGES = {8: (0, 255), 16: (0, 65535)}


def find_range(source: schema.Source) -> tuple[int, int]:
    """Returns the range of values that a source's images are kept in.

    It is that of 16 bits if all images that are looked at have 16 bits, else that of 8
    bits. If any image has 16 bits, the log says what is done.

    Args:
      source: the examples, of which some from all over are looked at.
    """
    # One data set for both: to make that of a TFDS source takes a tenth of a second.
    first = source.examples(0, min(_NUM_FIRST, len(source)))
    spec = first.element_spec["image"]
    if spec.dtype != tf.string:
        return _RANGES[8 * spec.dtype.size]
    bits = list(_read_bits(source, first))
    num_wide = sum(one > 8 for one in bits)
    if not num_wide:
        return _RANGES[8]
    if num_wide == len(bits):
        logging.info(
            "%s: the images have 16 bits and are kept so; --image_range=0,65535 unless "
            "you give another.",
            source.name,
        )
        return _RANGES[16]
    logging.warning(
        "%s: of %d images that were looked at, %d have 16 bits and the others 8. All "
        "are kept in 8, of 16 bits the upper 8; to keep 16, write all with 16.",
        source.name,
        len(bits),
        num_wide,
    )
    return _RANGES[8]


def _read_bits(source: schema.Source, first: tf.data.Dataset) -> Iterator[int]:
    """Yields the bits of some images; what cannot be read is passed over."""
    for encoded in _read_some(source, first):
        try:
            yield images.read_header(encoded).bits
        except schema.DataError:
            continue  # Decoding says what is wrong with it.


def _read_some(source: schema.Source, first: tf.data.Dataset) -> Iterator[bytes]:
    if isinstance(source, schema.RandomAccessSource):
        ids = np.linspace(0, len(source) - 1, min(_NUM_LOOKED_AT, len(source)))
        for index in ids.round().astype(np.int64):
            with contextlib.suppress(tf.errors.OpError):
                yield source.load(tf.constant(index))["image"].numpy()
        return
    with contextlib.suppress(tf.errors.OpError):
        for example in pipeline.end_at_once(first).as_numpy_iterator():
            yield example["image"]
