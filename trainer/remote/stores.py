"""Folders behind URLs: one small interface, and what all kinds of them share.

`gs://` and `ram://` go through TensorFlow's file systems, all others through fsspec.
Whatever a library raises, callers see `OSError`. What fails is tried again, with a
warning, before it is an error.
"""

import abc
import contextlib
import importlib
import io
import os
import pathlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple, TypeVar

from absl import logging

from trainer import files

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://.")
_BROKEN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/[^/]")
"""Of two letters and more: C:/ is another thing."""
_OF_TENSORFLOW = ("gs", "ram")
_WAIT_SECS = (1.0, 4.0, 15.0)
"""Between the tries of what fails."""

_T = TypeVar("_T")


class Entry(NamedTuple):
    """What a folder says of one of its files.

    Attributes:
      size: in bytes.
      tag: another text for another content, as far as the kind of folder can tell.
      modified: when the file was written, in seconds since 1970; 0: nobody knows.
    """

    size: int
    tag: str
    modified: float = 0.0


class Store(abc.ABC):
    """A folder behind a URL; files have names like `checkpoints/step-1/state.index`.

    All methods raise `FileNotFoundError` for a file that is not there, where nothing
    else is said, `io.UnsupportedOperation` for what its kind of folder cannot do, and
    `OSError` for all else that fails.
    """

    _WHOLE_SCHEMES: ClassVar[tuple[str, ...]] = ()
    """Of URLs whose files appear when they are whole; there, a rename copies all the
    bytes."""

    def __init__(self, url: str):
        """Makes a store; touches no file."""
        self.url = url.rstrip("/")

    def list(self) -> dict[str, Entry]:
        """Returns all files, those of inner folders too; none if it is not there."""
        return self._patiently("listing it", self._list)

    def look(self, name: str) -> Entry:
        """Returns what there is to say of one file."""
        return self._patiently(f"looking at {name}", lambda: self._look(name))

    def get(self, name: str, path: pathlib.Path, entry: Entry) -> None:
        """Downloads a file, whole or not at all, with its time of change.

        Args:
          name: of the file.
          path: to be written.
          entry: of the file; another size counts as a file that is gone.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = files.partial_of(path)
        try:
            self._patiently(f"reading {name}", lambda: self._get(name, partial))
            if partial.stat().st_size != entry.size:
                raise FileNotFoundError(f"{name} is another file now")
            if entry.modified:
                os.utime(partial, (entry.modified, entry.modified))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def put(self, path: pathlib.Path, name: str) -> Entry:
        """Uploads a file, whole or not at all, in place of an older one."""
        self._patiently(
            f"writing {name}",
            lambda: self._replace(name, lambda target: self._put(path, target)),
        )
        return self.look(name)

    def read(self, name: str) -> bytes | None:
        """Returns what a small file holds; None if it is not there."""
        try:
            return self._patiently(f"reading {name}", lambda: self._read(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file, in place of an older one."""
        self._patiently(
            f"writing {name}",
            lambda: self._replace(name, lambda target: self._write(target, data)),
        )

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently(f"deleting {name}", lambda: self._delete(name))

    @property
    def _writes_whole(self) -> bool:
        return scheme_of(self.url) in self._WHOLE_SCHEMES

    def _replace(self, name: str, write: Callable[[str], None]) -> None:
        """Lets a file appear when it is whole.

        Args:
          name: of the file.
          write: writes the file of the name that it gets.
        """
        if self._writes_whole:
            write(name)
            return
        folder, slash, _ = name.rpartition("/")
        partial = f"{folder}{slash}.partial-{uuid.uuid4().hex}"
        write(partial)
        self._rename(partial, name)

    def _patiently(self, deed: str, call: Callable[[], _T]) -> _T:
        """Does something again and again, until it works or there is no hope."""
        for wait_secs in (*_WAIT_SECS, None):
            try:
                with self._translating():
                    return call()
            except (FileNotFoundError, PermissionError, io.UnsupportedOperation):
                raise
            except OSError as error:
                if wait_secs is None or files.is_full(error):
                    raise
                logging.warning(
                    "%s: %s failed (%s); trying again in %.0f s.",
                    self.url,
                    deed,
                    error,
                    wait_secs,
                )
                time.sleep(wait_secs)
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            kind = self._kind_of(error)
            raise kind(f"{type(error).__name__}: {error}") from error

    @abc.abstractmethod
    def _kind_of(self, error: Exception) -> type[OSError]:
        """Returns what an error of the library is as one of Python."""

    @abc.abstractmethod
    def _list(self) -> dict[str, Entry]: ...

    @abc.abstractmethod
    def _look(self, name: str) -> Entry: ...

    @abc.abstractmethod
    def _get(self, name: str, path: pathlib.Path) -> None: ...

    @abc.abstractmethod
    def _put(self, path: pathlib.Path, name: str) -> None: ...

    @abc.abstractmethod
    def _read(self, name: str) -> bytes: ...

    @abc.abstractmethod
    def _write(self, name: str, data: bytes) -> None: ...

    @abc.abstractmethod
    def _rename(self, old: str, new: str) -> None: ...

    @abc.abstractmethod
    def _delete(self, name: str) -> None: ...


def scheme_of(path: str) -> str:
    """Returns what stands before the `://` of a URL; empty for a path."""
    match = _URL.match(path)
    return match[1] if match else ""


def is_broken(path: str) -> bool:
    """Whether a path is a URL that has lost one of its slashes."""
    return bool(_BROKEN_URL.match(path)) and not os.path.exists(path.split("/")[0])


def open_store(url: str, flag: str) -> Store:
    """Makes the store of a URL; touches none of its files.

    Args:
      url: `SCHEME://...`.
      flag: the setting that names it.

    Raises:
      errors.ConfigError: if the scheme is unknown, or needs a package that is not
        installed.
      errors.RemoteError: if a server is asked at once, and does not answer.
    """
    kind = "gfile" if scheme_of(url) in _OF_TENSORFLOW else "fsspec"
    # TensorFlow is slow to import, and fsspec may not be there.
    module = importlib.import_module(f"trainer.remote.{kind}_store")
    return module.open_store(url, flag)
