"""Files of flags, one a line."""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trainer import errors

_FLAG = "flagfile"
_COMMENTS = ("#", "//")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OUR_FOLDERS = (
    os.path.join(_PACKAGE, "flagfiles"),  # Where setup.py installs them to.
    os.path.join(os.path.dirname(_PACKAGE), "launch", "flagfiles"),
)


class Part(NamedTuple):
    """The lines of a flagfile between those that name other flagfiles.

    Attributes:
      path: of the file.
      lines: those with flags.
    """

    path: str
    lines: list[str]


def split(arguments: Sequence[str]) -> tuple[list[str], list[Part]]:
    """Splits a command line into what is typed, and what its flagfiles say, in order.

    Raises:
      errors.ConfigError: if a flagfile cannot be read.
    """
    typed, parts = [], []
    for argument in _join_path(arguments):
        if path := _path_of(argument):
            parts += _read(path, ())
        else:
            typed.append(argument)
    return typed, parts


def list_ours() -> list[str]:
    """Returns the names of the flagfiles that come with this package."""
    names = []
    for folder in filter(os.path.isdir, _OUR_FOLDERS):
        names += [name for name in os.listdir(folder) if name.endswith(".flags")]
    return sorted(names)


def _join_path(arguments: Sequence[str]) -> Iterator[str]:
    """Yields arguments, the path of `--flagfile PATH` in one with its flag."""
    rest = iter(arguments)
    for argument in rest:
        if argument.lstrip("-") == _FLAG and argument.startswith("-"):
            argument = f"{argument}={next(rest, '')}"
        yield argument


def _path_of(argument: str) -> str:
    """Returns the path that an argument names a flagfile by; empty if it does not."""
    name, _, path = argument.lstrip("-").partition("=")
    if not (argument.startswith("-") and name == _FLAG):
        return ""
    if not path:
        raise errors.ConfigError("--flagfile=: name a file of flags, one a line.")
    return path


def _find(path: str) -> str:
    """Returns the path of a flagfile, which may be named without its folder."""
    path = os.path.expanduser(path)
    if not os.path.dirname(path) and not os.path.exists(path):
        for folder in _OUR_FOLDERS:
            if os.path.exists(ours := os.path.join(folder, path)):
                return ours
    return path


def _read(path: str, parents: tuple[str, ...]) -> list[Part]:
    """Returns the parts of a flagfile, those of inner files where these are named."""
    path = _find(path)
    if path in parents:
        raise errors.ConfigError(
            f"--flagfile={path}: the file names itself, by {' and '.join(parents)}; "
            "take that line out."
        )
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError as error:
        raise errors.ConfigError(
            f"--flagfile={path} cannot be read ({error.strerror}); name a file by its "
            "path, or one that comes with segloop by its name alone: "
            f"{', '.join(list_ours())}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(
            f"--flagfile={path} cannot be read ({getattr(error, 'strerror', error)}); "
            "name a text file of flags, one a line."
        ) from error
    parts = [Part(path, [])]
    for line in lines:
        if not line or line.startswith(_COMMENTS):
            continue
        if inner := _path_of(line):
            parts += [*_read(inner, (*parents, path)), Part(path, [])]
        else:
            parts[-1].lines.append(line)
    return parts
