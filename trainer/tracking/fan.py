"""Sends points to trackers while training goes on.

Each tracker has a thread: a server that does not answer is waited for there.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping

from absl import logging

from trainer.tracking import tracker as tracker_lib

_CLOSE_SECS = 60.0
"""For what is still to send when the run has ended."""


class Fan:
    """All trackers of a run."""

    def __init__(
        self,
        trackers: Mapping[str, tracker_lib.Tracker],
        sent: Mapping[str, Mapping[str, int]] | None = None,
        *,
        is_lost: Callable[[], bool] = lambda: False,
    ):
        """Starts the threads.

        Args:
          trackers: by name.
          sent: the last step of each split that each has got before. What a killed
            process sent after its last save comes again, and is left out.
          is_lost: tells, in the end, whether another process goes on with the run. The
            trackers' runs are then its own, and it says how they end.
        """
        self._lines = [
            _Line(name, tracker, (sent or {}).get(name, {}))
            for name, tracker in trackers.items()
        ]
        self._is_lost = is_lost
        self._lock = threading.RLock()
        self._is_closed = False

    def write_scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Hands over one point of each curve; returns at once.

        Args:
          split: `train` or `eval`.
          step: steps done.
          values: finite ones, by tag.
        """
        if self._is_closed:
            return
        named = {f"{split}/{tag}": float(value) for tag, value in values.items()}
        for line in self._lines:
            line.put(split, step, named)

    def close(self, status: tracker_lib.Status, *, secs: float = _CLOSE_SECS) -> None:
        """Says how the run has ended; the first call counts, from whatever thread.

        A run that another process goes on with has not ended: of it, nothing is said.

        Args:
          status: how.
          secs: how long to wait for what is still to send. A second call waits for it,
            too, and no longer than it says itself.
        """
        deadline = time.monotonic() + secs
        with self._lock:
            if self._lines and not self._is_closed:
                told = None if self._is_lost() else status
                for line in self._lines:
                    line.end(told)
            self._is_closed = True
        for line in self._lines:
            line.wait(deadline - time.monotonic())


class _Line:
    """The way to one tracker."""

    def __init__(
        self, name: str, tracker: tracker_lib.Tracker, sent: Mapping[str, int]
    ):
        self._name = name
        self._tracker = tracker
        self._sent = sent
        self._queue = queue.SimpleQueue()
        self._has_warned = False
        # A daemon: a server that never answers must not keep the process.
        self._thread = threading.Thread(
            target=self._work, daemon=True, name=f"tracker {name}"
        )
        self._thread.start()

    def put(self, split: str, step: int, values: Mapping[str, float]) -> None:
        if step <= self._sent.get(split, -1):
            return
        self._queue.put(lambda: self._tracker.log(step, values))

    def end(self, status: tracker_lib.Status | None) -> None:
        """Ends the thread; without a status, the tracker's run stays open."""
        if status:
            self._queue.put(lambda: self._tracker.close(status))
        self._queue.put(None)

    def wait(self, secs: float) -> None:
        self._thread.join(max(secs, 0))
        if self._thread.is_alive():
            self._warn("it takes too long")

    def _work(self) -> None:
        while call := self._queue.get():
            try:
                call()
            except Exception as error:  # Of whatever kind a foreign package has.
                self._warn(error)

    def _warn(self, reason: object) -> None:
        if not self._has_warned:
            logging.warning(
                "%s does not take what this run sends (%s); points are missing there, "
                "and the run goes on. MODEL_DIR has all of them.",
                self._name,
                reason,
            )
        self._has_warned = True
