"""All examples of a split as arrays, in RAM or memory-mapped from disk.

The host gathers the batches; see `device_store` and `streaming` for the other ways.
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from data import pipeline, schema
from data.preparing import bad_examples as bad_examples_lib
from data.preparing import preprocessing
from data.stores import disk_cache, fingerprints, reading, user_cache

_NAME_BYTES = 200
"""Longer names of examples are cut."""
_STEM_BYTES = 100
"""Of the name of a folder: most file systems take 255 bytes, and of a folder that is
being filled, the name is longer."""


@dataclasses.dataclass(frozen=True)
class Store:
    """The decoded examples of a split; see `pipeline.Examples`.

    Attributes:
      name: of the split, for messages.
      images: uint8 or uint16 [num_examples, height, width, channels].
      labels: uint8 [num_examples, height, width]; classes or `schema.IGNORE_LABEL`.
      names: the name of each example, for messages.
      fingerprint: changes whenever any example may have changed.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    fingerprint: str

    _tensors: tuple[tf.Tensor, tf.Tensor] | None = dataclasses.field(
        default=None, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if isinstance(self.images, np.memmap):
            return
        with tf.device("/CPU:0"):  # Else the whole split would go to the first GPU.
            tensors = tf.constant(self.images), tf.constant(self.labels)
        object.__setattr__(self, "_tensors", tensors)
        # TensorFlow copies arrays; their memory is given back for views of the copies.
        for name, tensor in zip(("images", "labels"), tensors, strict=True):
            object.__setattr__(self, name, np.asarray(memoryview(tensor)))

    def __len__(self) -> int:
        return len(self.names)

    def feed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Gathers the batches on the host, as they are kept."""
        gather = self._make_gather()

        @tf.autograph.experimental.do_not_convert
        def load(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            # Only the last batch of an evaluation is filled up, and to look for such
            # rows in each image takes as long as gathering.
            return tf.cond(
                tf.reduce_any(batch["id"] >= len(self)),
                lambda: pipeline.fill_in(batch, gather, num_examples=len(self)),
                lambda: pipeline.replace_ids(batch, *gather(batch["id"])),
            )

        batches = batches.map(
            load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return batches.prefetch(tf.data.AUTOTUNE)

    fetch = staticmethod(pipeline.take_whole)

    def read(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels."""
        return self.images[ids], self.labels[ids]

    def _make_gather(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Returns a function from ids, int64 [n], to images and labels."""
        images, labels = self._tensors or (self.images, self.labels)
        if self._tensors is None:
            # Read page by page as batches need it, never as a whole.
            def gather(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                dtypes = (tf.as_dtype(images.dtype), tf.uint8)
                image, label = tf.numpy_function(self.read, [ids], dtypes)
                return (
                    tf.ensure_shape(image, [ids.shape[0], *images.shape[1:]]),
                    tf.ensure_shape(label, [ids.shape[0], *labels.shape[1:]]),
                )

            return gather
        return lambda ids: (tf.gather(images, ids), tf.gather(labels, ids))


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of the examples this process decodes, and how it gets the others.

    Attributes:
      index: number of this process among those that share the work.
      count: how many they are.
      add_up: returns the sum of the arrays that all of them give; all must call it.
    """

    index: int = 0
    count: int = 1
    add_up: Callable[[np.ndarray], np.ndarray] = lambda array: array


WHOLE = Share()
"""A process that decodes all by itself."""


def open_store(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    *,
    bad_examples: bad_examples_lib.BadExamples = bad_examples_lib.STOP,
    cache: str = "memory",
    cache_dir: str = "",
    share: Share = WHOLE,
) -> Store:
    """Decodes a source, or maps what an earlier run decoded of it.

    Args:
      source: the examples.
      preprocessor: how they become arrays.
      bad_examples: what becomes of those that cannot be used.
      cache: `memory`, or `disk` to keep the arrays as .npy files and map them.
      cache_dir: folder of the files; empty for the user's cache folder.
      share: what this process decodes of the source; it gets all in the end.

    Raises:
      schema.DataError: for an example that cannot be used; of the kind `cache_full`
        or `cache_dir` if the files cannot be written.
    """
    fingerprint = fingerprints.make_fingerprint(source, preprocessor)
    if cache == "memory":
        images, labels, names, _ = _decode_in_memory(
            source, preprocessor, bad_examples, share
        )
        return Store(source.name, images, labels, names, fingerprint)
    folder = _cache_root(cache_dir) / f"{_make_stem(source.name)}-{fingerprint}"
    description = (len(source), preprocessor.image_size)
    find = functools.partial(
        disk_cache.open_verified,
        folder,
        *description,
        preprocessor.num_classes,
        image_format=preprocessor.image_format,
    )
    found = find()
    # All decode or none does: the shares are exchanged.
    if share.add_up(np.array([found is not None], np.int32)) < share.count:
        fill = functools.partial(
            _fill_files,
            source=source,
            preprocessor=preprocessor,
            bad_examples=bad_examples,
            share=share,
        )
        disk_cache.write(
            folder, *description, fill, image_format=preprocessor.image_format
        )
        found = find()
    return _map_files(folder, found, source.name, fingerprint, bad_examples)


def _make_stem(name: str) -> str:
    """Returns what the name of a folder begins with, for people to know it by."""
    stem = name.replace("/", "-").replace(":", "-")
    encoded = os.fsencode(stem)
    if len(encoded) <= _STEM_BYTES:
        return stem
    return encoded[:_STEM_BYTES].decode(errors="ignore")  # No part of a letter.


def _cache_root(cache_dir: str) -> pathlib.Path:
    try:
        return user_cache.find_folder(cache_dir)
    except RuntimeError as error:
        raise schema.DataError(
            f"--cache=disk: the cache has no place ({error}); name a folder by "
            "--cache_dir.",
            kind="cache_dir",
        ) from error


def _decode_in_memory(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    bad_examples: bad_examples_lib.BadExamples,
    share: Share,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], list[int]]:
    """Decodes a share, and gets those of the others.

    Returns:
      All images and labels, the names of the examples, and the ids of those that could
      not be used.

    Raises:
      schema.DataError: for an example that cannot be used, or if all processes
        together found too many of them.
    """
    shape = (len(source), *preprocessor.image_size)
    image_format = preprocessor.image_format
    images = np.zeros((*shape, image_format.num_channels), image_format.dtype)
    labels = np.zeros(shape, np.uint8)
    names = np.zeros((len(source), _NAME_BYTES), np.uint8)
    is_bad = np.zeros([len(source)], np.uint8)
    for index, example in _decode_share(source, preprocessor, bad_examples, share):
        images[index], labels[index] = example["image"], example["label"]
        is_bad[index] = example["problem"]
        name = example["name"][:_NAME_BYTES]
        names[index, : len(name)] = np.frombuffer(name, np.uint8)
    if share.count > 1:
        images[...], labels[...] = share.add_up(images), share.add_up(labels)
        names, is_bad = share.add_up(names), share.add_up(is_bad)
    bad = np.flatnonzero(is_bad).tolist()
    own = _own_ids(source, share)
    for index in bad:
        if index not in own:  # Else each process would allow the maximum for itself.
            error = reading.explain_bad(source, preprocessor, index)
            bad_examples.handle(index, error)
    decoded_names = tuple(
        reading.name_as_text(bytes(name).rstrip(b"\0")) for name in names
    )
    return images, labels, decoded_names, bad


def _fill_files(
    put: disk_cache.Put,
    *,
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    bad_examples: bad_examples_lib.BadExamples,
    share: Share,
) -> tuple[Sequence[str], Sequence[int]]:
    """Hands over all examples; those of one process never lie in memory as a whole.

    Returns:
      The names of the examples, and the ids of those that could not be used.
    """
    if share.count > 1:
        images, labels, names, bad = _decode_in_memory(
            source, preprocessor, bad_examples, share
        )
        for image, label in zip(images, labels, strict=True):
            put(image, label)
        return names, bad
    names, bad = [], []
    for index, example in _decode_share(source, preprocessor, bad_examples, share):
        put(example["image"], example["label"])
        names.append(reading.name_as_text(example["name"][:_NAME_BYTES]))
        if example["problem"]:
            bad.append(index)
    return names, bad


def _decode_share(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    bad_examples: bad_examples_lib.BadExamples,
    share: Share,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields id and values of each example that this process decodes."""
    started = time.perf_counter()
    ids = _own_ids(source, share)
    examples = source.examples(ids.start, ids.stop)
    decoded = reading.decode_examples(source, preprocessor, examples, ids, bad_examples)
    bar = tqdm.tqdm(
        decoded,
        total=len(ids),
        desc=f"Decoding {source.name}",
        unit=" images",
        disable=None,  # No bar where nobody watches, in a log file for instance.
    )
    yield from zip(ids, bar, strict=True)
    seconds = time.perf_counter() - started
    logging.info("Decoded %d of %s in %.1f s.", len(ids), source.name, seconds)


def _own_ids(source: schema.Source, share: Share) -> range:
    """Returns the ids of the examples that this process decodes."""
    ends = (len(source) * (share.index + i) // share.count for i in (0, 1))
    return range(*ends)


def _map_files(
    folder: pathlib.Path,
    found: disk_cache.Examples | None,
    name: str,
    fingerprint: str,
    bad_examples: bad_examples_lib.BadExamples,
) -> Store:
    if found is None:
        raise schema.DataError(
            f"{folder}: the examples that were just written cannot be read again; look "
            "at the disk, or name another folder by --cache_dir.",
            kind="cache_dir",
        )
    for index in found.bad:  # Of a run that replaced them, which this may not want.
        bad_examples.handle(
            index,
            schema.DataError(
                f"{name}, example {index} ({found.names[index]}): it could not be used "
                f"when {folder} was written; delete that folder once the file is "
                "mended."
            ),
        )
    logging.info(
        "Mapped %d decoded examples of %s from %s.", len(found.names), name, folder
    )
    return Store(name, found.images, found.labels, found.names, fingerprint)
