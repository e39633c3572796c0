"""The folder of a run."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from trainer import errors, files

_FOLDERS = ("checkpoints", "train", "eval", "hparams")
_PATTERN_CHARACTERS = frozenset("*?[\\")
"""TensorFlow takes the path of a checkpoint that it reads for a pattern."""
_REHEARSAL = ".rehearsal"


def make(path: str) -> pathlib.Path:
    """Makes the model dir and tries to write there, before any work is done.

    Raises:
      errors.ConfigError: if that is not possible.
      errors.WriteError: if there is no room.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if files.is_full(error):
            raise files.explain(folder, error) from error
        raise errors.ConfigError(
            f"--model_dir={folder}: this folder cannot be written ({error.strerror}); "
            "name another."
        ) from error
    return folder


def clear(folder: pathlib.Path) -> None:
    """Makes way for a training: sets aside files that stand where folders belong.

    Call it with the lock of the folder held.

    Raises:
      errors.CheckpointError: if a folder is a link that leads nowhere.
      errors.WriteError: if a file cannot be renamed.
    """
    files.remove_left_over(folder)
    _remove_rehearsal(folder)
    for name in _FOLDERS:
        path = folder / name
        if path.is_dir():
            files.remove_left_over(path)
        elif path.is_symlink():
            raise errors.CheckpointError(
                f"{path} is a link to {os.readlink(path)}, which is no folder that is "
                "there; is its disk mounted? Mend or remove the link."
            )
        elif path.exists():
            files.set_aside(path)


@contextlib.contextmanager
def rehearsing(model_dir: str, *, is_chief: bool) -> Iterator[pathlib.Path]:
    """Gives a folder for what is written only to see how long that takes.

    Args:
      model_dir: the folder of the run, which is on the disk that counts.
      is_chief: whether this process writes; the others only get a path.

    Yields:
      The folder, which is removed in the end; a killed process leaves it to `clear`.
    """
    folder = pathlib.Path(model_dir)
    if is_chief:
        _remove_rehearsal(folder)
        files.make_folder(folder / _REHEARSAL)
    try:
        yield folder / _REHEARSAL
    finally:
        if is_chief:
            _remove_rehearsal(folder)


def _remove_rehearsal(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / _REHEARSAL, ignore_errors=True)


@contextlib.contextmanager
def readable_by_tensorflow(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path of a folder in which nothing is a pattern to TensorFlow.

    Yields:
      The folder itself, or, where its path has one of the characters *?[\\, a link to
      it elsewhere.
    """
    if not _PATTERN_CHARACTERS & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="segloop-") as temporary:
        link = pathlib.Path(temporary) / "folder"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link
