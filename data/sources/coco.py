"""Images and the JSON files of COCO, in which objects have outlines."""

import os
import re
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from data import schema
from data.sources import coco_files, layouts, listing, outlines, registry
from data.sources import folder as folder_lib

if TYPE_CHECKING:
    import tensorflow as tf


class CocoSource:
    """A split of a folder with images and the JSON files of COCO.

    Examples come in the order of the paths of the images. A pixel has the class of the
    smallest object that is there, or is background. Attributes as `schema.Source`.

    Attributes:
      problems: images that are not there, and objects without outlines; empty unless
        they are allowed.
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
          schema.DataError: if the split is not there, a JSON file is not as COCO has
            it, or, unless problems are allowed, with these.
        """
        files = coco_files.read_files(data_dir)
        self.info = schema.DatasetInfo(coco_files.list_classes(files))
        name, chosen, is_divided = _choose(data_dir, files, split, is_training)
        if is_divided and is_training and train_fraction is not None:
            raise schema.DataError(
                f"--train_fraction={train_fraction}: the JSON files of {data_dir} are "
                "those of splits; leave the flag out."
            )
        root = listing.Folder(data_dir)
        photos, problems = _find_photos(root, {path: files[path] for path in chosen})
        pairs = [listing.Pair(path, path, photos[path][0]) for path in sorted(photos)]
        if not is_divided and split != schema.ALL_SPLITS:
            name, is_train = layouts.choose_side(
                data_dir, split, is_training, train_fraction
            )
            pairs = layouts.divide(pairs, train_fraction, seed)[is_train]
        self.name = f"{root.path.resolve().name}/{name}"
        if problems and not allow_problems:
            described = ". Also, ".join(map(str, problems))
            raise schema.DataError(
                f"--data_dir={data_dir}, split {name}: {described}.",
                kind=problems[0].kind,
            )
        if not pairs and not problems:
            raise schema.DataError(f"--data_dir={data_dir}: the split {name} is empty.")
        self.problems = tuple(problems)
        self.fingerprint = folder_lib.make_fingerprint(root, tuple(pairs))
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
        size, shapes = self._photos[index]
        return outlines.draw([(values[s.name], s.shape) for s in shapes], size)

    def load(self, index: "tf.Tensor") -> "dict[str, tf.Tensor]":
        """Reads one example, in a graph or not; see `schema.Source.examples`.

        Args:
          index: int64 scalar, 0..len-1.

        Returns:
          `image`, the bytes of the file, `label`, uint16 [height, width], `name` and
          `label_name`, the paths of image and JSON file relative to the folder.
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


def open_split(request: registry.SplitRequest) -> CocoSource:
    """Opens a split; see `registry`."""
    return CocoSource(
        request.data_dir,
        request.split,
        is_training=request.is_training,
        train_fraction=request.train_fraction,
        seed=request.seed,
        allow_problems=request.allow_problems,
    )


def _choose(
    data_dir: str, files: dict[str, dict], split: str, is_training: bool
) -> tuple[str, list[str], bool]:
    """Returns a split, its files, and whether the names of files tell splits."""
    splits: dict[str, list[str]] = {}
    for path in files:
        words = re.findall("[a-z]+", path.lower())
        found = next((word for word in words if word in layouts.SPLITS), "")
        splits.setdefault(found, []).append(path)
    if split == schema.ALL_SPLITS or list(splits) == [""]:
        return split, list(files), list(splits) != [""]
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


def _find_photos(
    root: listing.Folder, files: dict[str, dict]
) -> tuple[dict[str, tuple[str, coco_files.Photo]], list[listing.Problem]]:
    """Returns JSON file and objects of each image, and what is wrong with the files."""
    places: dict[str, list[str]] = {}
    for path in map(os.path.normpath, root.find_images(".")):
        places.setdefault(os.path.basename(path), []).append(path)
    photos: dict[str, tuple[str, coco_files.Photo]] = {}
    missing, repeated, bare = [], [], []
    for path, content in files.items():
        with coco_files.explaining(path):
            for name, photo, without in coco_files.read_photos(path, content):
                bare += without
                image = _find_image(places, path, name)
                if image is None:
                    missing.append(name)
                elif image in photos:
                    repeated.append(image)
                else:
                    photos[image] = path, photo
    problems = root.find_problems(photos)
    for found, noun, kind, sentence, remedy in (
        (
            missing,
            "image",
            "not_there",
            "in no folder, or in several",
            "add the images",
        ),
        (repeated, "image", "named_twice", "named twice", "keep one entry for each"),
        (bare, "object", "no_outline", "without an outline", "draw the outlines"),
    ):
        if found:
            what = f"{listing.count(found, noun)} of the JSON files {sentence}"
            remedy = f"{remedy}, or take the entries out of the files"
            problems.append(listing.Problem(kind, what, tuple(found), remedy))
    wrong = {path for problem in problems for path in problem.files}
    kept = {path: found for path, found in photos.items() if path not in wrong}
    return kept, problems


def _find_image(places: dict[str, list[str]], path: str, name: str) -> str | None:
    """Returns the only image that may be meant, nearest to the JSON file."""
    name = os.path.normpath(name.replace("\\", "/"))
    found = [
        place
        for place in places.get(os.path.basename(name), ())
        if f"/{place}".endswith(f"/{name}")
    ]
    near = [
        place for place in found if place == os.path.join(os.path.dirname(path), name)
    ]
    if near or len(found) < 2:
        return (near or found or [None])[0]
    # Of images/train/1.jpg and images/val/1.jpg, that of the file's own split.
    splits = set(re.findall("[a-z]+", path.lower())) & set(layouts.SPLITS)
    alike = [p for p in found if splits & set(re.findall("[a-z]+", p.lower()))]
    return alike[0] if len(alike) == 1 else None
