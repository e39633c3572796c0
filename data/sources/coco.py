"""Images and the JSON files of COCO, in which objects have outlines."""

import os
import re
from collections.abc import Mapping
from typing import Any

from data.sources import coco_files, drawn, layouts, listing, outlines


def _find_words(path: str) -> list[str]:
    return re.findall("[a-z]+", path.lower())


def _find_photos(data_dir: str, files: Mapping[str, dict[str, Any]]) -> drawn.Found:
    """Returns JSON file and objects of each image, and what is wrong with the files."""
    places: dict[str, list[str]] = {}
    for path in map(os.path.normpath, listing.Folder(data_dir).find_images(".")):
        places.setdefault(os.path.basename(path), []).append(path)
    photos: dict[str, tuple[str, outlines.Photo]] = {}
    missing, repeated, bare = [], [], []
    for path, content in files.items():
        with outlines.explaining(path, "COCO"):
            for name, photo, without in coco_files.read_photos(content):
                bare += without
                image = _find_image(places, path, name)
                if image is None:
                    missing.append(name)
                elif image in photos:
                    repeated.append(image)
                else:
                    photos[image] = path, photo
    problems = [
        *drawn.make_problem(
            missing, "image", "not_there", "in no folder or several", "add the images"
        ),
        *drawn.make_problem(
            repeated, "image", "named_twice", "named twice", "keep one entry for each"
        ),
        *drawn.make_problem(
            bare, "object", "no_outline", "without an outline", "draw the outlines"
        ),
    ]
    return photos, problems


def _find_image(places: Mapping[str, list[str]], path: str, name: str) -> str | None:
    """Returns the only image that may be meant, nearest to the JSON file."""
    name = os.path.normpath(name.replace("\\", "/"))
    found = [
        place
        for place in places.get(os.path.basename(name), ())
        if f"/{place}".endswith(f"/{name}")
    ]
    beside = os.path.join(os.path.dirname(path), name)
    if beside in found or len(found) < 2:
        return beside if beside in found else (found or [None])[0]
    # Of images/train/1.jpg and images/val/1.jpg, that of the file's own split.
    splits = set(_find_words(path)) & set(layouts.SPLITS)
    alike = [place for place in found if splits & set(_find_words(place))]
    return alike[0] if len(alike) == 1 else None


class CocoSource(drawn.DrawnSource):
    """A split of a folder with images and the JSON files of COCO.

    A pixel has the class of the smallest object that is there, or is background.
    """

    _read_files = staticmethod(coco_files.read_files)
    _words_of = staticmethod(_find_words)
    _find_photos = staticmethod(_find_photos)
    _list_classes = staticmethod(coco_files.list_classes)


open_split = CocoSource.open
