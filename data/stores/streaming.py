"""Examples that are kept nowhere: each batch is read and decoded when it is due."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data import pipeline, schema
from data.preparing import bad_examples as bad_examples_lib
from data.preparing import preprocessing
from data.stores import fingerprints, reading

_PREFETCHED_BATCHES = 2
"""A small fixed number, because a split that is streamed is large for the memory."""


@dataclasses.dataclass(frozen=True)
class StreamingStore:
    """The examples of a source, read at random; see `pipeline.Examples`.

    A bad example that is not replaced fails the step that needs it with one of
    `reading.READ_ERRORS`; `read` of the ids of the step says which one it is.

    Attributes:
      source: reads them.
      preprocessor: how they become arrays.
      bad_examples: what becomes of those that cannot be used.
    """

    source: schema.RandomAccessSource
    preprocessor: preprocessing.Preprocessor
    bad_examples: bad_examples_lib.BadExamples = bad_examples_lib.STOP

    def __post_init__(self) -> None:
        """Checks the source.

        Raises:
          schema.DataError: if it can only read its examples one after the other.
        """
        if not isinstance(self.source, schema.RandomAccessSource):
            raise schema.DataError(
                f"--cache=none: {self.source.name} can only be read from beginning to "
                "end, and training reads at random; use --cache=disk."
            )

    @property
    def name(self) -> str:
        """Name of the split."""
        return self.source.name

    @property
    def names(self) -> Sequence[str]:
        """The name of each example, read when it is asked for."""
        return _Names(self.source)

    @property
    def fingerprint(self) -> str:
        """Equal to that of the examples in a `store.Store`."""
        return fingerprints.make_fingerprint(self.source, self.preprocessor)

    def __len__(self) -> int:
        return len(self.source)

    def feed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Reads and decodes the examples of a batch in parallel, in their order."""

        @tf.autograph.experimental.do_not_convert
        def load(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return pipeline.fill_in(row, self._load, num_examples=len(self))

        rows = batches.element_spec["id"].shape[0]
        examples = batches.unbatch().map(
            load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return examples.batch(rows, drop_remainder=True).prefetch(_PREFETCHED_BATCHES)

    fetch = staticmethod(pipeline.take_whole)

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images and labels.

        Raises:
          schema.DataError: for one that cannot be used.
        """
        load = tf.autograph.experimental.do_not_convert(self.source.load)
        raw = tf.data.Dataset.from_tensor_slices(ids).map(
            load, num_parallel_calls=tf.data.AUTOTUNE
        )
        examples = list(
            reading.decode_examples(
                self.source, self.preprocessor, raw, ids, self.bad_examples
            )
        )
        return tuple(np.stack([e[key] for e in examples]) for key in ("image", "label"))

    def _load(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns image and label of an id, in a graph."""
        example = self.preprocessor(
            self.source.load(index), catches_errors=self.bad_examples.replaces
        )
        if self.bad_examples.replaces:
            is_handled = tf.cond(
                example["problem"] == 0,
                lambda: True,
                lambda: tf.numpy_function(self._handle, [index], tf.bool),
            )
        else:
            is_handled = tf.debugging.Assert(
                example["problem"] == 0, ["Bad example", index, example["name"]]
            )
        with tf.control_dependencies([is_handled]):
            return tf.identity(example["image"]), tf.identity(example["label"])

    def _handle(self, index: np.int64) -> bool:
        error = reading.explain_bad(self.source, self.preprocessor, int(index))
        self.bad_examples.handle(int(index), error)
        return True


class _Names(Sequence):
    """The names of a source's examples."""

    def __init__(self, source: schema.Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> str:
        return reading.read_name(self._source, index)
