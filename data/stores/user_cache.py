"""The folder of a user for what can be made again."""

import os
import pathlib


def find_folder(given: str) -> pathlib.Path:
    """Returns the folder that was given, or that of this package in the user's cache.

    Raises:
      RuntimeError: if it is below the home of a user who has none.
    """
    if given:
        return pathlib.Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "segloop"
