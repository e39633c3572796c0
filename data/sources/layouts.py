"""The ways in which people lay out images and masks in folders."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable

from absl import logging

from data import schema
from data.files import images, palettes
from data.sources import (
    advice,
    dividing,
    globs,
    guesses,
    list_files,
    listing,
    naming,
    tfds,
)

SPLITS = ("train", "trainval", "val", "valid", "validation", "test")
"""Splits that are looked for; one of another name has to be asked for."""

_DEFAULTS = {True: ("train", "trainval"), False: ("validation", "val", "valid", "test")}
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
        return all(self.find_halves(root, split))

    def find_halves(self, root: str, split: str) -> tuple[bool, bool]:
        """Tells whether a folder has the images of a split, and whether the masks.

        Folders without files count where both are there. A list is of both; a table of
        anything else that lies in its place is of no masks.
        """
        pair = [self.images, self.masks]
        needed = [self.list_file] if self.list_file else pair
        if self.info:
            needed += pair
        paths = [os.path.join(root, path.format(split=split)) for path in needed]
        there = [os.path.exists(path) for path in paths]
        if self.list_file:
            is_list = not paths[0].endswith(".csv") or list_files.holds_pairs(paths[0])
            return all(there), all(there) and is_list
        if not all(there):
            folder = listing.Folder(root)
            there = [
                any(folder.find_images(path.format(split=split), skips_unreadable=True))
                for path in pair
            ]
        return there[0], there[1]


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
    Layout("images", "masks", "{split}.csv"),
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


Part = tuple[list[listing.Pair], list[listing.Problem]]
"""The pairs of a split, and what is wrong with its files."""


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
      split: name of the split; empty for the one of that role; `all` for every pair,
        those of all splits where there are any.
      is_training: whether an empty `split` means the one to train on.
      image_pattern: of the images, where the folder is in no known layout; `{split}`
        in it stands for the split; see `globs.find_pairs`.
      mask_pattern: of the masks.
      train_fraction: share of an undivided set to train on, met on average.
      seed: another one divides otherwise.

    Raises:
      schema.DataError: if the folder or the split is not there, or holds no pair.
    """
    if not os.path.isdir(data_dir or "."):
        shown = listing.printable(data_dir)
        raise schema.DataError(f"--data_dir={shown} is no folder.")
    candidates = list_candidates(split, is_training)
    if image_pattern:
        is_divided, info = "{split}" in image_pattern, None
        names, folder, parts = _find_by_patterns(
            data_dir, (image_pattern, mask_pattern), candidates
        )
    else:
        layout, names = _choose_layout(data_dir, candidates, is_training)
        is_divided, info = layout != UNDIVIDED, layout.info
        folder = listing.Folder(data_dir)
        parts = [_find_in_layout(folder, layout, name) for name in names]
    name = split if split == schema.ALL_SPLITS else names[0]
    pairs, problems = parts[0] if len(parts) == 1 else _join(parts)
    if not is_divided and split != schema.ALL_SPLITS:
        name, pairs = dividing.take_side(
            pairs,
            data_dir,
            split,
            is_training=is_training,
            train_fraction=train_fraction,
            seed=seed,
        )
    elif is_divided and is_training and train_fraction is not None:
        raise schema.DataError(
            f"--train_fraction={train_fraction}: {data_dir} has splits of its own; "
            "leave the flag out, or name all files with --images and --masks."
        )
    if not pairs and not problems:
        raise schema.DataError(f"--data_dir={data_dir}: the split {name} is empty.")
    return Split(name, folder, tuple(pairs), tuple(problems), info)


def list_candidates(split: str, is_training: bool) -> list[str]:
    """Returns the names by which a split is looked for, in order.

    Args:
      split: its name; empty for the one of that role.
      is_training: whether the role is that to train on.
    """
    wanted = (split,) if split else _DEFAULTS[is_training]
    names = [other for name in wanted for other in _SYNONYMS.get(name, (name,))]
    return list(dict.fromkeys(names))


def _choose_layout(
    data_dir: str, candidates: list[str], is_training: bool
) -> tuple[Layout, list[str]]:
    """Returns the layout of a folder, and the first of some splits that it has.

    A split of which only one half is there is chosen, too: to read it tells which half
    is missing. Halves alone make no layout.
    """
    for layout in LAYOUTS:
        find_halves = functools.partial(layout.find_halves, data_dir)
        whole = [n for n in (*SPLITS, *candidates) if all(find_halves(n))]
        if not whole:
            continue
        if names := _choose_names(candidates, find_halves):
            return layout, names
        raise schema.DataError(
            f"--data_dir={data_dir} has no split {' or '.join(candidates)}; it has "
            f"{', '.join(whole)}. Name one, or `{schema.ALL_SPLITS}`, with "
            f"--{dividing.split_flag(is_training)}."
        )
    if UNDIVIDED.has(data_dir, ""):
        return UNDIVIDED, [""]
    raise schema.DataError(_describe_unknown(data_dir), kind="unknown_layout")


