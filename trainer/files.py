"""Writing files of a run: whole or not at all, and with an error in the user's words.

A process that is killed, and a disk that fills up, leave the older file as it was.
"""

import contextlib
import errno
import io
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator

from absl import logging

from data.stores import file_locks
from trainer import errors

_PARTIAL_PREFIX = ".partial-"
_LEFT_OVER_SECS = 3600
"""Nobody writes a file for so long; the process that began it was killed."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(
    path: str | os.PathLike, data: bytes, *, is_synced: bool = True
) -> None:
    """Writes a file under another name, and renames it when it is whole.

    Args:
      path: of the file.
      data: what it shall hold.
      is_synced: whether to wait for the disk, so that it is whole after the host went
        down, too.

    Raises:
      errors.WriteError: if that fails; the file is then as it was before.
    """
    path = pathlib.Path(path)
    partial = partial_of(path)
    with explaining(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                if is_synced:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)  # It may hold the last free space.
            raise


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """Returns a name for a file until it is whole; see `remove_left_over`."""
    # Not named after the process: in a container its id is that of others, too. Nor
    # after the file: TensorBoard would read a half written event file.
    return path.with_name(f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}")


def is_partial(name: str) -> bool:
    """Tells whether a file's name is one that `partial_of` makes."""
    return name.startswith(_PARTIAL_PREFIX)


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_lines(text: bytes) -> list[dict]:
    """Returns the objects in a file of JSON lines.

    What is none is left out: of its line, a killed process may have written half.
    """
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [value for value in found if isinstance(value, dict)]


def append_line(path: str | os.PathLike, line: str) -> None:
    """Appends one line to a file of lines, to which other processes may append, too.

    Args:
      path: of the file, which is made if it is not there.
      line: without its end.

    Raises:
      errors.WriteError: if that fails; the file then holds no part of the line.
    """
    path = pathlib.Path(path)
    with explaining(path), _locked(path) as file:
        # NFS appends where the file ended when this host looked last, and a long line
        # may be written in parts.
        size = file.seek(0, os.SEEK_END)
        rest = line.encode() + b"\n"
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            rest = b"\n" + rest  # A killed process has left half a line.
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
                if not size:
                    path.unlink()
            raise


def change_lines(path: str | os.PathLike, change: Callable[[bytes], bytes]) -> None:
    """Changes a file of lines, to which other processes may append meanwhile.

    Args:
      path: of the file, which is made if it is not there.
      change: from what the file holds to what it shall hold.

    Raises:
      errors.WriteError: if that fails; the file is then as it was before.
    """
    path = pathlib.Path(path)
    with explaining(path), _locked(path):
        lines = path.read_bytes()
        if (changed := change(lines)) != lines:
            write_bytes(path, changed)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[io.FileIO]:
    """Opens a file to append to it, and locks it against all others who do so."""
    while True:
        # Without a buffer, which would write the rest of a failed line when it is
        # closed.
        with path.open("a+b", buffering=0) as file:
            file_locks.wait_for_lock(file.fileno())
            # Whoever had it locked may have put another file into its place.
            if path.exists() and os.path.samefile(file.fileno(), path):
                yield file
                return


def remove_left_over(folder: str | os.PathLike) -> None:
    """Removes what killed processes left of the files that they were writing.

    Only old ones: another process may be writing beside this one.
    """
    for partial in pathlib.Path(folder).glob(f"{_PARTIAL_PREFIX}{'[0-9a-f]' * 32}"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _LEFT_OVER_SECS:
                partial.unlink()


def remove(path: pathlib.Path) -> None:
    """Removes a folder, or a file of its name, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def set_aside(path: str | os.PathLike, *, name: str = "") -> pathlib.Path:
    """Renames what is in the way, which may still hold something for somebody.

    Args:
      path: of the file or folder.
      name: what the new name begins with; empty: as the old one.

    Returns:
      The new path, in the same folder.

    Raises:
      errors.WriteError: if it cannot be renamed.
    """
    path = pathlib.Path(path)
    number = 1
    while os.path.lexists(
        aside := path.with_name(f"{name or path.name}.damaged-{number}")
    ):
        number += 1
    with explaining(path):
        path.rename(aside)
    logging.warning("Set %s aside as %s.", path, aside.name)
    return aside


@contextlib.contextmanager
def explaining(path: str | os.PathLike) -> Iterator[None]:
    """Turns errors of the file system into those of `explain`."""
    try:
        yield
    except errors.WriteError:
        raise
    except OSError as error:
        raise explain(path, error) from error


def explain(path: str | os.PathLike, error: OSError) -> errors.WriteError:
    """Returns the error of a file that cannot be written, in the user's words."""
    path = pathlib.Path(path)
    return errors.WriteError(
        f"{path} could not be written ({error.strerror or error}); make room in "
        f"{path.parent}, or see that it can be written, and start again."
    )


def is_full(error: Exception) -> bool:
    """Whether an error says that there is no room, on the disk or for this user."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # TensorFlow has kinds of errors of its own, without a number; other processes, and
    # HDF5, have their words alone.
    return any(os.strerror(number) in str(error) for number in _FULL)


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder, and those around it, where there is none.

    Raises:
      errors.WriteError: if that fails.
    """
    path = pathlib.Path(path)
    with explaining(path):
        path.mkdir(parents=True, exist_ok=True)
