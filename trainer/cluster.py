"""The workers of a multi-worker run: who they are, and waiting for all to come."""

import json
import os
import shutil
import socket
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from trainer import errors

_POLL_SECS = 0.2
_EXCHANGE_BYTES = 64 * 2**20
"""How much of an array goes over the network at a time."""


def resolve() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Reads the cluster from TF_CONFIG, or from Slurm's environment.

    Raises:
      errors.ConfigError: if there is none, or if it has parameter servers.
    """
    if os.environ.get("TF_CONFIG"):
        try:
            jobs = set(json.loads(os.environ["TF_CONFIG"])["cluster"])
        except (ValueError, KeyError, TypeError) as error:
            raise errors.ConfigError(
                f"TF_CONFIG={os.environ['TF_CONFIG']}: not a JSON object with a "
                f"cluster ({error})."
            ) from error
        if jobs - {"worker", "chief"}:
            raise errors.ConfigError(
                f"TF_CONFIG names the jobs {', '.join(sorted(jobs))}; Keras 3 does not "
                "support parameter servers or evaluators: use workers only."
            )
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if "SLURM_PROCID" in os.environ:
        if shutil.which("nvidia-smi"):
            return tf.distribute.cluster_resolver.SlurmClusterResolver()
        # It lists no task without a GPU; as many as there can be tasks let all pass.
        return tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=int(os.environ["SLURM_STEP_NUM_TASKS"]),
            gpus_per_task=1,
            auto_set_gpu=False,
        )
    raise errors.ConfigError(
        "--distribution_strategy=multi_worker_mirrored needs TF_CONFIG, or a Slurm job "
        "step; to try it on this host: bash launch/local.sh 2 FLAGS."
    )


def wait_for_all(
    resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout_secs: float
) -> None:
    """Waits until every worker of the cluster answers on its port.

    TensorFlow itself would wait for over ten minutes, deaf to signals, and not say for
    whom. Each worker listens on its own port, and leaves it to TensorFlow when all the
    others have answered.

    Raises:
      errors.PeerError: if a worker does not come in time, with its address.
    """
    spec = resolver.cluster_spec()
    own = spec.task_address(resolver.task_type, resolver.task_id)
    missing = [a for job in spec.jobs for a in spec.job_tasks(job) if a != own]
    deadline = time.monotonic() + timeout_secs
    logging.info("Waiting for %d other workers.", len(missing))
    listener = socket.create_server(("", int(own.rsplit(":", 1)[1])), backlog=64)
    with listener:
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > deadline:
                raise errors.PeerError(
                    f"Worker {', '.join(missing)} did not come within "
                    f"--startup_timeout={timeout_secs} seconds; start all workers, or "
                    "mend TF_CONFIG."
                )
            time.sleep(_POLL_SECS)


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of processes that a strategy spans."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    spec = strategy.cluster_resolver.cluster_spec()
    return max(1, sum(spec.num_tasks(job) for job in spec.jobs))


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of this process among the workers; 0 is the chief."""
    if num_workers(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec()
    has_chief = "chief" in spec.jobs
    return resolver.task_id + (has_chief and resolver.task_type == "worker")


def sum_over_workers(strategy: tf.distribute.Strategy, array: np.ndarray) -> np.ndarray:
    """Adds up an array of each worker; all must call it, with arrays of one shape.

    Args:
      strategy: spans the workers.
      array: of numbers; integers of less than 32 bits are added up as int32.

    Returns:
      The sum, of the same dtype.
    """
    local_replicas = strategy.num_replicas_in_sync // num_workers(strategy)
    dtype = array.dtype
    wide = tf.int32 if dtype.itemsize < 4 else tf.as_dtype(dtype)

    @tf.function(reduce_retracing=True)
    def add(value: tf.Tensor) -> tf.Tensor:
        def contribute(mine):
            context = tf.distribute.get_replica_context()
            is_first = context.replica_id_in_sync_group % local_replicas == 0
            mine = mine * tf.cast(is_first, mine.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        total = strategy.run(contribute, (value,))
        return strategy.experimental_local_results(total)[0]

    flat = array.reshape(-1)
    count = _EXCHANGE_BYTES // wide.size
    parts = [flat[first : first + count] for first in range(0, flat.size, count)]
    sums = [add(tf.cast(part, wide)).numpy().astype(dtype) for part in parts]
    return np.concatenate(sums).reshape(array.shape)


def check_agreement(
    strategy: tf.distribute.Strategy, step: int, weights: Sequence[tf.Variable]
) -> None:
    """Checks that all workers hold the same step and weights.

    TensorFlow does not notice workers that restored different checkpoints.

    Raises:
      errors.CheckpointError: if they do not.
    """
    count = num_workers(strategy)
    if count == 1:
        return
    sums = [np.sum(weight.numpy(), dtype=np.float64) for weight in weights]
    own = np.array([step, *sums], np.float64)
    mean = sum_over_workers(strategy, own) / count
    if not np.allclose(mean, own, rtol=1e-9, atol=1e-9):
        raise errors.CheckpointError(
            f"Worker {worker_index(strategy)} is at step {step} with other weights "
            "than the others; give all workers the same --model_dir, on a shared file "
            "system."
        )


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False
