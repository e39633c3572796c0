"""Patterns for images and masks in a folder of no known layout."""

import contextlib
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from data import schema
from data.sources import coco_files, globs, labelme_files, listing, naming

_LOSSY = frozenset({".jpg", ".jpeg"})
"""Endings of what can be photos, but not masks."""
_MOST_FILES = 100_000
"""Files times families, that is: to pair them takes seconds, and there is only a
message to be written."""
_NUM_TRIED = 50
"""Images that a way of naming is sought for; it is then tried on all."""
_MOST_PROPOSALS = 4
"""That are tried on all files, the likeliest first."""
_HOLE = "{split}"


class _File(NamedTuple):
    """An image file: the split that its folder names, and its path below its family."""

    split: str
    below: str

    @property
    def stem(self) -> str:
        return os.path.splitext(f"{self.split}/{self.below}")[0]

    @property
    def ending(self) -> str:
        return os.path.splitext(self.below)[1].lower()


class _Family(NamedTuple):
    """Files that may be all images, or all masks; `{split}` in the folder is open."""

    folder: str
    files: Sequence[_File]

    @property
    def stems(self) -> set[str]:
        return {file.stem for file in self.files}

    def is_lossy(self) -> bool:
        return all(file.ending in _LOSSY for file in self.files)


def propose(data_dir: str, splits: Collection[str]) -> str:
    """Proposes what to say of a folder whose layout is not known.

    Args:
      data_dir: the folder.
      splits: names that a folder of a split may have.

    Returns:
      A remedy with `--images` and `--masks` that pair all images there are, or with the
      `--dataset` that reads the annotation files; empty if none is found.
    """
    return _propose_patterns(data_dir, splits) or _propose_dataset(data_dir)


def _propose_dataset(data_dir: str) -> str:
    path, name = next(iter(coco_files.find(data_dir)), ""), "coco"
    if not path:
        with contextlib.suppress(schema.DataError):
            path, name = next(labelme_files.find(data_dir), ("", ""))[0], "labelme"
    return f"say --dataset={name}, which draws the outlines in {path}" if path else ""


def _propose_patterns(data_dir: str, splits: Collection[str]) -> str:
    found = listing.Folder(data_dir).find_images(".", skips_unreadable=True)
    some = itertools.islice(filter(listing.is_image, found), _MOST_FILES + 1)
    paths = sorted(map(os.path.normpath, some))
    families = _group(paths, splits)
    if len(paths) * len(families) > _MOST_FILES:
        return ""
    proposals = []
    for images, masks in _list_partners(families):
        if patterns := _find_patterns(images, masks):
            proposals.append((_unlikeliness(images, masks, patterns), images))
    for (*_, image_pattern, mask_pattern), images in sorted(proposals)[
        :_MOST_PROPOSALS
    ]:
        if _pairs_all(data_dir, (image_pattern, mask_pattern), images):
            return (
                f"say --images='{image_pattern}' --masks='{mask_pattern}', which pairs "
                f"all {len(images.files)} images"
            )
    return ""


def _group(paths: Sequence[str], splits: Collection[str]) -> list[_Family]:
    """Groups files by the folders that tell images from masks."""
    families: dict[str, list[_File]] = {}
    for path in paths:
        *parts, name = path.split("/")
        place = next((i for i, part in enumerate(parts) if part in splits), None)
        split, end = "", 1
        if place is not None:
            split, parts[place] = parts[place], _HOLE
            end = max(place + 1, 2)
        below = "/".join([*parts[end:], name])
        families.setdefault("/".join(parts[:end]), []).append(_File(split, below))
    return [_Family(folder, files) for folder, files in families.items()]


def _list_partners(families: Sequence[_Family]) -> Iterator[tuple[_Family, _Family]]:
    """Yields what may be images and their masks: two folders, or halves of one."""
    for images, masks in itertools.permutations(families, 2):
        if (_HOLE in images.folder) == (_HOLE in masks.folder):
            yield images, masks
    for folder, files in families:
        for are_masks in (
            [file.ending not in _LOSSY for file in files],
            [naming.names_masks(os.path.basename(file.below)) for file in files],
        ):
            masks = list(itertools.compress(files, are_masks))
            images = [
                f for f, is_mask in zip(files, are_masks, strict=True) if not is_mask
            ]
            if images and masks:
                yield _Family(folder, images), _Family(folder, masks)


def _find_patterns(images: _Family, masks: _Family) -> tuple[str, str] | None:
    """Returns patterns that may pair two families; None if none can."""
    if any(file.ending in _LOSSY for file in masks.files):
        return None
    if images.folder != masks.folder and naming.names_masks(images.folder):
        return None
    around = (("", ""), ("", ""))
    if not masks.stems >= images.stems:
        tried = sorted(images.stems)[:_NUM_TRIED]
        affixes = naming.find_affixes(tried, masks.stems)
        if affixes is None or len(masks.files) < len(images.files):
            return None
        around = (
            (affixes.image_prefix, affixes.image_suffix),
            (affixes.mask_prefix, affixes.mask_suffix),
        )
    if not images.is_lossy() and not naming.names_masks(
        masks.folder + "".join(around[1])
    ):
        return None  # Which of the two are masks does not show.
    image_pattern, mask_pattern = (
        naming.make_pattern(
            naming.escape(folder), *affixes, [file.below for file in files]
        )
        for (folder, files), affixes in zip((images, masks), around, strict=True)
    )
    return image_pattern, mask_pattern


def _pairs_all(data_dir: str, patterns: tuple[str, str], images: _Family) -> bool:
    """Tells whether two patterns pair all files of a family, and leave none over."""
    num_pairs = 0
    for split in {file.split for file in images.files}:
        filled = [pattern.replace(_HOLE, naming.escape(split)) for pattern in patterns]
        try:
            _, pairs, problems = globs.find_pairs(data_dir, *filled)
        except schema.DataError:
            return False
        if problems:
            return False
        num_pairs += len(pairs)
    return num_pairs == len(images.files)


def _unlikeliness(
    images: _Family, masks: _Family, patterns: tuple[str, str]
) -> tuple[int, bool, int, int, str, str]:
    return (
        -len(images.files),
        not naming.names_masks(patterns[1]),
        len(masks.files),
        sum(map(len, patterns)),
        *patterns,
    )
