"""All examples of a split as arrays on the devices that train on them."""

import dataclasses

import numpy as np
import tensorflow as tf
from absl import logging

from data import pipeline, schema
from data.stores import store


@dataclasses.dataclass(frozen=True)
class DeviceStore:
    """The decoded examples of a split on devices; see `pipeline.Examples`.

    The host sends ids, a few bytes a step.

    Attributes:
      name: of the split, for messages.
      names: the name of each example, for messages.
      fingerprint: changes whenever any example may have changed.
      copies: for each replica of this process, two variables on its device: images,
        uint8 or uint16 [num_examples, height, width, channels], and labels, uint8
        [num_examples, height, width].
    """

    name: str
    names: tuple[str, ...]
    fingerprint: str
    copies: tuple[tuple[tf.Variable, tf.Variable], ...]

    def __len__(self) -> int:
        return len(self.names)

    def feed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Leaves the ids as they are."""
        return batches.prefetch(tf.data.AUTOTUNE)

    def fetch(self, batch: pipeline.Batch) -> pipeline.Batch:
        """Gathers a batch on the replica's own device."""
        context = tf.distribute.get_replica_context()
        # A tensor, but a constant one: each replica is traced by itself.
        replica = int(tf.get_static_value(context.replica_id_in_sync_group))
        copy = self.copies[replica % len(self.copies)]
        return pipeline.fill_in(
            batch, lambda ids: _gather(copy, ids), num_examples=len(self)
        )

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels."""
        images, labels = _gather(self.copies[0], tf.constant(ids))
        return images.numpy(), labels.numpy()


def place(examples: store.Store, strategy: tf.distribute.Strategy) -> DeviceStore:
    """Copies a split to each device of this process.

    Args:
      examples: in host memory, where nothing refers to them afterwards.
      strategy: spans the devices.

    Raises:
      schema.DataError: if they do not fit there.
    """
    arrays = (examples.images, examples.labels)
    num_bytes = sum(array.nbytes for array in arrays)
    copies = []
    for device in strategy.extended.worker_devices:
        try:
            copies.append(_copy_to(device, *arrays))
        # Of an allocation that fails inside a copy to a GPU, TensorFlow only says that
        # the target "is not initialized": an internal error.
        except (tf.errors.ResourceExhaustedError, tf.errors.InternalError) as error:
            raise schema.DataError(
                f"--cache=device: {examples.name} does not fit into the memory of "
                f"{device}: its {len(examples):,} examples need {num_bytes:,} bytes "
                f"({error.message.splitlines()[0]}); use --cache=memory."
            ) from error
    logging.info(
        "Placed %d examples of %s on %d devices, %.1f MB on each.",
        len(examples),
        examples.name,
        len(copies),
        num_bytes / 1e6,
    )
    return DeviceStore(
        examples.name, examples.names, examples.fingerprint, tuple(copies)
    )


def _copy_to(
    device: str, images: np.ndarray, labels: np.ndarray
) -> tuple[tf.Variable, tf.Variable]:
    with tf.device(device):
        return (
            tf.Variable(images, trainable=False, name="images"),
            tf.Variable(labels, trainable=False, name="labels"),
        )


def _gather(
    copy: tuple[tf.Variable, tf.Variable], ids: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns images and labels of ids, int64 [n]."""
    images, labels = copy
    # Not `tf.gather` of tensors: it has no kernel for these types on GPUs, so that each
    # step would copy the whole split to the host. The gather of variables has one.
    return images.sparse_read(ids), labels.sparse_read(ids)
