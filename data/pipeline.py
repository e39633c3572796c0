"""Batches by number: what is in the batch of step k depends on seed and k alone.

Training counts examples on and on: counter c = step * global_batch_size + position.
Counter c is place c % n of epoch c // n (n examples in the split), and each epoch is a
permutation of its own. Nothing is dropped, an epoch may end inside a batch, and
starting at any step costs nothing. A replica takes its own rows of each global batch,
so the examples of a step are the same for every number of replicas.

Ids are made here; `Examples` makes pixels of them, on the host or on the devices.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from data import schema

Batch = dict[str, tf.Tensor]

_SHUFFLE_ROUNDS = 16
"""With the op's default of 4, seed 0 hardly shuffles: of 40 epochs of 20 examples, 12
came in the order of the records. 8 rounds pass for random; the rest is margin."""


_STEPS_AT_ONCE = 32
"""Steps whose ids are made together: the ops take longer to start than to run."""


class Examples(Protocol):
    """The examples of a split, wherever they are kept.

    `store.Store` has them in host memory or on disk, `device_store.DeviceStore` on the
    devices, and `streaming.StreamingStore` reads them anew each time; the pixels are
    the same.

    Attributes:
      name: of the split, for messages.
      names: the name of each example, for messages.
      fingerprint: changes whenever any example may have changed.
    """

    name: str
    names: Sequence[str]
    fingerprint: str

    def __len__(self) -> int:
        """Returns the number of examples."""

    def feed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Makes the input of the replicas, prefetched, from batches of ids.

        Args:
          batches: dicts with `id`, int64 [rows]; other entries stay as they are. An
            id of `len(self)` or more fills up a batch: see `fill_in`.

        Returns:
          The same number of dicts, which `fetch` completes.
        """

    def fetch(self, batch: Batch) -> Batch:
        """Completes what `feed` gave, in a replica's context.

        Returns:
          The batch with `image` uint8 or uint16 [rows, height, width, channels] and
          `label` uint8 [rows, height, width] in place of `id`.
        """

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels of ids below `len(self)`, for people to see.

        Raises:
          schema.DataError: for the first that cannot be used.
        """


def take_whole(batch: Batch) -> Batch:
    """Returns the batch as it is: the `fetch` of examples that `feed` all of it."""
    return batch


def fill_in(
    batch: Batch,
    load: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    *,
    num_examples: int,
) -> Batch:
    """Replaces the ids of a batch, or of one row, by images and labels.

    An id of `num_examples` or more gives the last example with all pixels ignored.

    Args:
      batch: has `id`, int64 [rows] or a scalar.
      load: from ids in 0..num_examples-1 to images and labels.
      num_examples: size of the split.
    """
    image, label = load(tf.minimum(batch["id"], np.int64(num_examples - 1)))
    is_filling = (batch["id"] >= num_examples)[..., tf.newaxis, tf.newaxis]
    label = tf.where(is_filling, np.uint8(schema.IGNORE_LABEL), label)
    return replace_ids(batch, image, label)


def replace_ids(batch: Batch, image: tf.Tensor, label: tf.Tensor) -> Batch:
    """Returns a batch with images and labels in place of their ids."""
    rest = {key: value for key, value in batch.items() if key != "id"}
    return {**rest, "image": image, "label": label}


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which rows of each global batch a pipeline yields.

    Attributes:
      num_replicas: replicas in all, which share the rows in equal parts.
      num_local_replicas: replicas that this pipeline feeds, in turn.
      first_replica: number of the first of them.
    """

    num_replicas: int = 1
    num_local_replicas: int = 1
    first_replica: int = 0

    @classmethod
    def from_context(cls, context: tf.distribute.InputContext) -> "Shard":
        """Makes the shard of one input pipeline of a strategy."""
        local = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(
            num_replicas=context.num_replicas_in_sync,
            num_local_replicas=local,
            first_replica=context.input_pipeline_id * local,
        )


WHOLE = Shard()
"""All rows, for a single replica."""


