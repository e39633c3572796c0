"""Images and the JSON files of LabelMe, in which objects have outlines."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from data import schema
from data.sources import drawn, labelme_files, layouts, listing, outlines


def _read_files(data_dir: str) -> dict[str, dict[str, Any]]:
    if not os.path.isdir(data_dir):
        raise schema.DataError(f"--data_dir={data_dir} is no folder.")
    files = dict(labelme_files.find(data_dir))
    if not files:
        raise schema.DataError(
            f"--data_dir={data_dir} holds no JSON file of LabelMe; name the folder "
            "that holds the images and such a file for each."
        )
    return files


def _list_folders(path: str) -> list[str]:
    return path.split("/")[:-1]


def _find_name(content: Mapping[str, Any]) -> str:
    return str(content["imagePath"]).replace("\\", "/")


def _find_images(
    there: Collection[str], files: Mapping[str, dict[str, Any]]
) -> dict[str, str]:
    """Returns the image of each JSON file, or nothing where it is not there."""
    stems: dict[str, list[str]] = {}
    for path in there:
        stems.setdefault(os.path.splitext(path)[0], []).append(path)
    found = {}
    for path, content in files.items():
        named = os.path.join(os.path.dirname(path), _find_name(content))
        image = os.path.normpath(named)
        if image not in there:  # Renamed together, or moved from elsewhere.
            alike = stems.get(os.path.splitext(path)[0], ())
            image = alike[0] if len(alike) == 1 else ""
        found[path] = image
    return found


def _warn_of_images_alone(
    images: Iterable[str], files: Iterable[str], chosen: Iterable[str]
) -> None:
    """Tells which images have no JSON file, but for those beside files of other splits.

    Args:
      images: paths of all of them.
      files: paths of all JSON files.
      chosen: those of the split.
    """
    words, own = (set().union(*map(_list_folders, p)) for p in (files, chosen))
    others = words.intersection(layouts.SPLITS) - own
    left = sorted(i for i in images if others.isdisjoint(_list_folders(i)))
    if left:
        logging.warning(
            "%s no JSON file of LabelMe, and %s left out: %s; annotate what is to be "
            "read.",
            f"{listing.count(left, 'image')} {'have' if left[1:] else 'has'}",
            "are" if left[1:] else "is",
            listing.name_some(left),
        )


def _find_photos(
    data_dir: str, files: Mapping[str, dict[str, Any]], chosen: Sequence[str]
) -> drawn.Found:
    """Returns JSON file and objects of each image, and what is wrong with the files."""
    there = set(map(os.path.normpath, listing.Folder(data_dir).find_images(".")))
    images = _find_images(there, files)
    _warn_of_images_alone(there.difference(images.values()), files, chosen)
    photos: dict[str, tuple[str, outlines.Photo]] = {}
    missing, repeated, damaged, bare = [], [], [], []
    for path in chosen:
        content, image = files[path], images[path]
        if not image:
            missing.append(f"{_find_name(content)} ({path})")
            continue
        if image in photos:
            repeated.append(image)
            continue
        with outlines.explaining(path, "LabelMe"):
            size = labelme_files.read_size(content)
            whole = os.path.join(data_dir, image)
            try:
                size = size or labelme_files.measure_photo(whole)
            except schema.DataError as error:
                damaged.append(f"{image} ({error})")
                continue
            shapes, without = labelme_files.read_shapes(content, size)
        bare += [f"{path}: {name}" for name in without]
        photos[image] = path, outlines.Photo(size, tuple(shapes))
    problems = [
        *drawn.make_problem(
            missing, "image", "not_there", "not there", "add the images"
        ),
        *drawn.make_problem(
            repeated, "image", "named_twice", "named twice", "keep one file for each"
        ),
        *drawn.make_problem(
            damaged,
            "image",
            "unreadable_file",
            "damaged, so that its size is not known",
            "get the images again",
        ),
        *drawn.make_problem(
            bare, "object", "no_outline", "without an inside", "draw outlines"
        ),
    ]
    return photos, problems


class LabelMeSource(drawn.DrawnSource):
    """A split of a folder with images and a JSON file of LabelMe for each.

    A pixel has the class of the last object of the file that is there, or is
    background; objects called `__ignore__` are of no class.
    """

    _read_files = staticmethod(_read_files)
    _words_of = staticmethod(_list_folders)
    _find_photos = staticmethod(_find_photos)
    _list_classes = staticmethod(labelme_files.list_classes)


open_split = LabelMeSource.open
