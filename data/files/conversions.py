"""Lines of Python that make masks of plain classes from masks that are none."""

import collections
import glob
import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np

_STEP = 4
"""Colours are counted in cells of so many values a channel."""
_LEAST_SHARE = 0.002
"""A class has at least this share of the pixels."""
_REACH = 14
"""Colours that compression makes of one colour lie within about so much of it."""
_LEAST_EXPLAINED = 0.9
"""At least this share of the pixels of a mask lies near the colours of the classes; of
a photo, far fewer do."""
_MOST_LEVELS = 64

Cell = tuple[int, int, int]
"""Red, green and blue, divided by `_STEP`."""


def count_cells(pixels: np.ndarray) -> collections.Counter:
    """Counts the pixels, uint8 [height, width, 3], of each cell of colours."""
    red, green, blue = np.moveaxis(pixels.astype(np.int64) // _STEP, -1, 0)
    codes, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    cells = [(code >> 16, code >> 8 & 255, code & 255) for code in codes.tolist()]
    return collections.Counter(dict(zip(cells, counts.tolist(), strict=True)))


def find_levels(
    cells: Mapping[Cell, int], num_classes: int | None
) -> list[tuple[int, int, int]]:
    """Finds the colours that a compressed mask was drawn in.

    Args:
      cells: number of pixels of each cell.
      num_classes: how many colours there are; None if not known.

    Returns:
      The colours in ascending order; nothing if the pixels do not lie around a few
      colours.
    """
    if not cells:
        return []
    keys = list(cells)
    centers = np.array(keys) * _STEP + _STEP / 2
    counts = np.array([cells[key] for key in keys])
    levels, is_explained = [], np.zeros(len(keys), bool)
    is_left = np.ones(len(keys), bool)
    while is_left.any() and len(levels) < (num_classes or _MOST_LEVELS):
        peak = np.argmax(counts * is_left)
        if counts[peak] < _LEAST_SHARE * counts.sum():
            break
        levels.append(tuple(_clear(channel) for channel in keys[peak]))
        distance = np.abs(centers - centers[peak]).max(-1)
        is_explained |= distance <= _REACH
        is_left &= distance > 2 * _REACH
    if len(levels) < 2 or (num_classes and len(levels) != num_classes):
        return []
    if counts[is_explained].sum() < _LEAST_EXPLAINED * counts.sum():
        return []
    return sorted(levels)


def write_lines(levels: Sequence[tuple[int, ...]], files: Collection[str]) -> str:
    """Writes a program that gives each pixel the class of the nearest colour.

    Args:
      levels: the colours of the classes, in their order, of one channel or three.
      files: masks, of all folders that there are.

    Returns:
      Two lines of Python, to be run in the data set's folder. They write gray PNG files
      of the classes from 0 on, under the same names.
    """
    if all(len(set(level)) == 1 for level in levels):
        levels = [level[:1] for level in levels]
    mode = "L" if len(levels[0]) == 1 else "RGB"
    patterns = list_patterns(files)
    shape = "[..., None, None]" if mode == "L" else "[..., None, :]"
    return (
        "import glob, os, numpy as np; from PIL import Image; "
        f"levels = np.array({[list(level) for level in levels]})\n"
        f"for f in sum(map(glob.glob, {patterns}), []): a = np.array(Image.open(f)"
        f".convert({mode!r})).astype(int){shape}; Image.fromarray(abs(a - levels)"
        ".sum(-1).argmin(-1).astype('uint8')).save(os.path.splitext(f)[0] + '.png')"
    )


def list_patterns(files: Collection[str]) -> list[str]:
    """Returns a pattern for each folder and ending of some files."""
    return sorted(
        {
            os.path.join(
                glob.escape(os.path.dirname(file)), "*" + os.path.splitext(file)[1]
            )
            for file in files
        }
    )


def write_untagging(files: Collection[str]) -> str:
    """Writes a program that takes the EXIF orientation off photos, and no more.

    Returns:
      Two lines of Python, to be run in the data set's folder. In JPEG files one byte
      changes; others are written anew.
    """
    patterns = list_patterns(files)
    endings = {os.path.splitext(file)[1].lower() for file in files}
    if endings <= {".jpg", ".jpeg"}:
        # The tag, its type SHORT and the count 1, in both orders of bytes.
        return (
            "import glob, pathlib, re; tag = rb'(\\x12\\x01\\x03\\x00\\x01\\x00{3})"
            "[\\x02-\\x08]|(\\x01\\x12\\x00\\x03\\x00{3}\\x01\\x00)[\\x02-\\x08]'\n"
            f"for f in sum(map(glob.glob, {patterns}), []): p = pathlib.Path(f); "
            "p.write_bytes(re.sub(tag, lambda m: (m[1] or m[2]) + b'\\1', "
            "p.read_bytes(), count=1))"
        )
    return (
        "import glob; from PIL import Image\n"
        f"for f in sum(map(glob.glob, {patterns}), []): im = Image.open(f); note = "
        "im.getexif(); note[274] = 1; im.save(f, exif=note)"
    )


def _clear(channel: int) -> int:
    """Returns the value that a channel of a cell most likely was drawn in."""
    if channel == 0:
        return 0
    return 255 if channel == 255 // _STEP else channel * _STEP + _STEP // 2
