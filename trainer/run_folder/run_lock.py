"""One training at a time in a model dir.

MODEL_DIR/run.lock names the process that trains there; it is gone when no process does.
Two things say whether that process still lives:

- It keeps the file locked (`flock`), and the system gives this up when the process
  ends, however it ends. So a run that is started again after a SIGKILL goes on at once.
- It changes the file's time every few seconds. That counts where the lock cannot: some
  file systems have no locks, and some do not show them to other hosts. A starter that
  finds no lock, but the name of a process of another host, watches whether the time
  still changes before it takes over.

Process ids and host names come back in containers, and clocks of hosts differ. So the
process is known by a random token, one running system by its boot id, and a heartbeat
only by whether it changes while somebody watches.

A process may lose its lock: suspended for minutes, it gives no heartbeat. The token in
the file is then another one, and the process that finds this writes nothing more.

If the folder is a copy of a remote one, its run is locked there, too; see
`trainer.remote.leases`.

MODEL_DIR/watch.lock is such a lock, too, of the process that evaluates the checkpoints
of the training. Each of the two looks at the other's heartbeat alone; see `Pulse`.
"""

import contextlib
import dataclasses
import datetime
import math
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Iterator

from absl import logging

from data.stores import file_locks
from trainer import errors, files, holders
from trainer.remote import mirrors

FILE_NAME = "run.lock"
WATCH_FILE_NAME = "watch.lock"
_DEEDS = {FILE_NAME: "training", WATCH_FILE_NAME: "watching"}
"""What the holder of each lock does, for people."""
_HEARTBEAT_SECS = 5.0
_STALE_SECS = 45.0
"""A heartbeat that does not change for so long is that of a dead process."""
_POLL_SECS = 1.0
_LOOK_SECS = 2.0
"""For a look at the lock when the process ends, which may not wait for a disk."""
_SETTLE_SECS = 3.0
"""Longer than it takes from reading the file to writing it."""
_RECORD_BYTES = 1024
"""Room for a record: one write, into space that the file has from its beginning."""


@dataclasses.dataclass(frozen=True)
class _Record(holders.Holder):
    """What the file says of the process that has the lock.

    Attributes:
      place: `file_locks.place_of` the file, as the process sees it.
    """

    place: str


