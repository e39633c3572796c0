"""Objects of annotation files, drawn as masks: outlines and runs of pixels."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data import schema

BACKGROUND = "background"
"""The first class: where no object is."""

IGNORED = "__ignore__"
"""The name of objects whose pixels are those of no class."""


_UNFIT = (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError)
"""What happens to who reads a file that is not as it should be."""

_LEAST_NUMBERS = 6
"""Of three points; an outline of fewer has no inside."""


_FARTHEST = 1e9
"""Corners lie nearer; what is computed of them stays finite."""


class Shape(NamedTuple):
    """An object: its class, and what it covers; see `outlines.draw`."""

    name: str
    shape: Sequence[np.ndarray] | np.ndarray


class Photo(NamedTuple):
    """An image: its height and width, and its objects, each over those before."""

    size: tuple[int, int]
    shapes: Sequence[Shape]


class Filled(NamedTuple):
    """The pixels of an object: a box of the image, and which of the box are inside.

    Large photos hold hundreds of small objects; to go over all pixels for each takes
    seconds a photo.
    """

    rows: slice
    columns: slice
    mask: np.ndarray


_EMPTY = Filled(slice(0), slice(0), np.zeros([0, 0], bool))


def is_background(name: str) -> bool:
    """Tells whether objects of a name are background."""
    return name.strip("_").lower() == BACKGROUND


def check_corners(corners: np.ndarray) -> None:
    """Checks the numbers of an outline, which JSON and Python let be NaN.

    Raises:
      ValueError: if one is NaN or infinite, or far from any image.
    """
    if not (np.abs(corners) < _FARTHEST).all():
        raise ValueError(
            "an outline has a coordinate that is no number, or that no image reaches"
        )


def draw(
    shapes: Iterable[tuple[int, Sequence[np.ndarray] | np.ndarray]],
    size: tuple[int, int],
) -> np.ndarray:
    """Draws objects one over the other.

    Args:
      shapes: of each object its value and what it covers: outlines, each x and y in
        turn, float64 [numbers]; or runs, integers [runs], see `fill_runs`.
      size: height and width.

    Returns:
      uint16 [height, width]; 0 where no object is.
    """
    label = np.zeros(size, np.uint16)
    for value, shape in shapes:
        if isinstance(shape, np.ndarray):
            filled = [fill_runs(shape, size)]
        else:
            filled = [fill_outline(outline, size) for outline in shape]
        for rows, columns, mask in filled:
            label[rows, columns][mask] = value
    return label


def fill_outline(outline: np.ndarray, size: tuple[int, int]) -> Filled:
    """Finds the pixels whose middles lie inside an outline.

    The middle of the first pixel is at (0.5, 0.5). Where an outline crosses itself,
    what it goes round twice is outside.

    Args:
      outline: x and y of each corner in turn, float64 [numbers].
      size: height and width.
    """
    height, width = size
    if len(outline) < _LEAST_NUMBERS:
        return _EMPTY
    x, y = outline[0::2], outline[1::2]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    top, bottom = np.minimum(y, next_y), np.maximum(y, next_y)
    # The rows whose middles an edge crosses: its lower end does not count, so that of
    # two edges that meet in the middle of a row one counts.
    first, stop = (
        np.clip(np.ceil(end - 0.5), 0, height).astype(np.int64) for end in (top, bottom)
    )
    counts = stop - first
    edges = np.repeat(np.arange(len(x)), counts)
    steps = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = first[edges] + steps
    slope = (next_x - x)[edges] / (next_y - y)[edges]
    crossing = x[edges] + (rows + 0.5 - y[edges]) * slope
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    if not len(rows):
        return _EMPTY
    top, left, right = rows.min(), columns.min(), columns.max()
    crossings = np.zeros((rows.max() + 1 - top, right + 1 - left), np.int64)
    np.add.at(crossings, (rows - top, columns - left), 1)
    # Each row is crossed an even number of times, so that the last column is outside.
    mask = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return Filled(slice(top, top + len(mask)), slice(left, right), mask)


def fill_runs(counts: np.ndarray, size: tuple[int, int]) -> Filled:
    """Finds the pixels of runs, down one column after the other.

    Args:
      counts: lengths of the runs, integers [runs]: first of pixels that are not the
        object's, then of those that are, and so on; they add up to all pixels.
      size: height and width.
    """
    height, _ = size
    if len(counts) < 2:
        return _EMPTY
    stops = np.cumsum(counts)
    # From the column of the first of the object's pixels to that of the last.
    left = stops[0] // height
    right = -(-stops[1::2][-1] // height)
    stops = np.clip(stops, left * height, right * height)
    is_inside = np.arange(len(counts)) % 2 == 1
    mask = np.repeat(is_inside, np.diff(stops, prepend=left * height))
    return Filled(slice(0, height), slice(left, right), mask.reshape(-1, height).T)


def measure(shape: Sequence[np.ndarray] | np.ndarray) -> float:
    """Returns the pixels of an object's area, before it is cut to its image.

    Args:
      shape: what it covers, as `draw` takes it. Where outlines overlap, each counts.
    """
    if isinstance(shape, np.ndarray):
        return float(shape[1::2].sum())
    area = 0.0
    for outline in shape:
        x, y = outline[0::2], outline[1::2]
        area += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return area


def count_runs(mask: np.ndarray) -> np.ndarray:
    """Returns the runs of which `fill_runs` makes a mask, bool [height, width]."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    return np.diff(np.flatnonzero(flat[1:] != flat[:-1]), prepend=0)


def unpack_runs(text: str) -> np.ndarray:
    """Unpacks runs that COCO has packed into a text.

    A number takes as many characters as it needs, each of five bits, the lowest first,
    plus a sixth that says whether another follows, from `0` on. From the fourth on, a
    number is the difference to the one before the last.

    Returns:
      The lengths of the runs, int64 [runs].

    Raises:
      ValueError: if it is no such text.
    """
    numbers: list[int] = []
    place, number = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is no character of packed runs")
        number |= (bits & 31) << place
        place += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << place
        numbers.append(number + (numbers[-2] if len(numbers) > 2 else 0))
        place, number = 0, 0
    if place:
        raise ValueError("packed runs end within a number")
    return np.array(numbers, np.int64)


@contextlib.contextmanager
def explaining(path: str, tool: str) -> Iterator[None]:
    """Names the file, and the tool it is of, in errors about its contents."""
    try:
        yield
    except schema.DataError:
        raise
    except _UNFIT as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise schema.DataError(
            f"{path} is not as {tool} has it ({what}); write it anew with the tool "
            "that made it.",
            kind="bad_annotations",
        ) from error
