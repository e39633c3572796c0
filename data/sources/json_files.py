"""JSON files in a folder, as tools that draw outlines write them."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from data import schema


def find(data_dir: str) -> Iterator[str]:
    """Yields the path of each, relative to the folder, a folder after the other."""
    for top, folders, names in os.walk(data_dir):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(".json") and not name.startswith("."):
                yield os.path.relpath(os.path.join(top, name), data_dir)


def read(path: str) -> Any:
    """Reads a file, which may begin with a byte order mark."""
    with open(path, encoding="utf-8-sig") as file:
        return json.load(file)


@contextlib.contextmanager
def reading(path: str, data_dir: str) -> Iterator[None]:
    """Names the file, and the way on, where it cannot be read.

    Raises:
      schema.DataError: in place of what JSON or the file system raises.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise schema.DataError(
            f"{path} in --data_dir={data_dir} cannot be read ({error}); get it "
            "again, or take it away.",
            kind="unreadable_file",
        ) from error
