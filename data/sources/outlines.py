"""Objects of annotation files, drawn as masks: outlines and runs of pixels."""

from collections.abc import Iterable, Sequence

import numpy as np

_LEAST_NUMBERS = 6
"""Of three points; an outline of fewer has no inside."""


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
            label[fill_runs(shape, size)] = value
            continue
        for outline in shape:
            label[fill_outline(outline, size)] = value
    return label


def fill_outline(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Finds the pixels whose middles lie inside an outline.

    The middle of the first pixel is at (0.5, 0.5). Where an outline crosses itself,
    what it goes round twice is outside.

    Args:
      outline: x and y of each corner in turn, float64 [numbers].
      size: height and width.

    Returns:
      bool [height, width].
    """
    height, width = size
    if len(outline) < _LEAST_NUMBERS:
        return np.zeros(size, bool)
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
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (rows, columns), 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1


def fill_runs(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Finds the pixels of runs, down one column after the other.

    Args:
      counts: lengths of the runs, integers [runs]: first of pixels that are not the
        object's, then of those that are, and so on; they add up to all pixels.
      size: height and width.

    Returns:
      bool [height, width].
    """
    is_inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(is_inside, counts).reshape(size[::-1]).T


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
