"""What a remote folder that cannot be used is in the user's words."""

import contextlib
from collections.abc import Iterator

from trainer import errors
from trainer.settings import fields


@contextlib.contextmanager
def explaining(flag: str, url: str) -> Iterator[None]:
    """Turns errors of a remote folder into those of a setting.

    Args:
      flag: the setting that names it.
      url: its value.

    Raises:
      errors.ConfigError: if it is not there, or may not be used.
      errors.RemoteError: if it does not answer, so that another try may help.
    """
    try:
        yield
    except errors.RunError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        fields.reject(
            flag,
            url,
            f"it is not there, or this machine may not use it ({error}); name another, "
            "or give the right credentials",
        )
    except OSError as error:
        raise errors.RemoteError(
            f"--{flag}={url}: it does not answer ({error}); see that this machine "
            "reaches it, with the right credentials, and start again."
        ) from error
