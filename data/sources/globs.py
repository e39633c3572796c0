"""Pairs of files by two patterns, `--images` and `--masks`."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence

from data import schema
from data.sources import listing

_WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\[!?+\]?+[^\]/]*\]")
_WHOLE = re.compile(r"\(\?s:(.*)\)\\[zZ]", re.DOTALL)
"""What `fnmatch` puts around what it translates, `\\Z` or, from Python 3.14, `\\z`."""


def find_pairs(
    data_dir: str, image_pattern: str, mask_pattern: str, *, root: str | None = None
) -> tuple[listing.Folder, list[listing.Pair], list[listing.Problem]]:
    """Finds the files of two patterns and pairs those whose wildcards stand for alike.

    The ending of a file, after the last dot, counts for nothing. Where one pattern has
    more wildcards than the other, only those of the file names count.

    Args:
      data_dir: what patterns that are not absolute start from.
      image_pattern: of the images, in the language of `glob`, `**` for folders.
      mask_pattern: of the masks.
      root: folder that all paths are relative to; by default as `find_root`.

    Returns:
      The folder that all paths are relative to, the pairs, and what is wrong with
      them.

    Raises:
      schema.DataError: if a pattern has no file, or it does not show what the
        wildcards stand for.
    """
    patterns = (image_pattern, mask_pattern)
    root = find_root(data_dir, patterns) if root is None else root
    folder = listing.Folder(root)
    num_wildcards = {_count_wildcards(_without_ending(p)) for p in patterns}
    groups, problems = [], []
    for flag, pattern in zip(("images", "masks"), patterns, strict=True):
        # Not a part of the pattern: the folder's name may hold wildcards itself.
        start = "" if os.path.isabs(pattern) else data_dir
        paths = [
            os.path.relpath(os.path.join(start, path), root)
            for path in _find_files(start, pattern)
        ]
        if not paths:
            raise schema.DataError(
                f"--{flag}={os.path.join(start, pattern)} matches no image file; "
                "mend the pattern, or add the files."
            )
        problems += folder.find_problems(paths)
        groups.append(
            _group_by_wildcards(
                paths,
                os.path.relpath(os.path.join(start, fixed_part(pattern)) or ".", root),
                pattern[len(fixed_part(pattern)) :].lstrip("/"),
                is_name_only=len(num_wildcards) > 1,
                flag=f"--{flag}={pattern}",
            )
        )
    pairs, more_problems = listing.pair_by_key(*groups)
    return folder, pairs, problems + more_problems


def find_root(data_dir: str, patterns: Sequence[str]) -> str:
    """Returns the folder that the paths of the files of all patterns start from.

    That is `data_dir`, or of absolute patterns the last folder that they share.
    """
    if not any(map(os.path.isabs, patterns)):
        return data_dir
    fixed = [os.path.join(data_dir, fixed_part(pattern)) for pattern in patterns]
    return os.path.commonpath([os.path.abspath(path) for path in fixed])


def has_file(data_dir: str, pattern: str) -> bool:
    """Tells whether a pattern matches an image file."""
    return any(_find_files("" if os.path.isabs(pattern) else data_dir, pattern))


def _find_files(start: str, pattern: str) -> Iterator[str]:
    """Yields the paths of the image files that a pattern matches, from a folder on."""
    paths = glob.iglob(pattern, root_dir=start or None, recursive=True)
    return filter(listing.is_image, paths)


def fixed_part(pattern: str) -> str:
    """Returns the folder before the first wildcard of a pattern."""
    return os.path.dirname(_WILDCARD.split(pattern)[0])


def _group_by_wildcards(
    paths: list[str], folder: str, pattern: str, *, is_name_only: bool, flag: str
) -> dict[str, list[str]]:
    """Groups paths by what the wildcards of their pattern stand for.

    Args:
      paths: relative to some folder.
      folder: the part of all paths before the first wildcard, itself without any.
      pattern: of the rest.
      is_name_only: whether the wildcards before the name of the file do not count.
      flag: with the pattern as it was given, for messages.

    Raises:
      schema.DataError: if a path does not show what the wildcards stand for.
    """
    if is_name_only:
        folder, pattern = "", os.path.basename(pattern)
    elif os.path.normpath(folder) != ".":
        folder = os.path.join(os.path.normpath(folder), "")
    else:
        folder = ""
    short, whole = (
        re.compile(re.escape(folder) + _translate(p), re.DOTALL)
        for p in (_without_ending(pattern), pattern)
    )
    groups = {}
    for path in paths:
        name = os.path.basename(path) if is_name_only else path
        stem = os.path.splitext(name)[0]
        # In `img.*`, what looks like an ending may be the rest of a stem like img.001.
        tried = (short.fullmatch(stem), whole.fullmatch(stem), whole.fullmatch(name))
        found = next(filter(None, tried), None)
        if found is None:
            raise schema.DataError(
                f"{flag} matches {path}, but it does not show what the wildcards stand "
                "for; write the pattern as the path is written, e.g. "
                f"{os.path.join(os.path.dirname(path), '*')}."
            )
        parts = [part for part in found.groups() if part]
        groups.setdefault("/".join(parts), []).append(path)
    return groups


def _translate(pattern: str) -> str:
    """Makes a regular expression with one group for each wildcard."""
    regex, place = "", 0
    for match in _WILDCARD.finditer(pattern):
        regex += re.escape(pattern[place : match.start()])
        wildcard, place = match.group(), match.end()
        if wildcard == "**/":
            regex += "(?:(.*)/)?"
        elif _is_literal(wildcard):
            regex += re.escape(wildcard[1])
        elif wildcard.startswith("["):
            # As `glob` reads it: ^ is a character, and a range may be empty.
            regex += f"({_WHOLE.fullmatch(fnmatch.translate(wildcard))[1]})"
        else:
            regex += {"**": "(.*)", "*": "([^/]*)", "?": "([^/])"}[wildcard]
    return regex + re.escape(pattern[place:])


def _count_wildcards(pattern: str) -> int:
    return sum(not _is_literal(found) for found in _WILDCARD.findall(pattern))


def _is_literal(wildcard: str) -> bool:
    """Tells whether it is a way to write one character, as `[*]` is."""
    return wildcard.startswith("[") and len(wildcard) == 3


def _without_ending(pattern: str) -> str:
    return os.path.splitext(pattern)[0]
