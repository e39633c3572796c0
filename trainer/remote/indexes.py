"""What a local copy knows of its files, and of the remote files that they equal."""

import hashlib
import json
import pathlib
import threading
import uuid
from typing import NamedTuple

from trainer import files


class _State(NamedTuple):
    """A local file at some moment.

    Attributes:
      size: in bytes.
      modified_ns: its time of change.
      sha256: of what it holds.
    """

    size: int
    modified_ns: int
    sha256: str


class Index:
    """The states in which files were last the same here and there, on disk as JSON.

    Attributes:
      copy_id: random; no two copies have the same.
      token: of the lock that a process of this copy took last.
      is_trained_in: whether a trainer may have left files here that are not there; none
        has if the remote files have counted since.
    """

    def __init__(self, path: pathlib.Path, url: str):
        """Makes an empty index; touches no file."""
        self._path, self._url = path, url
        self._files: dict[str, tuple[_State, str]] = {}
        self._busy = threading.Lock()
        self.copy_id, self.token = uuid.uuid4().hex, ""
        self.is_trained_in = False

    def read(self) -> None:
        """Reads what was written; a file that says nothing is as none."""
        try:
            values = json.loads(self._path.read_bytes())
            found = {
                name: (_State(int(size), int(time), str(sha256)), str(tag))
                for name, (size, time, sha256, tag) in values["files"].items()
            }
            copy_id, token = str(values["copy"]), str(values["token"])
            is_trained_in = bool(values.get("is_trained_in", False))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._files, self.copy_id, self.token = found, copy_id, token
        self.is_trained_in = is_trained_in

    def write(self) -> None:
        """Writes the index.

        Raises:
          errors.WriteError: if that fails.
        """
        values = {
            "url": self._url,
            "copy": self.copy_id,
            "token": self.token,
            "is_trained_in": self.is_trained_in,
            "files": {
                name: [*state, tag] for name, (state, tag) in self._files.items()
            },
        }
        # If the host goes down and it is lost, files are compared and moved once more.
        text = json.dumps(values, indent=0)
        files.write_bytes(self._path, text.encode(), is_synced=False)

    def names(self) -> set[str]:
        """Returns the names of all files that it knows."""
        return set(self._files)

    def tag_of(self, name: str) -> str:
        """Returns the tag of the remote file; empty if it is not known."""
        return self._files[name][1] if name in self._files else ""

    def is_clean(self, name: str, path: pathlib.Path) -> bool:
        """Tells whether a local file holds what the remote one held."""
        if name not in self._files:
            return False
        state, tag = self._files[name]
        try:
            status = path.stat()
            if status.st_size != state.size:
                return False
            if status.st_mtime_ns == state.modified_ns:
                return True
            present = state_of(path)
        except FileNotFoundError:
            return False
        if present.sha256 != state.sha256:
            return False
        self._files[name] = present, tag  # Not to read it again the next time.
        return True

    def note(
        self,
        name: str,
        path: pathlib.Path,
        tag: str,
        *,
        state: _State | None = None,
    ) -> None:
        """Notes that a file is the same here and there; any thread may call it.

        Args:
          name: of the file.
          path: of the local one.
          tag: of the remote one.
          state: of the local one when it was read; None: as it is.
        """
        state = state or state_of(path)
        with self._busy:
            self._files[name] = state, tag

    def forget(self, name: str) -> None:
        """Forgets a file."""
        self._files.pop(name, None)


def state_of(path: pathlib.Path) -> _State:
    """Looks at a file, and reads it.

    Raises:
      OSError: if it cannot be read.
    """
    status = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _State(status.st_size, status.st_mtime_ns, digest)
