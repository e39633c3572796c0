"""Images and the JSON files of LabelMe, in which objects have outlines."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from data import schema
from data.sources import drawn, labelme_files, layouts, listing, outlines, registry


class LabelMeSource(drawn.DrawnSource):
    """A split of a folder with images and a JSON file of LabelMe for each.

    A pixel has the class of the last object of the file that is there, or is
    background; objects called `__ignore__` are of no class.
    """

    def __init__(
        self,
        data_dir: str,
        split: str = "",
        *,
        is_training: bool = True,
        train_fraction: float | None = None,
        seed: int = 0,
        allow_problems: bool = False,
    ) -> None:
        """Reads the JSON files; arguments as `layouts.find_split`.

        Raises:
          schema.DataError: if the split is not there, a JSON file is not as LabelMe has
            it, or, unless problems are allowed, with these.
        """
        if not os.path.isdir(data_dir):
            raise schema.DataError(f"--data_dir={data_dir} is no folder.")
        files = dict(labelme_files.find(data_dir))
        if not files:
            raise schema.DataError(
                f"--data_dir={data_dir} holds no JSON file of LabelMe; name the folder "
                "that holds the images and such a file for each."
            )
        splits: dict[str, list[str]] = {}
        for path in files:
            folders = path.split("/")[:-1]
            name = next((part for part in folders if part in layouts.SPLITS), "")
            splits.setdefault(name, []).append(path)
        name, chosen, is_divided = drawn.choose_files(
            data_dir, splits, split, is_training
        )
        photos, problems = _find_photos(data_dir, files, chosen)
        super().__init__(
            data_dir,
            name,
            photos,
            problems,
            class_names=labelme_files.list_classes(files),
            is_divided=is_divided,
            is_training=is_training,
            train_fraction=train_fraction,
            seed=seed,
            allow_problems=allow_problems,
        )


def open_split(request: registry.SplitRequest) -> LabelMeSource:
    """Opens a split; see `registry`."""
    return LabelMeSource(
        request.data_dir,
        request.split,
        is_training=request.is_training,
        train_fraction=request.train_fraction,
        seed=request.seed,
        allow_problems=request.allow_problems,
    )


def _find_photos(
    data_dir: str, files: Mapping[str, dict[str, Any]], chosen: Sequence[str]
) -> tuple[dict[str, tuple[str, outlines.Photo]], list[listing.Problem]]:
    """Returns JSON file and objects of each image, and what is wrong with the files."""
    there = set(map(os.path.normpath, listing.Folder(data_dir).find_images(".")))
    stems: dict[str, list[str]] = {}
    for path in there:
        stems.setdefault(os.path.splitext(path)[0], []).append(path)
    photos: dict[str, tuple[str, outlines.Photo]] = {}
    missing, repeated, bare = [], [], []
    for path in chosen:
        content = files[path]
        named = str(content["imagePath"]).replace("\\", "/")
        image = os.path.normpath(os.path.join(os.path.dirname(path), named))
        if image not in there:  # Renamed together, or moved from elsewhere.
            alike = stems.get(os.path.splitext(path)[0], ())
            image = alike[0] if len(alike) == 1 else ""
        if not image:
            missing.append(f"{named} ({path})")
            continue
        if image in photos:
            repeated.append(image)
            continue
        with outlines.explaining(path, "LabelMe"):
            size = labelme_files.read_size(content, os.path.join(data_dir, image))
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
            bare, "object", "no_outline", "without an inside", "draw outlines"
        ),
    ]
    return photos, problems
