"""Pictures for people: photos beside their true and predicted classes."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data import schema

_GUTTER = 6
_BACKGROUND = 255
_IGNORED_COLOR = (128, 128, 128)
_LEAST_SIDE = 192
"""Small examples are enlarged by a whole factor to at least this many pixels."""


def compare(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    palette: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Draws examples in rows: photo, truth, prediction.

    Args:
      images: uint8 [n, height, width, 3].
      labels: uint8 [n, height, width].
      predictions: uint8 [n, height, width].
      palette: the colour of each class.

    Returns:
      uint8 [rows, columns, 3].
    """
    factor = -(-_LEAST_SIDE // min(images.shape[1:3]))
    columns = (images, colorize(labels, palette), colorize(predictions, palette))
    rows = [
        _join([np.kron(column[i], np.ones((factor, factor, 1), np.uint8))
               for column in columns], axis=1)
        for i in range(len(images))
    ]  # fmt: skip
    return np.pad(
        _join(rows, axis=0),
        ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0)),
        constant_values=_BACKGROUND,
    )


def colorize(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Paints classes, uint8 [...], in their colours, uint8 [..., 3]; ignored: gray."""
    colors = np.full((256, 3), _IGNORED_COLOR, np.uint8)
    colors[: len(palette)] = palette
    colors[schema.IGNORE_LABEL] = _IGNORED_COLOR
    return colors[labels]


def write_png(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 [height, width, 3] as a PNG file."""
    path.write_bytes(tf.io.encode_png(image).numpy())


def _join(parts: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Joins pictures with a gutter between them."""
    shape = list(parts[0].shape)
    shape[axis] = _GUTTER
    gutter = np.full(shape, _BACKGROUND, np.uint8)
    joined = [part for item in parts for part in (gutter, item)][1:]
    return np.concatenate(joined, axis=axis)
