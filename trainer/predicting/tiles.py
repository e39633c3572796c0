"""Large images predicted in tiles that overlap, and put together strip by strip."""

import math
from collections.abc import Callable, Iterator

import numpy as np

_SIGMA = 1 / 8
"""The deviation of the Gaussian that weighs the pixels of a tile, in tile sides: at the
edges a weight is e^-8 of that in the middle (Isensee et al., nnU-Net, Nature Methods
2021)."""


def places(length: int, tile: int, overlap: float) -> list[int]:
    """Returns where tiles begin along an axis, so that they cover it evenly.

    Args:
      length: of the axis, at least `tile`.
      tile: side of a tile.
      overlap: the least share of a tile that the next one covers, too, below 1.
    """
    most = max(int(tile * (1 - overlap)), 1)
    count = math.ceil((length - tile) / most) + 1
    return [round(i * (length - tile) / max(count - 1, 1)) for i in range(count)]


def weights(tile: int) -> np.ndarray:
    """Returns what each pixel of a tile counts, float32 [tile, tile], at most 1."""
    distance = (np.arange(tile) - (tile - 1) / 2) / (tile * _SIGMA)
    line = np.exp(-(distance**2) / 2)
    return np.outer(line, line).astype(np.float32)


def predict_strips(
    image: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    *,
    tile: int,
    overlap: float,
    batch_size: int,
    fill_value: int,
) -> Iterator[np.ndarray]:
    """Predicts an image in tiles, and keeps the scores of only one row of them.

    At each pixel the result is the mean of the probabilities of the tiles that cover
    it, weighted by `weights`.

    Args:
      image: [height, width, channels].
      predict: from images, [batch_size, tile, tile, channels], to probabilities,
        float32 [batch_size, tile, tile, classes].
      tile: side of a tile; a smaller image is filled up at its right and bottom.
      overlap: the least share of a tile that the next one covers, too.
      batch_size: tiles of a call.
      fill_value: for what is filled up.

    Yields:
      Probabilities, float32 [rows, width, classes], from the top to the bottom.
    """
    height, width, channels = image.shape
    padded_width = max(width, tile)
    tops = places(max(height, tile), tile, overlap)
    lefts = places(padded_width, tile, overlap)
    weight = weights(tile)[..., np.newaxis]
    shares = np.zeros((tile, padded_width, 1), np.float32)
    sums = None
    for top, next_top in zip(tops, [*tops[1:], max(height, tile)], strict=True):
        for first in range(0, len(lefts), batch_size):
            group = lefts[first : first + batch_size]
            shown = np.full((batch_size, tile, tile, channels), fill_value, image.dtype)
            for row, left in enumerate(group):
                part = image[top : top + tile, left : left + tile]
                shown[row, : part.shape[0], : part.shape[1]] = part
            found = predict(shown)
            if sums is None:
                sums = np.zeros((tile, padded_width, found.shape[-1]), np.float32)
            for left, probabilities in zip(group, found, strict=False):
                sums[:, left : left + tile] += weight * probabilities
                shares[:, left : left + tile] += weight
        done = next_top - top
        yield (sums[:done] / shares[:done])[: height - top, :width]
        for kept in (sums, shares):
            kept[: tile - done] = kept[done:]
            kept[tile - done :] = 0
