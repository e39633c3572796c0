"""Folders that are there whole or not at all.

A folder that is being filled has another name, and its process keeps it locked. The
system unlocks it when the process ends, however it ends, and the next one to publish
anything beside it removes it.

No call that all file systems know exchanges two folders. An older one is therefore
renamed before the new one takes its name; if that fails, or the process is killed
between the two, it gets its name back, then by the next one to publish.
"""

import contextlib
import os
import pathlib
import time
import uuid
from collections.abc import Iterator

from data.stores import file_locks
from trainer import errors, files
from trainer.exporting import description

_PREFIX = ".partial-"
_OLDER_PREFIX = ".older-"
"""Of a folder that another one is about to replace: before its name, and before what
follows `_PREFIX` in the name of the other."""
_HEX = "[0-9a-f]" * 32
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
        files.remove(stage)
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
        older = _older_of(stage, folder)
        try:
            if os.path.lexists(folder):
                folder.rename(older)
            stage.rename(folder)
        finally:
            _settle(older, folder)
        files.sync(folder.parent)


def _older_of(stage: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Returns the name of an older folder until the stage has taken its place."""
    number = stage.name.removeprefix(_PREFIX)
    return folder.with_name(f"{_OLDER_PREFIX}{folder.name}-{number}")


def _settle(older: pathlib.Path, folder: pathlib.Path) -> None:
    """Puts an older folder back if nothing took its place, and else removes it."""
    with contextlib.suppress(OSError):
        if not os.path.lexists(folder):
            older.rename(folder)
            return
        # First another name: one that is removed in part must not be put back.
        left_over = _new_name(folder.parent)
        older.rename(left_over)
        files.remove(left_over)


def _new_name(parent: pathlib.Path) -> pathlib.Path:
    return parent / f"{_PREFIX}{uuid.uuid4().hex}"


def _make_stage(parent: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Makes an empty folder and locks it; returns it, and what closing unlocks."""
    while True:
        stage = _new_name(parent)
        with files.explaining(stage):
            stage.mkdir()
            # Somebody may take it for left over until it is locked.
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(stage, os.O_RDONLY)
                if file_locks.try_lock(descriptor) is not False and stage.exists():
                    return stage, descriptor
                os.close(descriptor)


def _remove_left_over(folder: pathlib.Path) -> None:
    """Removes what killed processes left of the folders that they were filling.

    What they were about to replace is put back.
    """
    for older in folder.glob(f"{_OLDER_PREFIX}*-{_HEX}"):
        name, _, number = older.name.removeprefix(_OLDER_PREFIX).rpartition("-")
        with _left_over(folder / f"{_PREFIX}{number}") as is_left_over:
            if is_left_over:
                _settle(older, folder / name)
    for path in folder.glob(f"{_PREFIX}{_HEX}"):
        with _left_over(path) as is_left_over:
            if is_left_over:
                files.remove(path)


@contextlib.contextmanager
def _left_over(stage: pathlib.Path) -> Iterator[bool]:
    """Tells whether nobody fills a folder any more; if so, nobody else removes it."""
    try:
        descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # It was published, or has been removed.
        yield True
        return
    except OSError:
        yield False
        return
    try:
        is_left_over = file_locks.try_lock(descriptor)
        if is_left_over is None:
            age = time.time() - os.fstat(descriptor).st_mtime
            is_left_over = age > _LEFT_OVER_SECS
        yield is_left_over
    finally:
        os.close(descriptor)
