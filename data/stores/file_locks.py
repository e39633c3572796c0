"""Locks on open files, which the system gives back when their process ends."""

import contextlib
import fcntl
import os
import pathlib
import socket

_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")


def try_lock(descriptor: int) -> bool | None:
    """Locks an open file against all other openings of it, without waiting.

    Args:
      descriptor: of the file; closing it, or the end of the process, unlocks it.

    Returns:
      True: it is locked now; False: another opening has it locked; None: this file
      system knows no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def wait_for_lock(descriptor: int) -> None:
    """Waits for whoever has an open file locked, then locks it against all others.

    Where a file system knows no locks, it does nothing.

    Args:
      descriptor: of the file.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def share_lock(descriptor: int) -> None:
    """Waits for whoever has an open file locked, then locks it together with others.

    Where a file system knows no locks, it does nothing.

    Args:
      descriptor: of the file; its own lock of `try_lock`, if it has it, becomes this.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def place_of(descriptor: int) -> str:
    """Names the running system and the file system of an open file.

    Whoever sees a file in the same place sees all locks on it, in other containers,
    too. Whether another host sees them depends on the file system; and the same host
    after its next boot is another place.
    """
    try:
        system = _BOOT_ID.read_text().strip()
    except OSError:  # Not Linux.
        system = socket.gethostname()
    return f"{system}:{os.fstat(descriptor).st_dev}"
