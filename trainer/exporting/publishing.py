"""Folders that are there whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterator

from trainer import files

_PREFIX = ".partial-"
_LEFT_OVER_SECS = 3600
"""No export takes so long; the process that began it was killed."""


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
    stage = folder.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
    files.make_folder(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def publish(stage: pathlib.Path, folder: pathlib.Path) -> None:
    """Puts a finished folder into the place of what may be there already.

    Raises:
      errors.WriteError: if that fails.
    """
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
        shutil.rmtree(older, ignore_errors=True)


def _remove_left_over(folder: pathlib.Path) -> None:
    """Removes what killed processes left of the folders that they were filling."""
    for path in folder.glob(f"{_PREFIX}{'[0-9a-f]' * 32}"):
        with contextlib.suppress(OSError):
            if path.is_dir() and time.time() - path.stat().st_mtime > _LEFT_OVER_SECS:
                shutil.rmtree(path)
