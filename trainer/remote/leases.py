"""One training at a time in a remote folder, as well as such a folder can tell.

The file run.lock there names the process that trains, and a number in it grows as long
as that process lives. Whoever finds it watches whether it changes. A process of the
same copy needs no watching: whoever holds the lock of the copy knows that it is dead.
Two that start in the same second both write; the one whose name is in the file goes on.
"""

import contextlib
import dataclasses
import math
import threading
import time

from absl import logging

from trainer import errors, holders
from trainer.remote import copies, failures

_HEARTBEAT_SECS = 15.0
_STALE_SECS = 90.0
"""A heartbeat that does not change for so long is that of a dead process."""
_POLL_SECS = 5.0
_RELEASE_SECS = 5.0


@dataclasses.dataclass(frozen=True)
class _Record(holders.Holder):
    """What the file says of the process that trains.

    Attributes:
      beat: grows as long as it lives.
    """

    beat: int = 0


class Lease:
    """The right of one process to train in a remote folder."""

    def __init__(self, copy: copies.Copy, name: str):
        """Makes a lease that is still to be acquired; touches no file.

        Args:
          copy: of the remote folder.
          name: of the file there.
        """
        self._copy, self._name = copy, name
        self._record: _Record | None = None
        self._lost: _Record | str = ""
        self._is_over = threading.Event()
        self._writing = threading.Lock()

    def acquire(self, token: str) -> None:
        """Takes the lease, that of a dead process too.

        Call it with the lock of the local copy held.

        Args:
          token: of the process.

        Raises:
          errors.ConfigError: if another process has it, or the folder is not there.
          errors.RemoteError: if the folder does not answer.
        """
        url = self._copy.store.url
        with failures.explaining("model_dir", url):
            holder = self._read()
            if holder and holder.token != self._copy.index.token:
                self._wait_for_death(holder)
            self._record = _Record.of_this_process(token)
            self._copy.index.token = token
            self._copy.index.write()
            self._write()
        self._copy.guard = self.verify
        threading.Thread(target=self._beat, daemon=True, name="lease").start()

    def check(self) -> None:
        """Checks that nobody else was found to have the lease; asks nobody.

        Raises:
          errors.LockLostError: if somebody was.
        """
        if self._lost:
            raise errors.LockLostError(
                f"{self._copy.store.url}/{self._name} is no longer that of this "
                f"process, which may have been suspended or cut off. {self._lost}. "
                "Nothing more is written; what was not published is in "
                f"{self._copy.folder}."
            )

    def verify(self) -> None:
        """Asks whether this process still has the lease, if it ever had.

        Raises:
          errors.LockLostError: if it has not.
        """
        if self._record is None:
            return
        with contextlib.suppress(OSError):  # Publishing itself will say so.
            self._look()
        self.check()

    def release(self) -> None:
        """Gives the lease up; called again, it does nothing."""
        if self._record is None:
            return
        self._is_over.set()
        # The heartbeat may just be trying to reach what does not answer.
        if self._writing.acquire(timeout=_RELEASE_SECS):
            with contextlib.suppress(OSError):
                self._look()
                if not self._lost:
                    self._copy.store.delete(self._name)
        self._record = None

    def _beat(self) -> None:
        while not self._is_over.wait(_HEARTBEAT_SECS):
            with self._writing, contextlib.suppress(OSError):
                if self._is_over.is_set():
                    return
                self._look()
                if self._lost:
                    return  # Not to keep alive what is another's.
                self._write()

    def _look(self) -> None:
        """Finds out whether the file still names this process."""
        holder = self._read()
        if holder is None:
            self._lost = "It is gone"
        elif self._record and holder.token != self._record.token:
            self._lost = f"It has been taken over by {holder}"

    def _read(self) -> _Record | None:
        return _Record.parse(self._copy.store.read(self._name) or b"")

    def _write(self) -> None:
        record = dataclasses.replace(self._record, beat=self._record.beat + 1)
        self._copy.store.write(self._name, record.format().encode())
        self._record = record

    def _wait_for_death(self, holder: _Record) -> None:
        """Watches a process until it counts as dead.

        Raises:
          errors.ConfigError: if it lives.
        """
        url = self._copy.store.url
        logging.info(
            "%s/%s is of %s. Watching for %.0f s whether it still lives.",
            url,
            self._name,
            holder,
            _STALE_SECS,
        )
        # Looks are counted, not seconds, as in `trainer.run_folder.run_lock`.
        for _ in range(math.ceil(_STALE_SECS / _POLL_SECS)):
            time.sleep(_POLL_SECS)
            found = self._read()
            if found is None:
                return  # It has ended.
            if found != holder:
                raise errors.ConfigError(
                    f"--model_dir={url}: another run is training there ({found}); "
                    "stop it, wait for its end, or name another --model_dir. Only if "
                    f"that process is gone for certain, delete {url}/{self._name}."
                )
        logging.info("Taking over from a run that died: %s.", holder)
