"""Small pictures of single examples: photo, truth, prediction and errors in a row."""

from collections.abc import Sequence

import numpy as np

from trainer.drawing import pictures

_MOST_SIDE = 192
"""Of what is kept of an example in the folder of a run."""


def draw(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    palette: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Draws an example in a row: photo, truth, prediction, errors.

    It is made smaller where it is larger than 192 pixels.

    Args:
      image: uint8 [height, width, 3].
      label: uint8 [height, width].
      prediction: uint8 [height, width].
      palette: the colour of each class.

    Returns:
      uint8 [rows, columns, 3].
    """
    columns = pictures.draw_columns(
        _shrink(image, is_photo=True)[np.newaxis],
        _shrink(label)[np.newaxis],
        _shrink(prediction)[np.newaxis],
        palette,
    )
    return pictures.join([column[0] for column in columns], axis=1)


def _shrink(pixels: np.ndarray, *, is_photo: bool = False) -> np.ndarray:
    """Makes pixels, uint8 [height, width, ...], as small as a strip has them."""
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = _MOST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.BOX if is_photo else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, method))
