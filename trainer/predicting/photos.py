"""The photos to predict, found by a path, and the names of what is made of them."""

import glob
import os
from collections.abc import Iterable
from typing import NamedTuple

from data.files import images
from data.sources import globs, listing
from trainer.settings import fields


class Photo(NamedTuple):
    """A photo to predict.

    Attributes:
      path: of its file.
      name: that of what is made of it: relative to where photos were looked for,
        without an ending.
    """

    path: str
    name: str


def find(pattern: str, output: str) -> list[Photo]:
    """Finds photos.

    Args:
      pattern: of `--input`: a file, a folder, or a pattern of `glob`.
      output: of `--output`.

    Returns:
      The photos, in the order of their names.

    Raises:
      errors.ConfigError: if there are none, two would be written to one name, or
        what is written would be found as photos the next time.
      schema.DataError: if a folder cannot be read.
    """
    if os.path.isfile(pattern):
        folder, paths = os.path.dirname(pattern), [pattern]
    elif os.path.isdir(pattern):
        folder = pattern
        found = listing.Folder(folder).find_images(".", goes_outside=True)
        paths = [os.path.join(folder, path.removeprefix("./")) for path in found]
    else:
        folder = globs.fixed_part(pattern)
        paths = [p for p in glob.glob(pattern, recursive=True) if listing.is_image(p)]
    if not paths:
        endings = ", ".join(sorted(images.SUFFIXES))
        rule = f"there is no image file in it ({endings})"
        if not os.path.isdir(pattern):
            rule = f"no file has this path, and as a pattern no image file ({endings})"
        fields.reject("input", pattern, f"{rule}; give the path of some")
    if not os.path.isfile(pattern):
        _check_apart(pattern, [folder, *map(os.path.dirname, paths)], output)
    photos: dict[str, Photo] = {}
    for path in sorted(paths):
        name = os.path.splitext(os.path.relpath(path, folder or "."))[0]
        other = photos.setdefault(name, Photo(path, name))
        if other.path != path:
            fields.reject(
                "input",
                pattern,
                f"the masks of {other.path} and {path} would have the same name; "
                "rename one of the two, or predict them into two folders",
            )
    return list(photos.values())


def _check_apart(pattern: str, folders: Iterable[str], output: str) -> None:
    """Raises if the output lies where photos are looked for."""
    inner = os.path.realpath(output)
    if not os.path.isdir(pattern) and "**" not in pattern:
        return
    for folder in set(folders):
        outer = os.path.realpath(folder or ".")
        if os.path.commonpath([inner, outer]) == outer:
            fields.reject(
                "output",
                output,
                f"it lies within --input={pattern}, where the next prediction would "
                "take masks for photos; choose a folder outside",
            )
