"""What a remote folder that cannot be used is in the user's words."""

import contextlib
import io
import os
import pathlib
from collections.abc import Iterator

from trainer import errors, files
from trainer.settings import fields


@contextlib.contextmanager
def explaining(
    flag: str, url: str, cache: pathlib.Path | None = None
) -> Iterator[None]:
    """Turns errors of a remote folder into those of a setting.

    Args:
      flag: the setting that names it.
      url: its value.
      cache: the local folder that is written meanwhile, if one is.

    Raises:
      errors.ConfigError: if it is not there, or cannot or may not be used.
      errors.RemoteError: if it does not answer, so that another try may help.
      errors.WriteError: if the local folder cannot be written.
    """
    try:
        yield
    except errors.RunError:
        raise
    except OSError as error:
        if cache and (files.is_full(error) or _is_below(cache, error)):
            raise errors.WriteError(
                f"{cache} has the copies of remote folders, and cannot be written "
                f"({error}); make room there, or name another folder by the variable "
                "SEGLOOP_CACHE."
            ) from error
        if isinstance(error, FileNotFoundError | PermissionError):
            fields.reject(
                flag,
                url,
                f"it is not there, or this machine may not use it ({error}); name "
                "another, or give the right credentials",
            )
        if isinstance(error, io.UnsupportedOperation):
            fields.reject(
                flag,
                url,
                f"this kind of folder cannot do what is needed ({error}); use gs:// or "
                "s3://",
            )
        raise errors.RemoteError(
            f"--{flag}={url}: it does not answer ({error}); see that this machine "
            "reaches it, with the right credentials, and start again."
        ) from error


def _is_below(folder: pathlib.Path, error: OSError) -> bool:
    """Whether an error is of a file in a folder, or of a folder around it."""
    name = error.filename
    if not isinstance(name, str) or not os.path.isabs(name):
        return False
    path = pathlib.Path(name)
    return path.is_relative_to(folder) or folder.is_relative_to(path)
