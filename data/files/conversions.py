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


def find_listed(
    cells: Mapping[Cell, int], colors: Collection[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """Finds which of some colours a compressed mask was drawn in.

    Args:
      cells: number of pixels of each cell.
      colors: those that it may have been drawn in.

    Returns:
      The colours that have pixels around them, in the order of `colors`; nothing if
      too many pixels are near none of them.
    """
    if not cells:
        return []
    centers = np.array(list(cells)) * _STEP + _STEP / 2
    counts = np.array(list(cells.values()))
    is_near = [np.abs(centers - color).max(-1) <= _REACH for color in colors]
    if counts[np.any(is_near, axis=0)].sum() < _LEAST_EXPLAINED * counts.sum():
        return []
    return [
        color
        for color, near in zip(colors, is_near, strict=True)
        if counts[near].sum() >= _LEAST_SHARE * counts.sum()
    ]


def write_lines(
    levels: Sequence[tuple[int, ...]],
    values: Sequence[tuple[int, ...]],
    files: Collection[str],
    *,
    others: Collection[str] = (),
    known: Sequence[tuple[int, ...]] = (),
    mode: str = "",
) -> str:
    """Writes a program that gives each pixel the value of the nearest colour.

    Args:
      levels: the colours of the classes, in their order, of one channel or three.
      values: of each of these, what a mask shall hold: a number or a colour.
      files: masks, of all folders that there are.
      others: further masks, which are to stay as they are.
      known: what the pixels of sound masks are, as rows like `levels`. A mask of these
        alone stays as it is, unless it is all of `levels`: it may be in the same folder
        or have been converted before.
      mode: what Pillow is to make of a mask first; nothing to read it as it is stored.

    Returns:
      Two lines of Python, to be run in the data set's folder. They write PNG files
      under the same names.
    """
    bands = "1" if len(levels[0]) == 1 else "3 if a.shape[2] > 2 else 1"
    pixels = f"np.array(Image.open(f){f'.convert({mode!r})' if mode else ''})"
    if not mode and any(file.lower().endswith((".tif", ".tiff")) for file in files):
        # As in `masks.decode_mask`: where 0 is white, Pillow inverts up to 8 bits.
        pixels = (
            "(lambda im, a: ~a if im.mode in '1L' and getattr(im, 'tag_v2', {})"
            ".get(262) == 0 else a)(im := Image.open(f), np.array(im))"
        )
    values = [value[0] if len(value) == 1 else list(value) for value in values]
    arrays = f"levels = np.array({list(map(list, levels))}); values = np.array({values}"
    is_sound = ""
    if known:
        arrays += f"); known = np.array({list(map(list, known))}"
        is_sound = "has(a, known) and not has(a, levels) or "
    return (
        f"import glob, os, numpy as np; from PIL import Image; {arrays}); "
        "has = lambda a, rows: (a == rows).all(-1).any(-1).all()\n"
        f"for f in {_list_files(files, others)}: a = {pixels}.astype(int); "
        f"a = a.reshape(*a.shape[:2], -1); a = a[..., None, :{bands}]; {is_sound}"
        "Image.fromarray(values[abs(a - levels).sum(-1).argmin(-1)].astype('uint8'))"
        ".save(os.path.splitext(f)[0] + '.png')"
    )


def _list_files(files: Collection[str], others: Collection[str]) -> str:
    """Returns an expression for the names of files, but not those of others."""
    patterns = sorted(set(map(_make_pattern, files)))
    matching = sorted(file for file in others if _make_pattern(file) in patterns)
    if len(matching) > len(files):
        return str(sorted(files))
    found = f"sum(map(glob.glob, {patterns}), [])"
    return f"sorted({{*{found}}} - {{*{matching}}})" if matching else found


def _make_pattern(file: str) -> str:
    """Returns a pattern for the files of a folder that have the ending of one."""
    ending = os.path.splitext(file)[1]
    return os.path.join(glob.escape(os.path.dirname(file)), f"*{ending}")


def write_untagging(files: Collection[str], others: Collection[str] = ()) -> str:
    """Writes a program that takes the EXIF orientation off photos, and no more.

    Args:
      files: photos.
      others: further photos, which are to stay as they are.

    Returns:
      Two lines of Python, to be run in the data set's folder. In JPEG files one byte
      changes; others are written anew.
    """
    names = _list_files(files, others)
    endings = {os.path.splitext(file)[1].lower() for file in files}
    if endings <= {".jpg", ".jpeg"}:
        # The tag, its type SHORT and the count 1, in both orders of bytes.
        return (
            "import glob, pathlib, re; tag = rb'(\\x12\\x01\\x03\\x00\\x01\\x00{3})"
            "[\\x02-\\x08]|(\\x01\\x12\\x00\\x03\\x00{3}\\x01\\x00)[\\x02-\\x08]'\n"
            f"for f in {names}: p = pathlib.Path(f); "
            "p.write_bytes(re.sub(tag, lambda m: (m[1] or m[2]) + b'\\1', "
            "p.read_bytes(), count=1))"
        )
    return (
        "import glob; from PIL import Image\n"
        f"for f in {names}: im = Image.open(f); note = "
        "im.getexif(); note[274] = 1; im.save(f, exif=note)"
    )


def _clear(channel: int) -> int:
    """Returns the value that a channel of a cell most likely was drawn in."""
    if channel == 0:
        return 0
    return 255 if channel == 255 // _STEP else channel * _STEP + _STEP // 2
