"""The folder of a run."""

import pathlib
import tempfile

from trainer import errors


def make(path: str) -> pathlib.Path:
    """Makes the model dir and tries to write there, before any work is done.

    Raises:
      errors.ConfigError: if that is not possible.
    """
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise errors.ConfigError(
            f"--model_dir={folder}: this folder cannot be written ({error.strerror}); "
            "name another."
        ) from error
    return folder
