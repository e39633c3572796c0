"""The labels of a split at each image's own size, for scores at that size."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tqdm

from data import pipeline, schema
from data.preparing import bad_examples as bad_examples_lib
from data.preparing import preprocessing
from data.stores import reading


@dataclasses.dataclass(frozen=True)
class NativeExamples:
    """Examples whose batches hold the labels at their own size, too.

    See `pipeline.Examples`; after `fetch` a batch also has `native_label`, uint8 [rows,
    height, width] of the largest label in it, filled up with `schema.IGNORE_LABEL`,
    and `native_size`, int32 [rows, 2], the height and width of each.

    Attributes:
      examples: the same examples, all of one size.
      encoded: the labels, each as a PNG file: a fiftieth of their pixels, so that those
        of a whole split fit into memory.
      sizes: int32 [num_examples, 2], their heights and widths.
    """

    examples: pipeline.Examples
    encoded: tuple[bytes, ...]
    sizes: np.ndarray

    @property
    def name(self) -> str:
        """Name of the split."""
        return self.examples.name

    @property
    def names(self) -> Sequence[str]:
        """The name of each example."""
        return self.examples.names

    @property
    def fingerprint(self) -> str:
        """Changes whenever any example may have changed."""
        return self.examples.fingerprint

    def __len__(self) -> int:
        return len(self.examples)

    def feed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Decodes the labels of each batch on the host."""
        batches = self.examples.feed(
            batches.map(lambda batch: {**batch, "native_id": batch["id"]})
        )
        with tf.device("/CPU:0"):
            encoded = tf.constant(self.encoded)

        @tf.autograph.experimental.do_not_convert
        def load(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            ids = batch.pop("native_id")
            known = tf.minimum(ids, np.int64(len(self) - 1))
            sizes = tf.gather(self.sizes, known)
            bounds = tf.reduce_max(sizes, axis=0)

            def decode(index: tf.Tensor) -> tf.Tensor:
                label = tf.io.decode_png(tf.gather(encoded, index), channels=1)[..., 0]
                margins = tf.stack([tf.zeros_like(bounds), bounds - tf.shape(label)], 1)
                return tf.pad(label, margins, constant_values=schema.IGNORE_LABEL)

            labels = tf.map_fn(decode, known, fn_output_signature=tf.uint8)
            is_filling = (ids >= len(self))[:, tf.newaxis, tf.newaxis]
            labels = tf.where(is_filling, np.uint8(schema.IGNORE_LABEL), labels)
            labels = tf.ensure_shape(labels, [ids.shape[0], None, None])
            return {**batch, "native_label": labels, "native_size": sizes}

        batches = batches.map(
            load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return batches.prefetch(tf.data.AUTOTUNE)

    def fetch(self, batch: pipeline.Batch) -> pipeline.Batch:
        """Completes a batch in a replica's context."""
        return self.examples.fetch(batch)

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of the one size."""
        return self.examples.read(ids)


def add_native_labels(
    examples: pipeline.Examples,
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    bad_examples: bad_examples_lib.BadExamples,
) -> NativeExamples:
    """Reads the labels of a whole split once more, at their own sizes.

    Args:
      examples: what `preprocessor` made of `source`.
      source: the examples.
      preprocessor: how they became arrays of one size.
      bad_examples: what becomes of those that cannot be used.

    Raises:
      schema.DataError: for an example that cannot be used.
    """
    unresized = dataclasses.replace(preprocessor, image_size=None)
    ids = range(len(source))
    decoded = tqdm.tqdm(
        reading.decode_examples(
            source, unresized, source.examples(), ids, bad_examples
        ),
        total=len(ids),
        desc=f"Decoding masks of {source.name}",
        unit=" masks",
        disable=None,
    )
    encoded, sizes = [], []
    for example in decoded:
        label = example["label"]
        encoded.append(tf.io.encode_png(label[..., np.newaxis]).numpy())
        sizes.append(label.shape)
    return NativeExamples(examples, tuple(encoded), np.array(sizes, np.int32))
