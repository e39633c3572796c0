"""Sources whose masks are drawn: of objects with outlines in annotation files."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from data import schema
from data.sources import folder as folder_lib
from data.sources import layouts, listing, outlines

if TYPE_CHECKING:
    import tensorflow as tf


class DrawnSource:
    """A split of images with objects; attributes as `schema.Source`.

    Examples come in the order of the paths of the images. A pixel that is in no object
    is of the class `outlines.BACKGROUND`.

    Attributes:
      problems: what is wrong with the files; empty unless it is allowed.
    """

    def __init__(
        self,
        data_dir: str,
        split: str,
        photos: Mapping[str, tuple[str, outlines.Photo]],
        problems: Sequence[listing.Problem],
        *,
        class_names: Sequence[str],
        is_divided: bool,
        is_training: bool,
        train_fraction: float | None,
        seed: int,
        allow_problems: bool,
    ) -> None:
        """Takes the photos of a split, or divides those of all splits.

        Args:
          data_dir: the folder.
          split: the name of the split that was found, or that was asked for.
          photos: by the path of each image, that of its annotation file, and the photo.
          problems: what is wrong with the files.
          class_names: but for the background.
          is_divided: whether the photos are those of a split.
          is_training: as in `layouts.find_split`, and so are all others.
          train_fraction: share of photos to train on, where they are of no split.
          seed: of that division.
          allow_problems: as in `folder.FolderSource`.

        Raises:
          schema.DataError: if the split is empty, or cannot be made, or, unless
            problems are allowed, with these.
        """
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
            split, is_train = layouts.choose_side(
                data_dir, split, is_training, train_fraction
            )
            pairs = layouts.divide(pairs, train_fraction, seed)[is_train]
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
        self._root, self._pairs = str(root.path), pairs
        self._photos = [photos[pair.image][1] for pair in pairs]
        logging.info("Found %d images of %s in %s.", len(self), self.name, data_dir)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """The path of each image, relative to the folder."""
        return tuple(pair.image for pair in self._pairs)

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

        with tf.init_scope():
            images, files = (
                tf.constant([os.fsencode(path) for path in paths], tf.string)
                for paths in (self.names, [pair.mask for pair in self._pairs])
            )
        image = tf.gather(images, index)
        label = tf.numpy_function(
            lambda i: self.draw_label(int(i)), [index], tf.uint16, stateful=False
        )
        root = os.fsencode(os.path.join(self._root, ""))
        return {
            "image": tf.io.read_file(root + image),
            "label": tf.ensure_shape(label, [None, None]),
            "name": image,
            "label_name": tf.gather(files, index),
        }

    def examples(self, start: int = 0, stop: int | None = None) -> "tf.data.Dataset":
        """Reads examples in the order of their paths; see `schema.Source`."""
        import tensorflow as tf

        start, stop, _ = slice(start, stop).indices(len(self))
        ids = tf.data.Dataset.range(start, max(start, stop))
        load = tf.autograph.experimental.do_not_convert(self.load)
        return ids.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


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
        f"--{'train' if is_training else 'eval'}_split."
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
