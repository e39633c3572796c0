"""Folders that are there whole or not at all.

A folder that is being filled has another name, and its process keeps it locked. The
system unlocks it when the process ends, however it ends, and the next one to publish
anything beside it removes it.
"""

import contextlib
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterator

from data.stores import file_locks
from trainer import errors, files
from trainer.exporting import description

_PREFIX = ".partial-"
_LEFT_OVER_SECS = 3600
"""Where there are no locks: no export takes so long, its process was killed."""


@contextlib.contextmanager
def staging(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder beside one, to be filled and then published in its place.

    Args:
      folder: that shall be.

    Yields:
      An empty folder, which is removed in the end if it was not published.

    Raises:
      errors.WriteError: if it cannot be made.
    """
    files.make_folder(folder.parent)
    _remove_left_over(folder.parent)
    stage, descriptor = _make_stage(folder.parent)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(descriptor)


def check_place(folder: pathlib.Path) -> None:
    """Checks that nothing but an older export would be deleted to publish a folder.

    A link makes way, as what it leads to stays.

    Args:
      folder: that shall be; of `--export_dir`, or of its default.

    Raises:
      errors.ConfigError: if a file is there that no export wrote.
    """
    if folder.is_symlink() or not folder.exists():
        return
    other = description.find_other(folder) if folder.is_dir() else folder
    if other:
        raise errors.ConfigError(
            f"--export_dir={folder.parent}: an export would delete {other}, which no "
            "export wrote; move it away, or name another folder."
        )


def publish(stage: pathlib.Path, folder: pathlib.Path) -> None:
    """Puts a finished folder into the place of an older one, if there is one.

    Raises:
      errors.ConfigError: of `check_place`.
      errors.WriteError: if that fails.
    """
    check_place(folder)  # Again: to make the files took minutes.
    with files.explaining(folder):
        for path in [*stage.rglob("*"), stage]:
            files.sync(path)
        older = None
        if os.path.lexists(folder):
            older = folder.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
            folder.rename(older)
        stage.rename(folder)
        files.sync(folder.parent)
    if older:
        files.remove(older)


def _make_stage(parent: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Makes an empty folder and locks it; returns it, and what closing unlocks."""
    while True:
        stage = parent / f"{_PREFIX}{uuid.uuid4().hex}"
        with files.explaining(stage):
            stage.mkdir()
            # Somebody may take it for left over until it is locked.
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(stage, os.O_RDONLY)
                if file_locks.try_lock(descriptor) is not False and stage.exists():
                    return stage, descriptor
                os.close(descriptor)


def _remove_left_over(folder: pathlib.Path) -> None:
    """Removes what killed processes left of the folders that they were filling."""
    for path in folder.glob(f"{_PREFIX}{'[0-9a-f]' * 32}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                is_left_over = file_locks.try_lock(descriptor)
                if is_left_over is None:
                    age = time.time() - os.fstat(descriptor).st_mtime
                    is_left_over = age > _LEFT_OVER_SECS
                if is_left_over:
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)
