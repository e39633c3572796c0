"""All examples of a split as uint8 arrays, in RAM or memory-mapped from disk."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
import uuid

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from data import preprocessing, schema

_FORMAT_VERSION = 1
"""Raise it when preprocessing gives other pixels, so that no old file is used."""


@dataclasses.dataclass(frozen=True)
class Store:
    """The decoded examples of a split.

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

    def __len__(self) -> int:
        return len(self.names)


def open_store(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
    *,
    cache: str = "memory",
    cache_dir: str = "",
) -> Store:
    """Decodes a source, or maps what an earlier run decoded of it.

    Args:
      source: the examples.
      preprocessor: how they become arrays.
      cache: `memory`, or `disk` to keep the arrays as .npy files and map them.
      cache_dir: folder of the files; empty for the user's cache folder.

    Raises:
      schema.DataError: for the first example that cannot be used, or if a file of
        the cache is damaged.
    """
    description = [
        _FORMAT_VERSION,
        source.fingerprint,
        dataclasses.asdict(preprocessor),
    ]
    fingerprint = hashlib.sha256(json.dumps(description).encode()).hexdigest()[:16]
    if cache == "memory":
        images, labels = (np.empty(s, np.uint8) for s in _shapes(source, preprocessor))
        names = _decode_into(images, labels, source, preprocessor)
        return Store(source.name, images, labels, names, fingerprint)
    stem = source.name.replace("/", "-").replace(":", "-")
    folder = _cache_root(cache_dir) / f"{stem}-{fingerprint}"
    if not folder.exists():
        _write_files(folder, source, preprocessor)
    return _map_files(folder, source.name, fingerprint)


def _cache_root(cache_dir: str) -> pathlib.Path:
    if cache_dir:
        return pathlib.Path(cache_dir).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "segloop"


def _shapes(source, preprocessor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    height, width = preprocessor.image_size
    return (len(source), height, width, 3), (len(source), height, width)


def _decode_into(
    images: np.ndarray,
    labels: np.ndarray,
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
) -> tuple[str, ...]:
    """Fills `images` and `labels` and returns the names of the examples."""
    started = time.perf_counter()
    names = []
    dataset = source.examples().map(preprocessor, num_parallel_calls=tf.data.AUTOTUNE)
    # `disable=None`: no bar where nobody watches, in a log file for instance.
    with tqdm.tqdm(
        total=len(source), desc=f"Decoding {source.name}", unit=" images", disable=None
    ) as bar:
        try:
            for example in dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
                index = len(names)
                if example["problem"]:
                    raw = next(source.examples(index, index + 1).as_numpy_iterator())
                    raise _bad_example(source, index, preprocessor.explain(raw))
                images[index], labels[index] = example["image"], example["label"]
                names.append(example["name"].decode())
                bar.update()
        except tf.errors.InvalidArgumentError as error:
            # The map keeps the order, so the example after the last good one failed.
            reason = f"it cannot be decoded ({error.message.splitlines()[0]})"
            raise _bad_example(source, len(names), reason) from error
    seconds = time.perf_counter() - started
    logging.info(
        "Decoded %d examples of %s in %.1f s.", len(names), source.name, seconds
    )
    return tuple(names)


def _bad_example(source: schema.Source, index: int, reason: str) -> schema.DataError:
    example = next(source.examples(index, index + 1).as_numpy_iterator())
    name = example["name"].decode()
    return schema.DataError(f"{source.name}, example {index} ({name}): {reason}.")


def _write_files(
    folder: pathlib.Path,
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor,
) -> None:
    """Decodes into a temporary folder and renames it, so that none is half written."""
    # Not named after the process: in a container its id is that of the killed run too.
    partial = folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        images, labels = (
            np.lib.format.open_memmap(partial / file, "w+", np.uint8, shape)
            for file, shape in zip(
                ("images.npy", "labels.npy"), _shapes(source, preprocessor), strict=True
            )
        )
        names = _decode_into(images, labels, source, preprocessor)
        images.flush(), labels.flush()
        (partial / "names.json").write_text(json.dumps(names))
        partial.rename(folder)
    except OSError:
        if not folder.exists():  # Else another process was faster: its files serve.
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _map_files(folder: pathlib.Path, name: str, fingerprint: str) -> Store:
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy", mmap_mode="r")
        names = tuple(json.loads((folder / "names.json").read_text()))
    except (OSError, EOFError, ValueError) as error:
        raise schema.DataError(
            f"{folder}: the cached examples cannot be read ({error}); delete this "
            "folder to have them decoded again."
        ) from error
    logging.info("Mapped %d decoded examples of %s from %s.", len(names), name, folder)
    return Store(name, images, labels, names, fingerprint)
