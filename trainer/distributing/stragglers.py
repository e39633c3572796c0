"""Which worker keeps the others waiting.

In a synchronous step every worker waits for the slowest one. So a step lasts equally
long on all of them, which says nothing about who is to blame. A worker can measure two
things that are its own alone:

- how long its devices waited for its input, from the sums that end one step to the
  next batch (not with --deterministic, under which TensorFlow allows no clock there);
- how long its process did not get to run (`pauses.py`).

The rest of a step, the computation, is taken to be the same on all workers. It cannot
be told from the wait for others: synchronized batch norm sums over all workers in the
middle of a step. So a GPU that computes slowly is not found here; it makes the steps of
all workers longer.
"""

import dataclasses
import socket
import statistics
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from trainer.distributing import cluster, pauses, step_clock

_SLOW = 1.5
"""How many times the median a worker's own time is, if it is named."""


def own_secs(times: Sequence[step_clock.Times]) -> list[float]:
    """Returns how long a step takes each worker, without waiting for the others.

    That is its own delays, and the computation, which is the same for all: what the
    slowest worker's delays leave of the shortest step.

    Args:
      times: of each worker.
    """
    delays = [worker.delay_secs for worker in times]
    shared = max(0.0, min(worker.step_secs for worker in times) - max(delays))
    return [shared + delay for delay in delays]


def find_slow(times: Sequence[step_clock.Times]) -> set[int]:
    """Returns the numbers of the workers that are 1.5 times as slow as the median.

    Of two workers in the middle, the faster one is the median: of two in all, a worker
    is compared with the other.
    """
    own = own_secs(times)
    limit = _SLOW * statistics.median_low(own)
    return {index for index, secs in enumerate(own) if secs >= limit > 0}


class Comparison:
    """Compares the workers of a strategy at each report."""

    def __init__(self, strategy: tf.distribute.Strategy):
        """Makes a comparison; all workers must make theirs at the same time.

        Args:
          strategy: spans the workers.
        """
        self._sum = cluster.Sum(strategy)
        self._count = cluster.num_workers(strategy)
        self._index = cluster.worker_index(strategy)
        self._hosts = cluster.gather(strategy, socket.gethostname())
        self._slow = set()
        self._pauses = pauses.PauseMeter()
        self._pauses.start()

    def paused_secs(self) -> float:
        """For how long the process has not run since this was made."""
        return self._pauses.secs

    def report(self, own: step_clock.Times) -> dict[str, float]:
        """Exchanges times with all other workers; names those that have become slow.

        Args:
          own: of this worker.

        Returns:
          `input_share`, that of the worker whose devices waited longest: the others
          waited for it. Milliseconds of each worker, `workers/0-HOST/step_ms`,
          `.../input_ms` and `.../paused_ms`.
        """
        table = np.zeros([self._count, 3], np.float64)
        table[self._index] = dataclasses.astuple(own)
        times = [step_clock.Times(*row) for row in self._sum(table).tolist()]
        slow = find_slow(times)
        if self._index == 0:
            for index in sorted(slow - self._slow):
                logging.warning("%s", self._describe(index, times))
        self._slow = slow
        scores = {"input_share": max(worker.input_share for worker in times)}
        return scores | {
            f"workers/{index}-{host}/{name}_ms": 1000 * secs
            for index, (host, worker) in enumerate(zip(self._hosts, times, strict=True))
            for name, secs in (
                ("step", worker.step_secs),
                ("input", worker.input_secs),
                ("paused", worker.paused_secs),
            )
        }

    def _describe(self, index: int, times: Sequence[step_clock.Times]) -> str:
        own, worker = own_secs(times), times[index]
        if worker.input_secs > worker.paused_secs:
            delay_ms = 1000 * worker.input_secs
            reason = (
                f"it waits {delay_ms:.0f} ms for its input; look at the disk or "
                "network that its examples come from"
            )
        else:
            delay_ms = 1000 * worker.paused_secs
            reason = (
                f"for {delay_ms:.0f} ms its process does not run; look at what else "
                "runs on its host, and at its share of the processors"
            )
        return (
            f"Worker {index} on {self._hosts[index]} keeps the others waiting: a step "
            f"takes it {1000 * own[index]:.0f} ms, the median worker "
            f"{1000 * statistics.median_low(own):.0f} ms. Of these, {reason}."
        )


def make_comparison(strategy: tf.distribute.Strategy) -> Comparison | None:
    """Makes a comparison, if there are several workers; all must call this."""
    return Comparison(strategy) if cluster.num_workers(strategy) > 1 else None
