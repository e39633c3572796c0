"""Pictures for people: photos beside their classes, true, predicted or augmented."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from data import schema
from trainer import files

_GUTTER = 6
_BACKGROUND = 255
_IGNORED_COLOR = (128, 128, 128)
_WRONG_COLOR = (214, 39, 40)
_LEAST_SIDE = 192
"""Small examples are enlarged by a whole factor to at least this many pixels."""
_TEXT_COLOR = (0, 0, 0)
_FONT_SIZE = 14
_LINE_HEIGHT = 24
_SWATCH_WIDTH = 20
_STRIPE_WIDTH = 4
_CELL_SIZE = 40
_CELL_COLOR = (24, 84, 168)
"""Of a cell of the confusion matrix that has all pixels of its row."""
_MOST_CELLS_WITH_TEXT = 20
"""In a row; of 255 classes, a picture with text would be of 10,000 pixels square."""


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
    *,
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
) -> np.ndarray:
    """Draws examples in rows: photo, truth, prediction, errors.

    Above stand titles, below the names of the classes in their colours.

    Args:
      images: uint8 [n, height, width, 3].
      labels: uint8 [n, height, width].
      predictions: uint8 [n, height, width].
      class_names: of the classes.
      palette: the colour of each class.

    Returns:
      uint8 [rows, columns, 3].
    """
    sheet = _arrange(draw_columns(images, labels, predictions, palette))
    width = sheet.shape[1]
    titles = _draw_titles(width, ("photo", "truth", "prediction", "errors"))
    others = {"ignored": _IGNORED_COLOR, "wrong": _WRONG_COLOR}
    legend = draw_legend(width, class_names, palette, others)
    return np.concatenate([titles, sheet, legend])


def draw_columns(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    palette: Sequence[tuple[int, int, int]],
) -> tuple[np.ndarray, ...]:
    """Draws what a model is judged by: photos, truths, predictions, errors.

    Args:
      images: uint8 [n, height, width, 3].
      labels: uint8 [n, height, width].
      predictions: uint8 [n, height, width].
      palette: the colour of each class.

    Returns:
      Four of uint8 [n, height, width, 3].
    """
    return (
        images,
        colorize(labels, palette),
        colorize(predictions, palette),
        draw_errors(images, labels, predictions, num_classes=len(palette)),
    )


def draw_errors(
    images: np.ndarray, labels: np.ndarray, predictions: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Draws where predictions are wrong: red on a pale gray photo; ignored: gray.

    Args:
      images: uint8 [n, height, width, 3].
      labels: uint8 [n, height, width].
      predictions: uint8 [n, height, width].
      num_classes: labels from there on are ignored.

    Returns:
      uint8 [n, height, width, 3].
    """
    gray = images.mean(axis=-1, keepdims=True)
    # Half the way to white: what is wrong is to stand out from any photo.
    drawn = ((gray + _BACKGROUND) / 2).astype(np.uint8).repeat(3, axis=-1)
    drawn[labels != predictions] = _WRONG_COLOR
    drawn[labels >= num_classes] = _IGNORED_COLOR
    return drawn


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

    Ignored pixels are hatched. Each column has a title. Below stand the names of the
    classes in their colours.

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
    width = sheet.shape[1]
    titles = _draw_titles(width, ("image", "labels", "changed", "its labels"))
    legend = draw_legend(width, class_names, palette)
    return np.concatenate([titles, sheet, legend])


def draw_confusion(counts: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draws a confusion matrix: rows are true classes, columns predicted ones.

    A cell is the darker, the more of its row's pixels it has; a row without a pixel is
    empty. Of up to 20 classes, names and percentages are there, too.

    Args:
      counts: of pixels, [classes, classes].
      class_names: of the classes.

    Returns:
      uint8 [rows, columns, 3].
    """
    num_classes = len(class_names)
    has_text = num_classes <= _MOST_CELLS_WITH_TEXT
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = _BACKGROUND + shares[..., np.newaxis] * np.subtract(
        _CELL_COLOR, _BACKGROUND
    )
    size = _CELL_SIZE if has_text else _CELL_SIZE // 10
    cells = np.kron(colors.round().astype(np.uint8), np.ones((size, size, 1), np.uint8))
    return _label_cells(cells, shares, class_names) if has_text else cells


def _label_cells(
    cells: np.ndarray, shares: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """Writes the shares into the cells of a matrix, and the names beside and above."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    margin = round(max(map(font.getlength, class_names))) + 2 * _GUTTER
    names = Image.new("RGB", (margin, len(cells)), (_BACKGROUND,) * 3)
    draw = ImageDraw.Draw(names)
    for index, name in enumerate(class_names):
        place = (_GUTTER, index * _CELL_SIZE + _CELL_SIZE // 4)
        draw.text(place, name, fill=_TEXT_COLOR, font=font)
    picture = Image.fromarray(cells)
    draw = ImageDraw.Draw(picture)
    for row, column in zip(*shares.nonzero(), strict=True):
        share = shares[row, column]
        shade = _BACKGROUND if share > 0.5 else 0
        place = (column * _CELL_SIZE + _GUTTER, row * _CELL_SIZE + _CELL_SIZE // 4)
        draw.text(place, f"{share:.0%}", fill=(shade,) * 3, font=font)
    left, picture = np.asarray(names), np.asarray(picture)
    # Above, the names stand upright: the same picture, turned.
    top = np.pad(
        left.transpose(1, 0, 2)[::-1],
        ((0, 0), (margin, 0), (0, 0)),
        constant_values=_BACKGROUND,
    )
    return np.concatenate([top, np.concatenate([left, picture], axis=1)])


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
        join([np.kron(column[i], np.ones((factor, factor, 1), np.uint8))
               for column in columns], axis=1)
        for i in range(len(columns[0]))
    ]  # fmt: skip
    return np.pad(
        join(rows, axis=0),
        ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0)),
        constant_values=_BACKGROUND,
    )


def _draw_titles(width: int, titles: Sequence[str]) -> np.ndarray:
    """Writes a title above each of some columns that share a width."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    line = Image.new("RGB", (width, _LINE_HEIGHT), (_BACKGROUND,) * 3)
    draw = ImageDraw.Draw(line)
    pitch = (width - _GUTTER) // len(titles)
    for column, title in enumerate(titles):
        place = (_GUTTER + column * pitch, _GUTTER)
        draw.text(place, title, fill=_TEXT_COLOR, font=font)
    return np.asarray(line)


def draw_legend(
    width: int,
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    others: Mapping[str, tuple[int, int, int]] | None = None,
) -> np.ndarray:
    """Writes the names of classes beside their colours, as many in a line as fit.

    Args:
      width: of the legend, pixels.
      class_names: of the classes.
      palette: the colour of each.
      others: colours, by name, of what is no class; None: of ignored pixels.

    Returns:
      uint8 [rows, width, 3].
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    others = {"ignored": _IGNORED_COLOR} if others is None else others
    entries = [*zip(class_names, palette, strict=True), *others.items()]
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


def join(parts: Sequence[np.ndarray], *, axis: int) -> np.ndarray:
    """Joins pictures, uint8 [rows, columns, 3], with a gutter between them."""
    shape = list(parts[0].shape)
    shape[axis] = _GUTTER
    gutter = np.full(shape, _BACKGROUND, np.uint8)
    joined = [part for item in parts for part in (gutter, item)][1:]
    return np.concatenate(joined, axis=axis)
