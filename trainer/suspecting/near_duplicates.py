"""Photos that show the same: another size, compression or brightness, or a few pixels.

The doctor itself finds those that are equal pixel by pixel; these are found by
thumbnails of the images as the model sees them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

_SIDE = 16
"""Of a thumbnail."""
_LEAST_CORRELATION = 0.97
"""Of two thumbnails that show the same."""
_LEAST_CONTRAST = 0.02
"""Standard deviation, as a share of the range, below which nothing is to be seen."""
_ROWS_AT_ONCE = 1024


def make_thumbnail(image: np.ndarray) -> np.ndarray:
    """Makes what images are compared by.

    Args:
      image: uint8 [height, width, channels].

    Returns:
      float32 [256], of mean 0 and length 1: a gray thumbnail, whatever the brightness
      and the contrast of the image; all zeros if there is nothing to see.
    """
    gray = image.mean(axis=-1, dtype=np.float32) / 255
    for axis in (0, 1):
        side = gray.shape[axis]
        starts = np.arange(_SIDE) * side // _SIDE
        stops = np.maximum((np.arange(_SIDE) + 1) * side // _SIDE, starts + 1)
        sums = np.insert(np.cumsum(gray, axis=axis, dtype=np.float64), 0, 0, axis=axis)
        total = sums.take(stops, axis=axis) - sums.take(starts, axis=axis)
        lengths = np.expand_dims(stops - starts, 1 - axis)
        gray = total / lengths
    gray -= gray.mean()
    if gray.std() < _LEAST_CONTRAST:
        return np.zeros(_SIDE**2, np.float32)
    return (gray / np.linalg.norm(gray)).astype(np.float32).ravel()


def find_pairs(thumbnails: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yields the place of each photo that shows the same as one before it.

    Args:
      thumbnails: of all photos.

    Yields:
      The place of that which resembles it most of those before it, and its own.
    """
    if not len(thumbnails):
        return
    vectors = np.stack(thumbnails)
    for first in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = vectors[first : first + _ROWS_AT_ONCE]
        alike = np.tril(rows @ vectors[: first + len(rows)].T, first - 1)
        most = alike.argmax(axis=1)
        for row in np.flatnonzero(alike.max(axis=1) >= _LEAST_CORRELATION):
            yield int(most[row]), first + int(row)