class RunLock:
    """The right of one process to train in a model dir, or to watch a training."""

    def __init__(self, model_dir: str | os.PathLike, file_name: str = FILE_NAME):
        """Makes a lock that is still to be acquired; touches no file."""
        self._path = pathlib.Path(model_dir) / file_name
        self._token = uuid.uuid4().hex
        self._descriptor: int | None = None
        self._is_over = threading.Event()
        self._releasing = threading.Lock()
        self._lease = mirrors.make_lease(model_dir, file_name)

    def acquire(self) -> None:
        """Takes the lock, that of a dead process too.

        Raises:
          errors.ConfigError: if another process has it.
          errors.RemoteError: if the remote folder does not answer.
          errors.WriteError: if the file cannot be written.
        """
        try:
            descriptor = self._open()
        except OSError as error:
            raise files.explain(self._path, error) from error
        self._descriptor = descriptor
        threading.Thread(target=self._beat, daemon=True, name="run-lock").start()
        if self._lease:
            try:
                self._lease.acquire(self._token)
            except BaseException:
                self.release()
                raise

    def check(self) -> None:
        """Checks that the lock is still that of this process, if it ever was.

        Raises:
          errors.LockLostError: if it is not.
        """
        if self._descriptor is None:
            return
        if self._lease:
            self._lease.check()
        try:
            holder = _read(self._path)
        except OSError:
            return  # The file system does not answer; a write will say so.
        if holder is None or holder.token != self._token:
            who = f"It has been taken over by {holder}" if holder else "It is gone"
            raise errors.LockLostError(
                f"{self._path} is no longer that of this process, which may have been "
                f"suspended. {who}. Nothing more is written; what was not saved is "
                "lost."
            )

    def is_lost(self) -> bool:
        """Tells whether another process has the lock by now.

        A remote folder is asked, too. What does not answer soon counts as a no.
        """
        found = []

        def look() -> None:
            try:
                self.check()
                if self._lease:
                    self._lease.verify()
            except errors.LockLostError as error:
                found.append(error)

        thread = threading.Thread(target=look, daemon=True, name="run-lock look")
        thread.start()
        thread.join(_LOOK_SECS)
        return bool(found)

    def release(self) -> None:
        """Gives the lock up; called again, or from another thread, it does nothing."""
        with self._releasing:
            if self._descriptor is None:
                return
            self._is_over.set()
            if self._lease:
                self._lease.release()
            with contextlib.suppress(OSError, errors.LockLostError):
                self.check()
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """Opens the file and writes this process into it; returns the descriptor."""
        while True:
            is_new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                is_locked = file_locks.try_lock(descriptor)
                if not self._is_of(descriptor):
                    continue  # Whoever held it has just released, and so removed, it.
                holder = _read(self._path)
                if is_locked is False:
                    self._refuse(holder)
                if holder and not self._is_dead(holder, descriptor, bool(is_locked)):
                    self._refuse(_read(self._path) or holder)
                if holder:
                    logging.info("Taking over from a run that died: %s.", holder)
                self._write(descriptor, is_new)
                if not is_locked:
                    self._settle()
                kept, descriptor = descriptor, None
                return kept
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    def _is_of(self, descriptor: int) -> bool:
        """Whether the open file is the one that has the name."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _is_dead(self, holder: _Record, descriptor: int, is_locked: bool) -> bool:
        if is_locked and holder.place == file_locks.place_of(descriptor):
            return True  # If it lived, it would have the lock.
        logging.info(
            "%s is of %s. Watching for %.0f s whether it still lives.",
            self._path,
            holder,
            _STALE_SECS,
        )
        first = self._beats()
        # Looks are counted, not seconds: what makes this process stand still may keep
        # the other one from its heartbeat.
        for _ in range(math.ceil(_STALE_SECS / _POLL_SECS)):
            time.sleep(_POLL_SECS)
            if self._beats() != first:
                return False
        return True

    def _settle(self) -> None:
        """Waits until those who start at the same moment have written, too.

        Without locks the last one wins; the others find its name in the file.
        """
        time.sleep(_SETTLE_SECS)
        holder = _read(self._path)
        if holder is None or holder.token != self._token:
            self._refuse(holder)

    def _beats(self) -> tuple[str, int]:
        """Returns what changes as long as the process in the file lives."""
        _, beat = _look(self._path)
        return beat

    def _write(self, descriptor: int, is_new: bool) -> None:
        place = file_locks.place_of(descriptor)
        record = _Record.of_this_process(self._token, place=place)
        text = record.format().ljust(_RECORD_BYTES - 1) + "\n"
        try:
            os.pwrite(descriptor, text.encode(), 0)
            os.fsync(descriptor)
        except OSError:
            if is_new:
                self._path.unlink(missing_ok=True)
            raise

    def _beat(self) -> None:
        while not self._is_over.wait(_HEARTBEAT_SECS):
            try:
                self.check()
                os.utime(self._path)
            except errors.LockLostError:
                return  # Not to keep alive what is another's.
            except OSError:
                continue  # A file system that fails for a moment takes no lock away.

    def _refuse(self, holder: _Record | None) -> None:
        who = str(holder) if holder else "a process that is just starting"
        with contextlib.suppress(OSError):
            seconds = self._path.stat().st_mtime
            last = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            who += f", last heartbeat {last:%Y-%m-%d %H:%M:%S} UTC"
        raise errors.ConfigError(
            f"--model_dir={self._path.parent}: another run is "
            f"{_DEEDS[self._path.name]} there ({who}); stop it, wait for its end, or "
            "name another --model_dir. Only if that process is gone for certain, "
            f"delete {self._path}."
        )


class Pulse:
    """Whether the holder of a lock lives, by the heartbeat that its file shows.

    To try the lock would be quicker, but whoever starts at that moment would take the
    one who tries for its holder.

    Attributes:
      holder: in words, who had the lock when it was last looked at; "" if nobody had.
    """

    def __init__(self, model_dir: str | os.PathLike, file_name: str = FILE_NAME):
        """Makes a pulse that nobody has felt yet; touches no file."""
        self._path = pathlib.Path(model_dir) / file_name
        self._seen: tuple[str, int] | None = None
        self._since = 0.0
        self.holder = ""

    def is_alive(self) -> bool:
        """Looks once; somebody is dead of whom too old a heartbeat is all there is.

        Who is seen for the first time lives: that takes some time to tell.
        """
        try:
            holder, beat = _look(self._path)
        except OSError:
            self._seen, self.holder = None, ""
            return False
        self.holder = str(holder) if holder else "a process that is just starting"
        if beat != self._seen:
            self._seen, self._since = beat, time.monotonic()
        return time.monotonic() - self._since < _STALE_SECS


@contextlib.contextmanager
def holding(
    model_dir: str | os.PathLike, *, is_chief: bool, file_name: str = FILE_NAME
) -> Iterator[RunLock]:
    """Holds the lock of a model dir.

    Args:
      model_dir: the folder of the run.
      is_chief: whether this process is the one of its cluster that writes; the others
        share its lock, and theirs checks nothing.
      file_name: of the lock.

    Raises:
      errors.ConfigError: if another process has it.
      errors.WriteError: if the file cannot be written.
    """
    lock = RunLock(model_dir, file_name)
    if is_chief:
        lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _look(path: pathlib.Path) -> tuple[_Record | None, tuple[str, int]]:
    """Returns who holds a lock, if the file says so, and what changes if he lives."""
    with path.open("rb") as file:  # Opening asks a server for the file anew.
        modified = os.fstat(file.fileno()).st_mtime_ns
    holder = _read(path)
    return holder, ((holder.token if holder else ""), modified)


def _read(path: pathlib.Path) -> _Record | None:
    """Reads who holds a lock; None if the file is not there or says nothing."""
    try:
        return _Record.parse(path.read_bytes())
    except FileNotFoundError:
        return None
