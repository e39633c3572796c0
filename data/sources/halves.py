"""One half of a split: of two models, each judges what the other one was trained on."""

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np

from data import schema

if TYPE_CHECKING:
    import tensorflow as tf

COUNT = 2
"""Of the halves of a split."""


def find_halves(source: schema.Source) -> np.ndarray:
    """Tells which half each example belongs to.

    It is decided by a hash of the name of the image, where a source knows names without
    reading the examples (its attribute `names`), so that files that are added move no
    other file; elsewhere by a hash of the id.

    Args:
      source: a split.

    Returns:
      0 or 1 for each example, int64 [examples].
    """
    names = getattr(source, "names", None) or map(str, range(len(source)))
    digests = (hashlib.sha256(os.fsencode(name)).digest() for name in names)
    return np.array([digest[0] % COUNT for digest in digests], np.int64)


class HalfSource:
    """The examples of one half of a split, in their order; see `schema.Source`.

    It has `load` if the whole split has.
    """

    def __init__(self, source: schema.Source, half: int):
        """Chooses the examples.

        Args:
          source: the whole split.
          half: 0 or 1.

        Raises:
          schema.DataError: if there is no example in that half.
        """
        self._source = source
        self._ids = np.flatnonzero(find_halves(source) == half)
        self.name = f"{source.name}/half-{half}"
        self.info = source.info
        self.problems = getattr(source, "problems", ())
        self.fingerprint = f"{source.fingerprint}:half-{half}"
        if not len(self._ids):
            raise schema.DataError(
                f"--train_half={half}: none of the {len(source)} examples of "
                f"{source.name} is in that half; name the other one, or get more."
            )
        if isinstance(source, schema.RandomAccessSource):
            self.load = self._load

    def __len__(self) -> int:
        return len(self._ids)

    def _load(self, index: "tf.Tensor") -> "dict[str, tf.Tensor]":
        import tensorflow as tf

        return self._source.load(tf.gather(self._ids, index))

    def examples(self, start: int = 0, stop: int | None = None) -> "tf.data.Dataset":
        """Reads examples in the order of their ids; see `schema.Source`."""
        import tensorflow as tf

        start, stop, _ = slice(start, stop).indices(len(self))
        ids = self._ids[start : max(start, stop)]
        if isinstance(self._source, schema.RandomAccessSource):
            dataset = tf.data.Dataset.from_tensor_slices(ids)
            load = tf.autograph.experimental.do_not_convert(self._source.load)
            return dataset.map(
                load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
        if not len(ids):
            return self._source.examples(0, 0)
        # Records can only be read one after the other.
        first, last = int(ids[0]), int(ids[-1])
        is_wanted = np.zeros([last + 1 - first], bool)
        is_wanted[ids - first] = True
        records = self._source.examples(first, last + 1).enumerate()
        keep = tf.autograph.experimental.do_not_convert(
            lambda place, _: tf.gather(is_wanted, place)
        )
        take = tf.autograph.experimental.do_not_convert(lambda _, example: example)
        return records.filter(keep).map(take)