def shuffled_ids(counters: tf.Tensor, *, num_examples: int, seed: int) -> tf.Tensor:
    """Maps example counters to ids, by one stateless permutation for each epoch.

    Args:
      counters: int64 [n], example counters as in the module docstring.
      num_examples: size of the split.
      seed: of the order.

    Returns:
      int64 [n], in 0..num_examples-1.
    """
    epochs = tf.cast(counters // num_examples, tf.uint64)
    # In small splits the op heeds 8 bits of each of its three key words, so each word
    # must depend on all bits of seed and epoch.
    base = _mix(tf.constant(seed, tf.uint64)) + 3 * epochs
    key = tf.stack([_mix(base + word) for word in range(3)], axis=1)
    # The raw op: `tf.random.experimental.index_shuffle` pads a matrix of seeds wrongly.
    return tf.raw_ops.RandomIndexShuffle(
        index=counters % num_examples,
        seed=key,
        max_index=np.int64(num_examples - 1),
        rounds=_SHUFFLE_ROUNDS,
    )


def _mix(value: tf.Tensor) -> tf.Tensor:
    """Spreads each bit of uint64 over all (splitmix64; Steele et al., OOPSLA 2014)."""
    value += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = _xor_shift(value, shift) * tf.constant(factor, tf.uint64)
    return _xor_shift(value, 31)


def _xor_shift(value: tf.Tensor, shift: int) -> tf.Tensor:
    shifted = tf.bitwise.right_shift(value, tf.constant(shift, tf.uint64))
    return tf.bitwise.bitwise_xor(value, shifted)


def epoch_end(epoch: int, *, num_examples: int, global_batch_size: int) -> int:
    """Returns the first step count at which `epoch` epochs have been seen whole."""
    return -(-epoch * num_examples // global_batch_size)


def epochs_done(step: int, *, num_examples: int, global_batch_size: int) -> int:
    """Returns how many epochs have been seen whole after a number of steps."""
    return step * global_batch_size // num_examples


def step_ids(
    step: int, *, num_examples: int, global_batch_size: int, seed: int
) -> np.ndarray:
    """Returns the ids, int64 [global_batch_size], of a training step."""
    counters = step * global_batch_size + np.arange(global_batch_size)
    ids = shuffled_ids(tf.constant(counters), num_examples=num_examples, seed=seed)
    return ids.numpy()


def make_train_dataset(
    examples: Examples,
    *,
    global_batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """Makes the endless stream of training batches from `start_step` on.

    Args:
      examples: the split.
      global_batch_size: rows of a step, over all replicas; divisible by them.
      seed: of the order.
      start_step: the step whose batch comes first.
      shard: which rows of each step to yield.

    Returns:
      A dataset with one element for each local replica and step, in this order. After
      `examples.fetch` it has `image` uint8 or uint16 [rows, height, width, channels],
      `label` uint8 [rows, height, width] and `counter` int64 [rows], the example
      counters.
    """

    @tf.autograph.experimental.do_not_convert
    def number(first: tf.Tensor) -> dict[str, tf.Tensor]:
        indices = first + tf.range(_STEPS_AT_ONCE, dtype=tf.int64)
        counters = _rows(indices, global_batch_size, shard)
        ids = shuffled_ids(
            tf.reshape(counters, [-1]), num_examples=len(examples), seed=seed
        )
        return {"counter": counters, "id": tf.reshape(ids, counters.shape)}

    start = start_step * shard.num_local_replicas
    blocks = tf.data.Dataset.range(start, np.iinfo(np.int64).max, _STEPS_AT_ONCE)
    return end_at_once(examples.feed(blocks.map(number).unbatch()))


def make_blank_dataset(
    rows: int,
    image_size: tuple[int, int],
    image_format: schema.ImageFormat = schema.RGB,
) -> tf.data.Dataset:
    """Makes an endless stream of what `make_train_dataset` gives, all zeros.

    With it a step can be traced while the examples are still being decoded.

    Args:
      rows: of a batch, on each replica.
      image_size: height and width.
      image_format: of the images.

    Returns:
      A dataset with the elements of examples that need no `fetch`.
    """
    batch = {
        "counter": tf.zeros([rows], tf.int64),
        "image": tf.zeros(
            [rows, *image_size, image_format.num_channels], image_format.dtype
        ),
        "label": tf.zeros([rows, *image_size], tf.uint8),
    }
    return end_at_once(tf.data.Dataset.from_tensors(batch).repeat())


def make_eval_dataset(
    examples: Examples,
    *,
    global_batch_size: int,
    shard: Shard = WHOLE,
    num_passes: int = 1,
) -> tf.data.Dataset:
    """Makes passes over a split, the last batch filled up with ignored pixels.

    Args:
      examples: the split.
      global_batch_size: rows of a step, over all replicas; divisible by them.
      shard: which rows of each step to yield.
      num_passes: how many passes; -1: without end.

    Returns:
      A dataset of `num_eval_batches` elements for each local replica and pass. After
      `examples.fetch` it has `image` and `label` as in `make_train_dataset`, and
      `counter` int64 [rows], the id of each example; what fills up a batch has ids of
      `len(examples)` or more.
    """

    def number(index: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = _rows(index, global_batch_size, shard)
        return {"counter": ids, "id": ids}

    num_batches = num_eval_batches(len(examples), global_batch_size)
    indices = tf.data.Dataset.range(num_batches * shard.num_local_replicas)
    indices = indices.repeat(num_passes)
    return end_at_once(examples.feed(indices.map(number)))


def end_at_once(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns tf.data's autotuner off for a dataset, so that its iterators end at once.

    An iterator ends only when the autotuner wakes up, and the autotuner sleeps twice as
    long each time, up to a minute: a run of two minutes ended 50 seconds after its last
    step. Without it, tf.data takes as many threads as there are cores and reads few
    batches ahead, which is enough.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def eval_batch_size(
    num_examples: int, *, max_batch_size: int, num_replicas: int
) -> int:
    """Returns the global batch size that leaves the fewest rows to be filled up.

    The number of batches stays that of `max_batch_size`. For instance, 298 examples
    make 5 batches of 64 with 22 rows to be filled up, or 5 batches of 60 with 2.

    Args:
      num_examples: of the split.
      max_batch_size: divisible by the replicas.
      num_replicas: to share the rows in equal parts.
    """
    num_batches = num_eval_batches(num_examples, max_batch_size)
    rows = -(-num_examples // (num_batches * num_replicas))
    return rows * num_replicas


def num_eval_batches(num_examples: int, global_batch_size: int) -> int:
    """Returns how many batches one pass takes, the last perhaps filled up."""
    return -(-num_examples // global_batch_size)


def _rows(indices: tf.Tensor, global_batch_size: int, shard: Shard) -> tf.Tensor:
    """Returns the counters, int64 [..., rows], of elements `indices` of a pipeline."""
    rows = global_batch_size // shard.num_replicas
    steps = indices // shard.num_local_replicas
    replicas = shard.first_replica + indices % shard.num_local_replicas
    first = steps * global_batch_size + replicas * rows
    return first[..., tf.newaxis] + tf.range(rows, dtype=tf.int64)
