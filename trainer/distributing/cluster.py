"""The workers of a multi-worker run, and what they say each other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import errors
from trainer.distributing import membership

_EXCHANGE_BYTES = 64 * 2**20
"""How much of an array goes over the network at a time."""
_HOST_SETTINGS = frozenset(
    {
        "model_dir",
        "checkpoint",
        "model",
        "data_dir",
        "cache_dir",
        "encoder_weights",
        "init_checkpoint",
        "class_names",
        "label_colors",
        "label_map",
        "startup_timeout",
        "stall_timeout",
    }
)
"""May differ from worker to worker: patience, and paths, whose contents count."""


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of processes that a strategy spans."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return max(1, count(strategy.cluster_resolver))


def count(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> int:
    """Returns the number of workers of a cluster."""
    spec = resolver.cluster_spec()
    return sum(spec.num_tasks(job) for job in spec.jobs)


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of this process among the workers; 0 is the chief."""
    if num_workers(strategy) == 1:
        return 0
    return _index(strategy.cluster_resolver)


def is_chief(distribution_strategy: str) -> bool:
    """Whether this process will be the chief, before there are devices.

    Args:
      distribution_strategy: the setting.

    Raises:
      errors.ConfigError: if there is no cluster where one is asked for.
    """
    return (
        distribution_strategy != "multi_worker_mirrored"
        or _index(membership.resolve()) == 0
    )


def _index(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> int:
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_id + (has_chief and resolver.task_type == "worker")


class Sum:
    """Adds up arrays of all workers, traced once for each shape."""

    def __init__(self, strategy: tf.distribute.Strategy):
        """Makes a sum.

        Args:
          strategy: spans the workers.
        """
        local_replicas = strategy.num_replicas_in_sync // num_workers(strategy)

        @tf.function(reduce_retracing=True)
        def add(value: tf.Tensor) -> tf.Tensor:
            def contribute(mine: tf.Tensor) -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                is_first = context.replica_id_in_sync_group % local_replicas == 0
                mine = mine * tf.cast(is_first, mine.dtype)
                return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

            total = strategy.run(contribute, (value,))
            return strategy.experimental_local_results(total)[0]

        self._add = add

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Adds up an array of each worker; all must call it, with arrays of one shape.

        Args:
          array: of numbers; integers of less than 32 bits are added up as int32.

        Returns:
          The sum, of the same dtype.
        """
        dtype = array.dtype
        wide = tf.int32 if dtype.itemsize < 4 else tf.as_dtype(dtype)
        flat = array.reshape(-1)
        count = _EXCHANGE_BYTES // wide.size
        parts = [flat[first : first + count] for first in range(0, flat.size, count)]
        sums = [self._add(tf.cast(p, wide)).numpy().astype(dtype) for p in parts]
        return np.concatenate(sums).reshape(array.shape)


def sum_over_workers(strategy: tf.distribute.Strategy, array: np.ndarray) -> np.ndarray:
    """Adds up an array of each worker, once; see `Sum`."""
    return Sum(strategy)(array)


def from_chief(strategy: tf.distribute.Strategy, number: float) -> float:
    """Returns the number that the chief has; all workers must call this.

    Args:
      strategy: spans the workers.
      number: only that of the chief counts.
    """
    if num_workers(strategy) == 1:
        return number
    own = number if worker_index(strategy) == 0 else 0.0
    return float(sum_over_workers(strategy, np.array([own], np.float64))[0])


def wait_for_chief(strategy: tf.distribute.Strategy) -> None:
    """Waits until the chief, and all other workers, have come as far as this.

    What starts workers again may not do so with one that has ended well, and a chief
    that is killed later needs all of them.

    Args:
      strategy: spans the workers; all of them must call this.

    Raises:
      tf.errors.OpError: if one of them goes away instead.
    """
    if num_workers(strategy) > 1:
        sum_over_workers(strategy, np.zeros([1], np.int32))


def check_settings(
    strategy: tf.distribute.Strategy, settings: Mapping[str, Any]
) -> None:
    """Checks that all workers run with the same settings, but for paths.

    Args:
      strategy: spans the workers; all of them must call this.
      settings: by name.

    Raises:
      errors.ConfigError: on all workers, if they differ.
    """
    compared = {
        f"--{name}": value
        for name, value in settings.items()
        if name not in _HOST_SETTINGS
    }
    _check_same(strategy, compared, "start all workers with the same flags")


def check_data(strategy: tf.distribute.Strategy, found: Mapping[str, Any]) -> None:
    """Checks that all workers found the same data.

    Args:
      strategy: spans the workers; all of them must call this.
      found: what tells data from other data, by what it is of.

    Raises:
      errors.ConfigError: on all workers, if they differ.
    """
    _check_same(strategy, found, "give all workers the same files, by --data_dir")


def check_start(
    strategy: tf.distribute.Strategy, step: int, weights: Sequence[tf.Variable]
) -> None:
    """Checks that all workers start at the same step with the same weights.

    TensorFlow does not notice workers that have read other files.

    Args:
      strategy: spans the workers; all of them must call this.
      step: how many steps are done.
      weights: of the model.

    Raises:
      errors.ConfigError: on all workers, if they differ.
    """
    if num_workers(strategy) == 1:
        return
    digest = hashlib.blake2b(digest_size=6)
    for weight in weights:
        digest.update(np.ascontiguousarray(weight.numpy()))
    _check_same(
        strategy,
        {"the step": step, "the weights": digest.hexdigest()},
        "give all workers the same files, by --encoder_weights and --init_checkpoint, "
        "and the same --model_dir, on a shared file system",
    )


def check_model(strategy: tf.distribute.Strategy, step: int, weights: str) -> None:
    """Checks that all workers have read the same trained model.

    Args:
      strategy: spans the workers; all of them must call this.
      step: how many steps it was trained.
      weights: a hash of its files.

    Raises:
      errors.ConfigError: on all workers, if they differ.
    """
    _check_same(
        strategy,
        {"the step of the model": step, "its weights": weights},
        "give all workers the same --model_dir, on a shared file system, or the same "
        "--model",
    )


def _check_same(
    strategy: tf.distribute.Strategy, values: Mapping[str, Any], remedy: str
) -> None:
    if num_workers(strategy) == 1:
        return
    everyone = gather(strategy, json.dumps(values))
    differences = []
    for name in values:
        found = [json.dumps(json.loads(text).get(name)) for text in everyone]
        if len(set(found)) > 1:
            each = ", ".join(f"{v} on worker {i}" for i, v in enumerate(found))
            differences.append(f"{name} ({each})")
    if differences:
        raise errors.ConfigError(
            f"The workers do not agree in {', '.join(differences)}; {remedy}."
        )


def gather(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """Returns the texts of all workers, in their order; all must call it."""
    index, own = worker_index(strategy), text.encode()
    lengths = np.zeros([num_workers(strategy)], np.int32)
    lengths[index] = len(own)
    lengths = sum_over_workers(strategy, lengths)
    table = np.zeros([len(lengths), lengths.max()], np.uint8)
    table[index, : len(own)] = np.frombuffer(own, np.uint8)
    rows = sum_over_workers(strategy, table)
    return [bytes(row[:n]).decode() for row, n in zip(rows, lengths, strict=True)]