def _choose_names(
    candidates: list[str], find_halves: Callable[[str], tuple[bool, bool]]
) -> list[str]:
    """Returns the first of some splits that has files, images or masks.

    No other one may stand in for it. Where `schema.ALL_SPLITS` is no split by itself,
    all that have files make it up.

    Args:
      candidates: their names.
      find_halves: tells whether there are images of a split, and whether masks.
    """
    is_all = candidates == [schema.ALL_SPLITS]
    for name in candidates:
        if (all if is_all else any)(find_halves(name)):
            return [name]
    names = [n for n in SPLITS if any(find_halves(n))] if is_all else []
    if names[1:] and names[-1] == "test" and find_halves("test") == (True, False):
        # Many sets are published so. Of any other split, the masks are misplaced.
        logging.warning(
            "The split test has images but no masks; `%s` leaves it out.",
            schema.ALL_SPLITS,
        )
        del names[-1]
    return names


def _describe_unknown(data_dir: str) -> str:
    """Says what a folder of no known layout holds, and what to say of it."""
    names = sorted(entry.name for entry in listing.list_entries(data_dir or "."))
    remedy = guesses.propose(data_dir, SPLITS) or (
        "or say where the files are with --images='photos/*.jpg' --masks='labels/*.png'"
    )
    return (
        f"--data_dir={data_dir} holds {listing.name_some(names) or 'nothing'}, but "
        "there should be images/ and masks/ in it, or train/images/ and train/masks/, "
        f"or images/train/ and masks/train/, or train.txt or train.csv; {remedy}."
    )


def _find_by_patterns(
    data_dir: str, patterns: tuple[str, str], candidates: list[str]
) -> tuple[list[str], listing.Folder, list[Part]]:
    """Returns the first of some splits that the patterns have files of, and these."""

    def fill(name: str) -> list[str]:
        return [p.replace("{split}", naming.escape(name)) for p in patterns]

    names = []
    if "{split}" in patterns[0]:
        names = _choose_names(
            candidates,
            lambda name: tuple(globs.has_file(data_dir, p) for p in fill(name)),
        )
    names = names or candidates[:1]
    # Each split by itself would have a root of its own.
    root = globs.find_root(data_dir, [p for name in names for p in fill(name)])
    found = [globs.find_pairs(data_dir, *fill(n), root=root) for n in names]
    return names, found[0][0], [(pairs, problems) for _, pairs, problems in found]


def _find_in_layout(folder: listing.Folder, layout: Layout, split: str) -> Part:
    files, problems = [], []
    for path in (layout.images, layout.masks):
        path = path.format(split=split)
        paths = []
        if os.path.isdir(folder.path / path):
            paths = list(folder.find_images(path))
        if not paths and not layout.list_file:
            other = layout.masks if files == [] else layout.images
            other = other.format(split=split)
            raise schema.DataError(_describe_no_image(folder, path, other))
        files.append(listing.group_by_stem(paths, path))
        if not layout.list_file:
            problems += folder.find_problems(paths)
    if layout.list_file:
        list_file = layout.list_file.format(split=split)
        return list_files.find_pairs(folder, list_file, *files)
    pairs, more_problems = listing.pair_by_key(*files)
    if any(problem.kind == "missing_pair" for problem in more_problems):
        splits = [split]
        if "{split}" in layout.images:
            splits = [n for n in SPLITS if layout.has(folder.path, n)] or splits
        more_problems = advice.advise(
            folder,
            (layout.images, layout.masks),
            split,
            splits=splits,
            files=files,
            problems=more_problems,
        )
    return pairs, problems + more_problems


def _describe_no_image(folder: listing.Folder, path: str, other: str) -> str:
    """Says what a folder holds that should hold images; `other` is its partner."""
    if not os.path.exists(folder.path / path):
        return (
            f"--data_dir={folder.path}: {path}/ is not there, but {other}/ is; add it, "
            f"take {other}/ away, or name another split with --train_split or "
            "--eval_split."
        )
    others = collections.Counter()
    for _, _, names in os.walk(folder.path / path):
        others.update(os.path.splitext(n)[1] or n for n in names if n[0] != ".")
    held = " and ".join(
        f"{count:,} {ending}" for ending, count in others.most_common(3)
    )
    remedy = "; write arrays as TIFF files, which take any number of bands"
    return (
        f"--data_dir={folder.path}: {path}/ holds no image file"
        f"{f' ({held})' if others else ''}; known endings are "
        f"{', '.join(sorted(images.SUFFIXES))}{remedy if '.npy' in others else ''}."
    )


def _join(parts: Iterable[Part]) -> Part:
    """Joins splits; a pair that several of them name counts once."""
    pairs, problems = {}, {}
    for some_pairs, some_problems in parts:
        for pair in some_pairs:
            key = f"{pair.image} {pair.mask}"  # Stems are unique in one split only.
            pairs[key] = dataclasses.replace(pair, key=key)
        problems.update(dict.fromkeys(some_problems))
    return [pairs[key] for key in sorted(pairs)], list(problems)
