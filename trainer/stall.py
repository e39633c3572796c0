"""A watch on the run: one that makes no progress ends, and says where it stood."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

from trainer import errors

_GRACE_SECS = 10
"""Longer than the watching thread takes: what still runs then holds Python's lock."""


@contextlib.contextmanager
def watching(
    timeout_secs: float,
    progress: Callable[[], Hashable],
    *,
    devices: Sequence[str],
) -> Iterator[None]:
    """Ends the process if `progress` gives the same value for too long.

    Args:
      timeout_secs: how long is too long; 0: no watch.
      progress: called from another thread; changes whenever the run moves on.
      devices: named in the message.
    """
    if not timeout_secs:
        yield
        return
    is_over = threading.Event()

    def watch() -> None:
        last, since = progress(), time.monotonic()
        while not is_over.wait(min(1.0, timeout_secs / 4)):
            now = progress()
            if now != last:
                last, since = now, time.monotonic()
                # The backstop: a thread of C, for a hang with Python's lock held.
                _arm(timeout_secs + _GRACE_SECS)
            elif time.monotonic() - since > timeout_secs:
                _end(timeout_secs, last, devices)

    _arm(timeout_secs + _GRACE_SECS)
    thread = threading.Thread(target=watch, daemon=True, name="stall-watch")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


def _arm(timeout_secs: float) -> None:
    faulthandler.dump_traceback_later(timeout_secs, exit=True, file=sys.__stderr__)


def _end(timeout_secs: float, last: Hashable, devices: Sequence[str]) -> None:
    print(
        f"Error: no progress for --stall_timeout={timeout_secs} seconds (progress: "
        f"{last}; devices: {', '.join(devices)}). The stacks of all threads follow. "
        "Look for a worker or a GPU that hangs, or a file system that does not answer; "
        "if a step or the first compilation may take that long, raise "
        "--stall_timeout. The same command goes on from the last checkpoint.",
        file=sys.__stderr__,
        flush=True,
    )
    faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    os._exit(errors.StallError.exit_code)
