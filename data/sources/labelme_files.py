"""JSON files of LabelMe, one for each image, and the objects that they hold."""

import base64
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data import schema
from data.sources import json_files, outlines

_PARTS = ("imagePath", "shapes")
_CIRCLE_CORNERS = 64


def find(data_dir: str) -> Iterator[tuple[str, dict]]:
    """Yields path and content of each JSON file of LabelMe in a folder.

    Raises:
      schema.DataError: if a JSON file cannot be read.
    """
    for path in json_files.find(data_dir):
        with json_files.reading(path, data_dir):
            content = json_files.read(os.path.join(data_dir, path))
        if isinstance(content, dict) and content.keys() >= set(_PARTS):
            content.pop("imageData", None)  # The whole image, as text.
            yield path, content


def read_size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns height and width of the image, None if the file leaves them out."""
    if content.get("imageHeight") and content.get("imageWidth"):
        return int(content["imageHeight"]), int(content["imageWidth"])
    return None


def measure_photo(path: str) -> tuple[int, int]:
    """Returns height and width of a photo as viewers show it, and so LabelMe.

    Raises:
      schema.DataError: if it cannot be read; the message does not name it.
    """
    from data.files import images

    try:
        with open(path, "rb") as file:
            return images.read_header(file.read()).shown_size
    except OSError as error:
        raise schema.DataError(f"it cannot be read ({error.strerror})") from error


def read_shapes(
    content: Mapping[str, Any], size: tuple[int, int]
) -> tuple[list[outlines.Shape], list[str]]:
    """Reads the objects of a file.

    Args:
      content: of the file.
      size: height and width of the image.

    Returns:
      Those that cover pixels, each over those before, and the names of the others:
      points and lines.

    Raises:
      ValueError: and others, if they are not as LabelMe has them.
    """
    shapes, bare = [], []
    for shape in content["shapes"]:
        name, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
        name = outlines.BACKGROUND if outlines.is_background(name) else name
        points = np.array(shape["points"], np.float64)
        outlines.check_corners(points)
        if kind in ("polygon", "rectangle", "circle"):
            corners = _find_corners(kind, points)
            shapes.append(outlines.Shape(name, (corners.ravel(),)))
        elif kind == "mask":
            mask = _place_mask(shape["mask"], points, size)
            shapes.append(outlines.Shape(name, outlines.count_runs(mask)))
        else:
            bare.append(f"{name}, a {kind}")
    return shapes, bare


def _find_corners(kind: str, points: np.ndarray) -> np.ndarray:
    """Returns the corners of an outline, [corners, 2], x and y."""
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"a {kind} has points that are no pairs of x and y")
    if kind == "polygon":
        return points
    if len(points) != 2:
        raise ValueError(f"a {kind} has {len(points)} points, not two")
    (left, top), (right, bottom) = points
    if kind == "rectangle":
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    angles = np.arange(_CIRCLE_CORNERS) * (2 * math.pi / _CIRCLE_CORNERS)
    radius = math.hypot(right - left, bottom - top)
    return points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _place_mask(text: str, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lays a mask, a PNG file as text, between two corners of an image."""
    part = _decode_image(base64.b64decode(text)) > 0
    left, top = points[0].round().astype(int)
    mask = np.zeros(size, bool)
    if (
        min(left, top) < 0
        or top + part.shape[0] > size[0]
        or (left + part.shape[1] > size[1])
    ):
        raise ValueError("a mask leaves the image")
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _decode_image(encoded: bytes) -> np.ndarray:
    """Returns the gray values of a mask's file, uint8 [height, width].

    Raises:
      ValueError: if it is damaged, whatever Pillow says then.
    """
    from data.files import images

    try:
        return images.load_pixels(images.open_image(encoded), "L")
    except schema.DataError as error:
        raise ValueError(f"a mask: {error}") from error


def list_classes(files: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the names of all objects, in order, but background and no class.

    Raises:
      schema.DataError: if a file is not as LabelMe has it.
    """
    names = set()
    for path, content in files.items():
        with outlines.explaining(path, "LabelMe"):
            names |= {str(shape["label"]) for shape in content["shapes"]}
    names.discard(outlines.IGNORED)
    return tuple(sorted(name for name in names if not outlines.is_background(name)))
