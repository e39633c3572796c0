"""Sources whose masks are drawn: of objects with outlines in annotation files."""

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from absl import logging

from data import schema
from data.sources import dividing, layouts, listing, outlines, paired, registry
from data.sources import folder as folder_lib

if TYPE_CHECKING:
    import tensorflow as tf


Found = tuple[dict[str, tuple[str, outlines.Photo]], list[listing.Problem]]
"""Annotation file and objects by the path of each image, and what is wrong."""


class DrawnSource(paired.PairedSource):
    """A split of images with objects; attributes as `schema.Source`.

    Examples come in the order of the paths of the images. A pixel that is in no object
    is of the class `outlines.BACKGROUND`. What the files of a tool are and hold, tell
    the methods that are not here.

    Attributes:
      problems: what is wrong with the files; empty unless it is allowed.
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
          schema.DataError: if the split is not there, is empty or cannot be made, a
            file is not as the tool has it, or, unless problems are allowed, with these.
        """
        files = self._read_files(data_dir)
        splits: dict[str, list[str]] = {}
        for path in files:
            words = self._words_of(path)
            name = next((word for word in words if word in layouts.SPLITS), "")
            splits.setdefault(name, []).append(path)
        split, chosen, is_divided = choose_files(data_dir, splits, split, is_training)
        photos, problems = self._find_photos(data_dir, files, chosen)
        class_names = self._list_classes(files)
        root = listing.Folder(data_dir)
        problems = [*problems, *root.find_problems(photos)]
        wrong = {path for problem in problems for path in problem.files}
        usable = sorted(photos.keys() - wrong)
        pairs = [listing.Pair(path, path, photos[path][0]) for path in usable]
        if is_divided and is_training and train_fraction is not None:
            raise schema.DataError(
                f"--train_fraction={train_fraction}: the JSON files of {data_dir} are "
                "those of splits; leave the flag out."
            )
        if not is_divided and split != schema.ALL_SPLITS:
            split, pairs = dividing.take_side(
                pairs,
                data_dir,
                split,
                is_training=is_training,
                train_fraction=train_fraction,
                seed=seed,
            )
        where = f"--data_dir={data_dir}, split {split}"
        if problems and not allow_problems:
            described = ". Also, ".join(map(str, problems))
            raise schema.DataError(f"{where}: {described}.", kind=problems[0].kind)
        if not pairs and not problems:
            raise schema.DataError(f"{where}: it is empty.")
        self.name = f"{root.path.resolve().name}/{split}"
        self.info = schema.DatasetInfo((outlines.BACKGROUND, *class_names))
        self.problems = tuple(problems)
        self.fingerprint = _make_fingerprint(root, pairs, class_names)
        super().__init__(str(root.path), pairs)
        self._photos = [photos[pair.image][1] for pair in pairs]
        logging.info("Found %d images of %s in %s.", len(self), self.name, data_dir)

    @classmethod
    def open(cls, request: registry.SplitRequest) -> Self:
        """Opens a split; see `registry`."""
        return cls(
            request.data_dir,
            request.split,
            is_training=request.is_training,
            train_fraction=request.train_fraction,
            seed=request.seed,
            allow_problems=request.allow_problems,
        )

    @staticmethod
    @abc.abstractmethod
    def _read_files(data_dir: str) -> Mapping[str, dict[str, Any]]:
        """Returns the contents of all files of the tool by their paths."""

    @staticmethod
    @abc.abstractmethod
    def _words_of(path: str) -> Sequence[str]:
        """Returns what of a path may be the name of a split."""

    @staticmethod
    @abc.abstractmethod
    def _find_photos(
        data_dir: str, files: Mapping[str, dict[str, Any]], chosen: Sequence[str]
    ) -> Found:
        """Returns the photos of chosen files, and what is wrong with these."""

    @staticmethod
    @abc.abstractmethod
    def _list_classes(files: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
        """Returns the names of the classes of all files but the background."""

    def draw_label(self, index: int) -> np.ndarray:
        """Draws the mask of an example, uint16 [height, width]."""
        values = {name: value for value, name in enumerate(self.info.class_names)}
        values[outlines.IGNORED] = schema.IGNORE_LABEL
        size, shapes = self._photos[index]
        return outlines.draw([(values[s.name], s.shape) for s in shapes], size)

    def load(self, index: "tf.Tensor") -> "dict[str, tf.Tensor]":
        """Reads one example, in a graph or not; see `schema.Source.examples`.

        Args:
          index: int64 scalar, 0..len-1.

        Returns:
          `image`, the bytes of the file, `label`, uint16 [height, width], `name` and
          `label_name`, the paths of image and annotation file relative to the folder.
        """
        import tensorflow as tf

        image, file, root = self._find(index)
        label = tf.numpy_function(
            lambda i: self.draw_label(int(i)), [index], tf.uint16, stateful=False
        )
        return {
            "image": tf.io.read_file(root + image),
            "label": tf.ensure_shape(label, [None, None]),
            "name": image,
            "label_name": file,
        }


def _make_fingerprint(
    root: listing.Folder, pairs: Sequence[listing.Pair], class_names: Sequence[str]
) -> str:
    files = folder_lib.make_fingerprint(root, tuple(pairs))
    # Files of other splits may have classes that number those of this one anew.
    return ":".join([files, *class_names])


def choose_files(
    data_dir: str, splits: Mapping[str, list[str]], split: str, is_training: bool
) -> tuple[str, list[str], bool]:
    """Chooses the annotation files of a split.

    Args:
      data_dir: the folder.
      splits: the files by the split that their paths tell, those without one under ''.
      split: as in `layouts.find_split`.
      is_training: as there.

    Returns:
      The split, its files, and whether it is one that paths tell.

    Raises:
      schema.DataError: if there is no such split.
    """
    everything = [path for paths in splits.values() for path in paths]
    if split == schema.ALL_SPLITS or list(splits) == [""]:
        return split, everything, list(splits) != [""]
    wanted = layouts.list_candidates(split, is_training)
    for name in wanted:
        if name in splits:
            return name, splits[name], True
    there = ", ".join(sorted(filter(None, splits)))
    raise schema.DataError(
        f"--data_dir={data_dir} has no JSON file of a split {' or '.join(wanted)}; it "
        f"has {there}. Name one, or `{schema.ALL_SPLITS}`, with "
        f"--{dividing.split_flag(is_training)}."
    )


def make_problem(
    found: Sequence[str], noun: str, kind: str, sentence: str, remedy: str
) -> list[listing.Problem]:
    """Returns what is wrong with some entries of JSON files, if there are any."""
    if not found:
        return []
    what = f"{listing.count(found, noun)} of the JSON files {sentence}"
    remedy = f"{remedy}, or take the entries out of the files"
    return [listing.Problem(kind, what, tuple(found), remedy)]
