"""The kinds of data sets, by the word that `--dataset` starts with.

The module of a kind has a function `open_split`, from a `SplitRequest` to a
`schema.Source`. Nothing heavy is imported here: `--help` and a rejected flag answer at
once.
"""

import dataclasses
import importlib
from typing import NamedTuple

from data import schema


class Kind(NamedTuple):
    """A kind of data sets.

    Attributes:
      module: what to import when a data set is opened.
      about: what `--help` says of it.
      takes_name: whether it has many data sets, of which `KIND:NAME` names one.
    """

    module: str
    about: str
    takes_name: bool = False


SOURCES = {
    "synthetic": Kind("data.sources.synthetic", "pictures that segloop draws"),
    "folder": Kind("data.sources.folder", "the images and masks in --data_dir"),
    "coco": Kind(
        "data.sources.coco",
        "the images in --data_dir, with outlines in JSON files of COCO",
    ),
    "labelme": Kind(
        "data.sources.labelme",
        "the images in --data_dir, with outlines in a JSON file of LabelMe for each",
    ),
    "tfds": Kind(
        "data.sources.tfds",
        "a set of TensorFlow Datasets, NAME[/CONFIG][:VERSION], e.g. "
        "tfds:oxford_iiit_pet",
        takes_name=True,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """A split that is asked for. A source reads what has a meaning for its kind.

    Attributes:
      split: name of the split; empty for the data set's own split of that role;
        `schema.ALL_SPLITS` for every example.
      is_training: whether an empty `split` means the one to train on, rather than the
        one to evaluate on.
      image_size: height and width that the model wants; synthetic pictures are drawn in
        a square of the shorter side.
      name: of the data set, where a kind has many.
      data_dir: the folder of images and masks; or that of the TFDS data sets, empty for
        TFDS's default.
      image_key: TFDS feature that holds the image.
      label_key: TFDS feature that holds the mask.
      image_pattern: of the images in a folder; see `layouts.find_split`.
      mask_pattern: of the masks in a folder.
      train_fraction: share of an undivided folder to train on.
      seed: of that division.
      half: 0 or 1 for one half of the split; see `halves`.
      allow_problems: whether to open a folder also where names or places of files do
        not fit; see `folder.FolderSource`.
    """

    split: str
    is_training: bool
    image_size: tuple[int, int]
    name: str = ""
    data_dir: str = ""
    image_key: str = "image"
    label_key: str = "segmentation_mask"
    image_pattern: str = ""
    mask_pattern: str = ""
    train_fraction: float | None = None
    seed: int = 0
    half: int | None = None
    allow_problems: bool = False


def parse(dataset: str) -> tuple[str, str]:
    """Reads the name of a data set.

    Returns:
      A key of `SOURCES`, and what follows it after a colon, which may be empty.

    Raises:
      ValueError: if it is none; the message says the rule.
    """
    kind, colon, name = dataset.partition(":")
    if kind in SOURCES and SOURCES[kind].takes_name == bool(name) == bool(colon):
        return kind, name
    raise ValueError(f"use {', '.join(_patterns()[:-1])} or {_patterns()[-1]}")


def describe() -> str:
    """Returns what `--help` says of the kinds."""
    kinds = zip(_patterns(), SOURCES.values(), strict=True)
    return "; ".join(f"{pattern}: {kind.about}" for pattern, kind in kinds)


def _patterns() -> list[str]:
    return [f"{n}:NAME" if kind.takes_name else n for n, kind in SOURCES.items()]


def open_source(dataset: str, request: SplitRequest) -> schema.Source:
    """Opens a split of a data set.

    Args:
      dataset: as `parse` reads it; the request needs no name.
      request: what to open.

    Raises:
      schema.DataError: if the data set or the split is not there.
    """
    kind, name = parse(dataset)
    module = importlib.import_module(SOURCES[kind].module)
    source = module.open_split(dataclasses.replace(request, name=name))
    if request.half is None:
        return source
    halves = importlib.import_module("data.sources.halves")
    return halves.HalfSource(source, request.half)
