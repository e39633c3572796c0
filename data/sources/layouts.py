"""The ways in which people lay out images and masks in folders."""

import dataclasses
import hashlib
import os

from data import images, palettes, schema
from data.sources import globs, list_files, listing, tfds

SPLITS = ("train", "trainval", "val", "validation", "test")
"""Splits that are looked for; one of another name has to be asked for."""

_DEFAULTS = {True: ("train", "trainval"), False: ("validation", "val", "test")}
_SYNONYMS = {"val": ("val", "validation"), "validation": ("validation", "val")}

_VOC_NAMES, _VOC_COLORS = zip(*palettes.PALETTES["voc"][:-1], strict=True)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the files of a split are; `{split}` stands for its name.

    Attributes:
      images: folder of the images.
      masks: folder of the masks.
      list_file: names the examples of the split; empty if all in the folders are.
      info: the classes, where the layout is that of one data set.
    """

    images: str
    masks: str
    list_file: str = ""
    info: schema.DatasetInfo | None = None

    def has(self, root: str, split: str) -> bool:
        """Tells whether a folder is laid out so and has a split."""
        needed = [self.list_file] if self.list_file else [self.images, self.masks]
        if self.info:
            needed += [self.images, self.masks]
        return all(
            os.path.exists(os.path.join(root, path.format(split=split)))
            for path in needed
        )


LAYOUTS = (
    Layout(
        "JPEGImages",
        "SegmentationClass",
        "ImageSets/Segmentation/{split}.txt",
        schema.DatasetInfo(_VOC_NAMES, palette=_VOC_COLORS),
    ),
    Layout(
        "images",
        "annotations/trimaps",
        "annotations/{split}.txt",
        tfds.KNOWN_INFOS["oxford_iiit_pet"],
    ),
    Layout("{split}/images", "{split}/masks"),
    Layout("images/{split}", "masks/{split}"),
    Layout("images", "masks", "{split}.txt"),
)
"""The first that fits is taken; the last resort is `UNDIVIDED`."""

UNDIVIDED = Layout("images", "masks")


@dataclasses.dataclass(frozen=True)
class Split:
    """What a folder holds of a split.

    Attributes:
      name: of the split.
      folder: that all paths are relative to.
      pairs: images with their masks, sorted by key.
      problems: files that do not fit; a run refuses to start on any.
      info: the classes, if the layout tells.
    """

    name: str
    folder: listing.Folder
    pairs: tuple[listing.Pair, ...]
    problems: tuple[listing.Problem, ...]
    info: schema.DatasetInfo | None = None


def find_split(
    data_dir: str,
    split: str = "",
    *,
    is_training: bool = True,
    image_pattern: str = "",
    mask_pattern: str = "",
    train_fraction: float | None = None,
    seed: int = 0,
) -> Split:
    """Finds the pairs of a split by listing folders; no image is read.

    Args:
      data_dir: the folder.
      split: name of the split; empty for the one of that role.
      is_training: whether an empty `split` means the one to train on.
      image_pattern: of the images, where the folder is in no known layout; `{split}`
        in it stands for the split; see `globs.find_pairs`.
      mask_pattern: of the masks.
      train_fraction: share of an undivided set to train on. It is decided for each
        example by a hash of its key and `seed`, so the share is met on average, and
        files that are added move no other file to the other side.
      seed: another one divides otherwise.

    Raises:
      schema.DataError: if the folder or the split is not there, or holds no pair.
    """
    if not os.path.isdir(data_dir or "."):
        raise schema.DataError(f"--data_dir={data_dir} is no folder.")
    names = (split,) if split else _DEFAULTS[is_training]
    candidates = [other for name in names for other in _SYNONYMS.get(name, (name,))]
    candidates = list(dict.fromkeys(candidates))
    patterns = (image_pattern, mask_pattern)
    if image_pattern:
        layout, info = None, None
        name, (folder, pairs, problems) = _find_by_patterns(
            data_dir, patterns, candidates
        )
    else:
        layout, name = _choose_layout(data_dir, candidates)
        info, folder = layout.info, listing.Folder(data_dir)
        pairs, problems = _find_in_layout(folder, layout, name)
    if layout == UNDIVIDED or (image_pattern and "{split}" not in image_pattern):
        name, is_train = _choose_side(data_dir, split, is_training, train_fraction)
        chosen = [
            pair
            for pair in pairs
            if _is_train(pair.key, train_fraction, seed) == is_train
        ]
        if pairs and not chosen:
            raise schema.DataError(
                f"--train_fraction={train_fraction} leaves none of the {len(pairs)} "
                f"examples of {data_dir} for the split {name}; give another fraction "
                "or another --seed."
            )
        pairs = chosen
    elif train_fraction is not None:
        raise schema.DataError(
            f"--train_fraction={train_fraction}: {data_dir} has splits of its own; "
            "leave the flag out, or name all files with --images and --masks."
        )
    if not pairs and not problems:
        raise schema.DataError(f"--data_dir={data_dir}: the split {name} is empty.")
    return Split(name, folder, tuple(pairs), tuple(problems), info)


def _choose_layout(data_dir: str, candidates: list[str]) -> tuple[Layout, str]:
    """Returns the layout of a folder and the first of some splits that it has."""
    for layout in LAYOUTS:
        splits = [name for name in SPLITS if layout.has(data_dir, name)]
        for name in candidates:
            if layout.has(data_dir, name):
                return layout, name
        if splits:
            raise schema.DataError(
                f"--data_dir={data_dir} has no split {' or '.join(candidates)}; it has "
                f"{', '.join(splits)}. Name one with --train_split or --eval_split."
            )
    if UNDIVIDED.has(data_dir, ""):
        return UNDIVIDED, ""
    names = sorted(os.listdir(data_dir or "."))
    raise schema.DataError(
        f"--data_dir={data_dir} holds {listing.name_some(names) or 'nothing'}, but "
        "there should be images/ and masks/ in it, or train/images/ and train/masks/, "
        "or images/train/ and masks/train/, or train.txt; or say where the files are "
        "with --images='photos/*.jpg' --masks='labels/*.png'."
    )


def _find_by_patterns(data_dir, patterns, candidates):
    """Returns the first of some splits that the patterns have files of, and these."""
    for name in candidates:
        try:
            filled = (pattern.replace("{split}", name) for pattern in patterns)
            return name, globs.find_pairs(data_dir, *filled)
        except schema.DataError:
            if name == candidates[-1]:
                raise
    raise AssertionError("There is always a candidate.")


def _find_in_layout(
    folder: listing.Folder, layout: Layout, split: str
) -> tuple[list[listing.Pair], list[listing.Problem]]:
    files, problems = [], []
    for path in (layout.images, layout.masks):
        path = path.format(split=split)
        paths = []
        if os.path.isdir(folder.path / path):
            paths = list(folder.find_images(path))
        if not paths and not layout.list_file:
            raise schema.DataError(
                f"--data_dir={folder.path}: {path}/ holds no image file; known endings "
                f"are {', '.join(sorted(images.SUFFIXES))}."
            )
        files.append(listing.group_by_stem(paths, path))
        if not layout.list_file:
            problems += folder.find_problems(paths)
    if layout.list_file:
        list_file = layout.list_file.format(split=split)
        return list_files.find_pairs(folder, list_file, *files)
    pairs, more_problems = listing.pair_by_key(*files)
    return pairs, problems + more_problems


def _choose_side(
    data_dir: str, split: str, is_training: bool, train_fraction: float | None
) -> tuple[str, bool]:
    """Returns the name of a part of an undivided set, and whether it is for training.

    Raises:
      schema.DataError: if the set cannot be divided so.
    """
    if train_fraction is None:
        raise schema.DataError(
            f"--data_dir={data_dir} is not divided into splits; give --train_fraction, "
            "e.g. --train_fraction=0.8 to train on about 80% and evaluate on the rest."
        )
    name = split or ("train" if is_training else "validation")
    if name not in ("train", "val", "validation", "test"):
        raise schema.DataError(
            f"--train_fraction={train_fraction} divides {data_dir} into train and "
            f"validation; there is no split {name}."
        )
    return name, name == "train"


def _is_train(key: str, train_fraction: float, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < train_fraction * 2**64
