"""A watch on the process: one that makes no progress ends, and says where it stood.

It begins with the process. Until there are steps to count, progress is that the process
computes: a start has many parts (imports, files, downloads, compilation), and one that
hangs, on a pipe without a writer or a file system that does not answer, uses no time of
the processor.
"""

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

from trainer import children, errors

_GRACE_SECS = 10
"""Longer than the watching thread takes: what still runs then holds Python's lock."""

_LOOKS_PER_ARMING = 4
"""Each look may be late, and the backstop may not come before the last one."""

_FAREWELL_SECS = 7
"""For all calls of `calling_before_end` together. It is less than `_GRACE_SECS`, which
has to suffice for the rest of what the thread does, too."""

_BUSY_SHARE = 0.002
"""A process that computes for less than this share of the time is not at work: the
watch itself and the heartbeat of the run's lock take a tenth of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Subject:
    """What is watched: `progress` changes whenever it moves on."""

    progress: Callable[[], Hashable]
    description: str


class _Watch:
    """The one watch of the process."""

    def __init__(self, timeout_secs: float, subject: _Subject):
        self._timeout_secs = timeout_secs
        self.subject = subject
        self._is_over = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, daemon=True, name="stall-watch"
        )

    def begin(self) -> None:
        self._arm()
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        # Looks are counted, not seconds: while the process is stopped, or the machine
        # stands still, nothing can make progress, and there is no look either.
        interval_secs = min(1.0, self._timeout_secs / 4)
        last, num_looks = None, 0
        while not self._is_over.wait(interval_secs):
            subject = self.subject
            now = subject, subject.progress()
            num_looks = num_looks + 1 if now == last else 0
            last = now
            if num_looks * interval_secs > self._timeout_secs:
                _end(self._timeout_secs, subject, now[1])
            if num_looks % _LOOKS_PER_ARMING == 0:
                self._arm()

    def _arm(self) -> None:
        """Sets the backstop: a thread of C, for a hang with Python's lock held.

        It ends the process if there are no more looks.
        """
        faulthandler.dump_traceback_later(
            self._timeout_secs + _GRACE_SECS, exit=True, file=sys.__stderr__
        )


_current: _Watch | None = None


@contextlib.contextmanager
def watching_start(timeout_secs: float) -> Iterator[None]:
    """Ends the process if neither it nor a child of it computes for too long.

    Args:
      timeout_secs: how long is too long; 0: no watch.
    """
    unit_secs = timeout_secs * _BUSY_SHARE

    def progress() -> int:
        return int((time.process_time() + children.computing_secs()) / unit_secs)

    with _following(timeout_secs, _Subject(progress, "no part of it computes")):
        yield


@contextlib.contextmanager
def watching(
    timeout_secs: float,
    progress: Callable[[], Hashable],
    *,
    devices: Sequence[str],
) -> Iterator[None]:
    """Ends the process if `progress` gives the same value for too long.

    Within another watch it takes that one's place.

    Args:
      timeout_secs: how long is too long; 0: no watch.
      progress: called from another thread; changes whenever the run moves on.
      devices: named in the message.
    """
    description = f"devices: {', '.join(devices)}"
    with _following(timeout_secs, _Subject(progress, description)):
        yield


_before_end: list[Callable[[], None]] = []


@contextlib.contextmanager
def calling_before_end(call: Callable[[], None]) -> Iterator[None]:
    """Has something done before a watch ends the process, if it takes some seconds.

    Args:
      call: called from another thread; one that hangs keeps nothing from ending.
    """
    _before_end.append(call)
    try:
        yield
    finally:
        _before_end.remove(call)


@contextlib.contextmanager
def _following(timeout_secs: float, subject: _Subject) -> Iterator[None]:
    global _current
    if not timeout_secs:
        yield
        return
    if _current:
        previous, _current.subject = _current.subject, subject
        try:
            yield
        finally:
            _current.subject = previous
        return
    _current = _Watch(timeout_secs, subject)
    _current.begin()
    try:
        yield
    finally:
        _current.end()
        _current = None


def _end(timeout_secs: float, subject: _Subject, progress: Hashable) -> None:
    print(
        f"Error: no progress for --stall_timeout={timeout_secs} seconds (progress: "
        f"{progress}; {subject.description}). The stacks of all threads follow. "
        "Look for a worker or a GPU that hangs, or a file or file system that does not "
        "answer; if a step or the first compilation may take that long, raise "
        "--stall_timeout. The same command goes on from the last checkpoint.",
        file=sys.__stderr__,
        flush=True,
    )
    faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    _say_farewell()
    os._exit(errors.StallError.exit_code)


def _say_farewell() -> None:
    deadline = time.monotonic() + _FAREWELL_SECS
    for call in reversed(_before_end):
        # What made the run stand still may do the same to this.
        thread = threading.Thread(target=call, daemon=True, name="stall-farewell")
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
