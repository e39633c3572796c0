"""Writing files of a run: whole or not at all, and with an error in the user's words.

A process that is killed, and a disk that fills up, leave the older file as it was.
"""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

from trainer import errors


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file under another name, syncs and renames it.

    Raises:
      errors.WriteError: if that fails; the file is then as it was before.
    """
    path = pathlib.Path(path)
    # Not named after the process: in a container its id is that of others, too.
    partial = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex}")
    with _explaining(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)  # It may hold the last free space.
            raise


def append_line(path: str | os.PathLike, line: str) -> None:
    """Appends one line to a file of lines.

    Args:
      path: of the file, which is made if it is not there.
      line: without its end.

    Raises:
      errors.WriteError: if that fails; the file then holds no part of the line.
    """
    path = pathlib.Path(path)
    with _explaining(path), path.open("ab") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            file.write(line.encode() + b"\n")
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), size)
            raise


@contextlib.contextmanager
def _explaining(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.WriteError(
            f"{path} could not be written ({error.strerror or error}); make room in "
            f"{path.parent}, or see that it can be written, and start again."
        ) from error


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder, and those around it, where there is none.

    Raises:
      errors.WriteError: if that fails.
    """
    path = pathlib.Path(path)
    with _explaining(path):
        path.mkdir(parents=True, exist_ok=True)
