"""Pictures for people: photos beside their classes, true, predicted or augmented."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data import schema
from trainer import files

_GUTTER = 6
_BACKGROUND = 255
_IGNORED_COLOR = (128, 128, 128)
_LEAST_SIDE = 192
"""Small examples are enlarged by a whole factor to at least this many pixels."""
_TEXT_COLOR = (0, 0, 0)
_FONT_SIZE = 14
_LINE_HEIGHT = 24
_SWATCH_WIDTH = 20
_STRIPE_WIDTH = 4


def to_rgb(images: np.ndarray, image_format: schema.ImageFormat) -> np.ndarray:
    """Makes images of any kind fit to be seen: the first three channels, or gray.

    Args:
      images: numbers [n, height, width, channels].
      image_format: their channels and values; the range becomes 0..255.

    Returns:
      uint8 [n, height, width, 3].
    """
    if images.shape[-1] < 3:
        images = images[..., :1].repeat(3, axis=-1)
    low, high = image_format.value_range
    scaled = (images[..., :3].astype(np.float32) - low) * (255 / (high - low))
    return scaled.round().clip(0, 255).astype(np.uint8)


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
    return _arrange((images, colorize(labels, palette), colorize(predictions, palette)))


def draw_contact_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    augmented_images: np.ndarray,
    augmented_labels: np.ndarray,
    *,
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Draws examples in rows: image, labels over it, and both again, augmented.

    Ignored pixels are hatched. Below stand the names of the classes in their colours.

    Args:
      images: uint8 [n, height, width, 3].
      labels: uint8 [n, height, width].
      augmented_images: the images after augmentation, uint8.
      augmented_labels: the labels after augmentation.
      class_names: of the classes.
      palette: the colour of each class.

    Returns:
      uint8 [rows, columns, 3].
    """
    sheet = _arrange(
        (
            images,
            blend(images, labels, palette),
            augmented_images,
            blend(augmented_images, augmented_labels, palette),
        )
    )
    legend = _draw_legend(sheet.shape[1], class_names, palette)
    return np.concatenate([sheet, legend])


def blend(
    images: np.ndarray, labels: np.ndarray, palette: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """Lays the colours of classes over images, half and half; ignored: hatched.

    Args:
      images: uint8 [n, height, width, 3].
      labels: uint8 [n, height, width].
      palette: the colour of each class.

    Returns:
      uint8 [n, height, width, 3].
    """
    colors = colorize(labels, palette)
    mixed = (images.astype(np.uint16) + colors + 1) // 2
    row, column = np.ogrid[: labels.shape[1], : labels.shape[2]]
    is_stripe = (row + column) // _STRIPE_WIDTH % 2 == 0
    is_ignored = labels >= len(palette)
    mixed[is_ignored] = np.where(is_stripe[..., np.newaxis], colors, images)[is_ignored]
    return mixed.astype(np.uint8)


def colorize(labels: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Paints classes, uint8 [...], in their colours, uint8 [..., 3]; ignored: gray."""
    colors = np.full((256, 3), _IGNORED_COLOR, np.uint8)
    colors[: len(palette)] = palette
    colors[schema.IGNORE_LABEL] = _IGNORED_COLOR
    return colors[labels]


def write_png(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 [height, width, 3] as a PNG file.

    Raises:
      errors.WriteError: if that fails.
    """
    files.write_bytes(path, tf.io.encode_png(image).numpy())


def _arrange(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Puts columns of pictures, uint8 [n, height, width, 3], side by side."""
    factor = -(-_LEAST_SIDE // min(columns[0].shape[1:3]))
    rows = [
        _join([np.kron(column[i], np.ones((factor, factor, 1), np.uint8))
               for column in columns], axis=1)
        for i in range(len(columns[0]))
    ]  # fmt: skip
    return np.pad(
        _join(rows, axis=0),
        ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0)),
        constant_values=_BACKGROUND,
    )


def _draw_legend(
    width: int,
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Writes the names of classes beside their colours, as many in a line as fit."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    entries = [*zip(class_names, palette, strict=True), ("ignored", _IGNORED_COLOR)]
    places, x, line = [], _GUTTER, 0
    for name, _ in entries:
        entry_width = _SWATCH_WIDTH + round(font.getlength(name)) + 4 * _GUTTER
        if x > _GUTTER and x + entry_width > width:
            x, line = _GUTTER, line + 1
        places.append((x, line * _LINE_HEIGHT))
        x += entry_width
    height = (line + 1) * _LINE_HEIGHT + _GUTTER
    legend = Image.new("RGB", (width, height), (_BACKGROUND,) * 3)
    draw = ImageDraw.Draw(legend)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        box = (x, y, x + _SWATCH_WIDTH, y + _LINE_HEIGHT - _GUTTER)
        draw.rectangle(box, fill=tuple(color), outline=_TEXT_COLOR)
        place = (x + _SWATCH_WIDTH + _GUTTER, y)
        draw.text(place, name, fill=_TEXT_COLOR, font=font)
    return np.asarray(legend)


def _join(parts: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Joins pictures with a gutter between them."""
    shape = list(parts[0].shape)
    shape[axis] = _GUTTER
    gutter = np.full(shape, _BACKGROUND, np.uint8)
    joined = [part for item in parts for part in (gutter, item)][1:]
    return np.concatenate(joined, axis=axis)
