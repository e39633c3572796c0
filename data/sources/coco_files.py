"""JSON files of COCO: which there are in a folder, and the objects that they hold."""

import functools
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data import schema
from data.sources import json_files, outlines

_PARTS = ("annotations", "categories", "images")
_MOST_FILES = 100
"""COCO has one file a split. Who has more JSON files most likely has others; not all
are read to find that out."""


def find(data_dir: str, *, is_strict: bool = False) -> list[str]:
    """Finds the JSON files of a folder that are as COCO has them.

    Args:
      data_dir: the folder.
      is_strict: whether they are known to be there: then all JSON files are looked
        at, however many, and one that cannot be read is an error.

    Returns:
      Their paths, relative to the folder; where some are called instances, these alone,
      as beside them lie captions and key points of the same images.

    Raises:
      schema.DataError: if a file cannot be read, and that is an error.
    """
    most = None if is_strict else _MOST_FILES + 1
    paths = list(itertools.islice(json_files.find(data_dir), most))
    if most and len(paths) == most:
        return []
    instances = [p for p in paths if os.path.basename(p).startswith("instances")]
    found = []
    for path in sorted(instances or paths):
        whole = os.path.join(data_dir, path)
        try:
            with json_files.reading(path, data_dir):
                content = _read(whole, os.stat(whole).st_mtime_ns)
        except schema.DataError:
            if is_strict:
                raise
            continue
        if isinstance(content, dict) and content.keys() >= set(_PARTS):
            found.append(path)
    return found


@functools.lru_cache(maxsize=8)
def _read(path: str, _: int) -> Any:
    """Reads a JSON file; the number is that of its last change."""
    return json_files.read(path)


def read_files(data_dir: str) -> dict[str, dict]:
    """Returns the contents of the JSON files of a folder.

    Raises:
      schema.DataError: if there is none, or one cannot be read.
    """
    if not os.path.isdir(data_dir):
        raise schema.DataError(f"--data_dir={data_dir} is no folder.")
    paths = find(data_dir, is_strict=True)
    if not paths:
        raise schema.DataError(
            f"--data_dir={data_dir} holds no JSON file of COCO, an object with "
            f"{', '.join(_PARTS)}; name the folder that holds the images and "
            "such a file, or a file for each split, like annotations/train.json."
        )
    wholes = [os.path.join(data_dir, path) for path in paths]
    contents = [_read(whole, os.stat(whole).st_mtime_ns) for whole in wholes]
    return dict(zip(paths, contents, strict=True))


def list_classes(files: Mapping[str, dict]) -> tuple[str, ...]:
    """Returns the names of the classes of all files but background, by their ids."""
    classes = {}
    for path, content in files.items():
        with outlines.explaining(path, "COCO"):
            for category in content["categories"]:
                classes.setdefault((int(category["id"]), str(category["name"])))
    names = dict.fromkeys(name for _, name in sorted(classes))
    return tuple(name for name in names if not outlines.is_background(name))


def find_strays(content: dict) -> list:
    """Returns the image of each annotation whose image the file does not name, by ids.

    Raises:
      ValueError: if it does name the image, but by a number in place of text.
    """
    ids = {image["id"] for image in content["images"]}
    named = [annotation["image_id"] for annotation in content["annotations"]]
    strays = [image_id for image_id in named if image_id not in ids]
    texts = set(map(str, ids))
    for image_id in strays:
        if str(image_id) in texts:
            raise ValueError(
                f"image_id {image_id!r} and the id of an image are text and number"
            )
    return strays


def read_photos(content: dict) -> Iterator[tuple[str, outlines.Photo, list[str]]]:
    """Yields of each image its name, its objects, and those without an outline."""
    names = {c["id"]: str(c["name"]) for c in content["categories"]}
    objects: dict[Any, list[dict]] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    for image in content["images"]:
        size = (int(image["height"]), int(image["width"]))
        shapes, bare = [], []
        for annotation in objects.get(image["id"], ()):
            name = names[annotation["category_id"]]
            if outlines.is_background(name):
                continue
            if segmentation := annotation.get("segmentation"):
                shape = _read_shape(segmentation, size)
                area = float(annotation.get("area") or 0)
                if not area or math.isnan(area):  # Not all tools write one.
                    area = outlines.measure(shape)
                shapes.append((area, outlines.Shape(name, shape)))
            else:
                bare.append(f"{image['file_name']} (annotation {annotation.get('id')})")
        # What is small lies upon what is large; sorting keeps the order of equals.
        shapes.sort(key=lambda sized: -sized[0])
        photo = outlines.Photo(size, tuple(shape for _, shape in shapes))
        yield str(image["file_name"]), photo, bare


def _read_shape(
    segmentation: dict | Sequence, size: tuple[int, int]
) -> tuple[np.ndarray, ...] | np.ndarray:
    """Returns outlines, or the lengths of runs."""
    if not isinstance(segmentation, dict):
        shapes = tuple(np.array(outline, np.float64) for outline in segmentation)
        if any(shape.ndim != 1 or len(shape) % 2 for shape in shapes):
            raise ValueError("an outline is no list of x and y in turn")
        for shape in shapes:
            outlines.check_corners(shape)
        return shapes
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = outlines.unpack_runs(counts)
    counts = np.array(counts, np.int64)
    if (counts < 0).any() or counts.sum() != size[0] * size[1]:
        raise ValueError(
            f"runs of {counts.sum()} pixels in an image of {size[0]}x{size[1]}"
        )
    return counts
