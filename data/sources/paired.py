"""Sources of pairs of files in a folder: an image, and what tells its labels."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data import schema
from data.sources import listing

if TYPE_CHECKING:
    import tensorflow as tf


class PairedSource(schema.RandomAccessSource):
    """Pairs in their order; who inherits it decodes, or not, what a pair holds."""

    def __init__(self, root: str, pairs: Sequence[listing.Pair]) -> None:
        """Takes the folder, and the pairs in it."""
        self._root, self._pairs = root, pairs
        self._tensors = None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """The path of each image, relative to the folder."""
        return tuple(pair.image for pair in self._pairs)

    def _find(self, index: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor, bytes]":
        """Returns the paths of both files of a pair, and what goes before them."""
        import tensorflow as tf

        if self._tensors is None:
            with tf.init_scope():  # Kept from one graph to the next.
                # As bytes: names of files need not be text, and there may be none.
                self._tensors = (
                    tf.constant([os.fsencode(p.image) for p in self._pairs], tf.string),
                    tf.constant([os.fsencode(p.mask) for p in self._pairs], tf.string),
                )
        image, mask = (tf.gather(names, index) for names in self._tensors)
        return image, mask, os.fsencode(os.path.join(self._root, ""))

    def examples(self, start: int = 0, stop: int | None = None) -> "tf.data.Dataset":
        """Reads examples in the order of the pairs; see `schema.Source`."""
        import tensorflow as tf

        start, stop, _ = slice(start, stop).indices(len(self))
        ids = tf.data.Dataset.range(start, max(start, stop))
        load = tf.autograph.experimental.do_not_convert(self.load)
        return ids.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
