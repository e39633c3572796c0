"""All examples of a split as uint8 arrays, in RAM or memory-mapped from disk.

The host gathers the batches; see `device_store` and `streaming` for the other ways.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from data import pipeline, schema
from data.preparing import bad_examples as bad_examples_lib
from data.preparing import preprocessing
from data.sources import listing
from data.stores import disk_cache

_NAME_BYTES = 200
"""Longer names of examples are cut."""

_FORMAT_VERSION = 2
"""Raise it when preprocessing gives other pixels, so that no old file is used."""


READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
)
"""What TensorFlow raises for a file that is damaged, gone or not ours to read."""


@dataclasses.dataclass(frozen=True)
class Store:
    """The decoded examples of a split; see `pipeline.Examples`.

    Attributes:
      name: of the split, for messages.
      images: uint8 [num_examples, height, width, 3].
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
        """Gathers the batches on the host, as uint8."""
        gather = self._make_gather()

        @tf.autograph.experimental.do_not_convert
        def load(batch):
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

    def _make_gather(self):
        """Returns a function from ids, int64 [n], to images and labels."""
        images, labels = self._tensors or (self.images, self.labels)
        if self._tensors is None:
            # Read page by page as batches need it, never as a whole.
            def gather(ids):
                image, label = tf.numpy_function(self.read, [ids], (tf.uint8, tf.uint8))
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


def open_store(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    *,
    bad_examples: bad_examples_lib.BadExamples = bad_examples_lib.STOP,
    cache: str = "memory",
    cache_dir: str = "",
    share: Share = Share(),
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
    fingerprint = make_fingerprint(source, preprocessor)
    if cache == "memory":
        images, labels, names, _ = _decode_in_memory(
            source, preprocessor, bad_examples, share
        )
        return Store(source.name, images, labels, names, fingerprint)
    stem = source.name.replace("/", "-").replace(":", "-")
    folder = _cache_root(cache_dir) / f"{stem}-{fingerprint}"
    description = (len(source), preprocessor.image_size)
    find = functools.partial(
        disk_cache.open_verified, folder, *description, preprocessor.num_classes
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
        disk_cache.write(folder, *description, fill)
        found = find()
    return _map_files(folder, found, source.name, fingerprint, bad_examples)


def make_fingerprint(
    source: schema.Source, preprocessor: preprocessing.Preprocessor
) -> str:
    """Returns hexadecimal digits that differ where any decoded pixel may differ."""
    description = [
        _FORMAT_VERSION,
        source.fingerprint,
        dataclasses.asdict(preprocessor),
    ]
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]


def _cache_root(cache_dir: str) -> pathlib.Path:
    if cache_dir:
        return pathlib.Path(cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "segloop"


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
    """
    shape = (len(source), *preprocessor.image_size)
    images, labels = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
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
    decoded_names = tuple(_decode_name(bytes(name).rstrip(b"\0")) for name in names)
    return images, labels, decoded_names, np.flatnonzero(is_bad).tolist()


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
        names.append(_decode_name(example["name"][:_NAME_BYTES]))
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
    start, stop = (len(source) * (share.index + i) // share.count for i in (0, 1))
    ids = range(start, stop)
    examples = source.examples(start, stop)
    decoded = decode(source, preprocessor, examples, ids, bad_examples)
    bar = tqdm.tqdm(
        decoded,
        total=len(ids),
        desc=f"Decoding {source.name}",
        unit=" images",
        disable=None,  # No bar where nobody watches, in a log file for instance.
    )
    yield from zip(ids, bar, strict=True)
    seconds = time.perf_counter() - started
    logging.info("Decoded %d of %s in %.1f s.", stop - start, source.name, seconds)


def _decode_name(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def decode(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    examples: tf.data.Dataset,
    ids: Iterable[int],
    bad_examples: bad_examples_lib.BadExamples,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields preprocessed examples as NumPy values, in their order.

    Args:
      source: where they come from.
      preprocessor: how they become arrays.
      examples: as the source gives them.
      ids: of these examples.
      bad_examples: what becomes of those that cannot be used.

    Raises:
      schema.DataError: for an example that cannot be used or read.
    """
    # There is nothing to convert; to find that out takes AutoGraph half a second.
    preprocess = tf.autograph.experimental.do_not_convert(
        functools.partial(preprocessor, catches_errors=bad_examples.replaces)
    )
    examples = examples.map(preprocess, num_parallel_calls=tf.data.AUTOTUNE)
    iterator = examples.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
    for index in ids:
        try:
            example = next(iterator)
        except tf.errors.OpError as error:
            # The map keeps the order, so this example is the one that failed.
            raise explain_bad(source, preprocessor, index) from error
        if example["problem"]:
            bad_examples.handle(index, explain_bad(source, preprocessor, index))
        yield example


def read_name(source: schema.Source, index: int) -> str:
    """Returns the name of an example."""
    return _read_raw(source, index)["name"].decode("utf-8", "replace")


def explain_read_error(error: tf.errors.OpError) -> str:
    """Returns what the system says of a file, which names it, without names of ops."""
    message = error.message.splitlines()[0].rpartition("Iterator::")[2]
    message = message.partition(": ")[2] or message
    message = message.partition("}} ")[2] or message
    return f"it cannot be read ({message.partition(' [Op:')[0]})"


def _read_raw(source: schema.Source, index: int) -> dict[str, np.ndarray]:
    return next(source.examples(index, index + 1).as_numpy_iterator())


def explain_bad(
    source: schema.Source, preprocessor: preprocessing.Preprocessor, index: int
) -> schema.DataError:
    """Reads an example that cannot be used again, for the error that says why."""
    place = f"{source.name}, example {index}"
    try:
        example = _read_raw(source, index)
    except tf.errors.OpError as error:
        return schema.DataError(f"{place}: {explain_read_error(error)}.")
    names = [
        listing.printable(os.fsdecode(example[key]))
        for key in ("name", "label_name")
        if key in example
    ]
    reason = preprocessor.explain(example) or schema.DataError(
        "it could not be decoded, but now it can"
    )
    message = f"{place} ({', '.join(names)}): {reason}."
    return schema.DataError(message, kind=reason.kind)


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
