"""Images and the JSON files of COCO, in which objects have outlines."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from data.sources import coco_files, drawn, layouts, listing, outlines

_ROLES = {
    "train": ("train",),
    "trainval": ("train", "val"),
    **dict.fromkeys(("val", "valid", "validation"), ("val",)),
    "test": ("test",),
}
"""What the splits are for; those that share nothing have no photo in common."""


def _find_words(path: str) -> list[str]:
    return re.findall("[a-z]+", path.lower())


def _find_roles(path: str) -> set[str]:
    """Returns what the words of a path say that its photos are for."""
    return {role for word in _find_words(path) for role in _ROLES.get(word, ())}


def _find_photos(
    data_dir: str, files: Mapping[str, dict[str, Any]], chosen: Sequence[str]
) -> drawn.Found:
    """Returns JSON file and objects of each image, and what is wrong with the files."""
    places: dict[str, list[str]] = {}
    for path in map(os.path.normpath, listing.Folder(data_dir).find_images(".")):
        places.setdefault(os.path.basename(path), []).append(path)
    claims = _list_claims(places, files)
    photos: dict[str, tuple[str, outlines.Photo]] = {}
    missing, repeated, bare = [], [], []
    for path in chosen:
        with outlines.explaining(path, "COCO"):
            if strays := coco_files.find_strays(files[path]):
                logging.warning(
                    "%s: %d annotations are of images that it does not name (image_id "
                    "%s), and are left out.",
                    path,
                    len(strays),
                    listing.name_some([str(stray) for stray in dict.fromkeys(strays)]),
                )
            for name, photo, without in coco_files.read_photos(files[path]):
                bare += without
                image = _find_image(places, path, name, claims)
                if image is None:
                    missing.append(name)
                elif image in photos:
                    repeated.append(image)
                else:
                    photos[image] = path, photo
    problems = [
        *drawn.make_problem(
            missing,
            "image",
            "not_there",
            "in no folder or several, or in that of another split",
            "add the images",
        ),
        *drawn.make_problem(
            repeated, "image", "named_twice", "named twice", "keep one entry for each"
        ),
        *drawn.make_problem(
            bare, "object", "no_outline", "without an outline", "draw the outlines"
        ),
    ]
    return photos, problems


def _list_claims(
    places: Mapping[str, list[str]], files: Mapping[str, dict[str, Any]]
) -> dict[str, list[set[str]]]:
    """Returns of each image what the JSON files are for that may mean it."""
    claims: dict[str, list[set[str]]] = {}
    for path, content in files.items():
        roles = _find_roles(path)
        with outlines.explaining(path, "COCO"):
            for image in content["images"]:
                for place in _find_places(places, str(image["file_name"])):
                    claims.setdefault(place, []).append(roles)
    return claims


def _find_places(places: Mapping[str, list[str]], name: str) -> list[str]:
    """Returns the images that an entry of a JSON file may mean."""
    name = _normalize(name)
    named = places.get(os.path.basename(name), ())
    return [place for place in named if f"/{place}".endswith(f"/{name}")]


def _normalize(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/"))


def _find_image(
    places: Mapping[str, list[str]],
    path: str,
    name: str,
    claims: Mapping[str, list[set[str]]],
) -> str | None:
    """Returns the only image that may be meant, nearest to the JSON file."""
    found = _find_places(places, name)
    beside = os.path.join(os.path.dirname(path), _normalize(name))
    if beside in found:
        return beside
    if len(found) == 1:
        # In images/train/1.jpg, val.json may mean a 1.jpg that was not copied.
        own = _find_roles(path)
        there = _find_roles(found[0].removesuffix(_normalize(name)))
        is_apart = own and there and own.isdisjoint(there)
        others = [roles for roles in claims[found[0]] if own.isdisjoint(roles)]
        is_claimed = any(roles & there for roles in others)
        return None if is_apart and is_claimed else found[0]
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
