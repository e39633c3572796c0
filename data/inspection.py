"""What the examples of a split are like, each of them looked at once."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data import (
    decoding,
    images,
    mask_values,
    masks,
    palettes,
    preprocessing,
    schema,
    store,
)

_MOST_THREADS = 8
_WAITING_PER_THREAD = 4
"""Examples that are read and not yet looked at: what the walk holds in memory."""

_MAX_VALUES_OF_LABELS = 64
_MAX_COLORS = 256
"""A gray image of more values is no mask; of more colours than that, no palette."""

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an example; of one that cannot be decoded, only the first few.

    Attributes:
      index: its place in the source.
      files: the names of image and mask, or of the record; if it cannot be read, why.
      kind: of the error that training would end with; see `schema.DataError`. Empty if
        the example can be used.
      message: of that error.
      colors: those of a mask that should have none.
      size: height and width; None if it cannot be decoded.
      value_counts: number of pixels of each mask value.
      has_label_image: whether the image is gray and holds the values of the mask.
      image_digest: equal for images of equal pixels.
      label_digest: equal for masks of equal values.
    """

    index: int
    files: tuple[str, ...]
    kind: str = ""
    message: str = ""
    colors: frozenset[palettes.Color] = frozenset()
    size: tuple[int, int] | None = None
    value_counts: dict[int, int] = dataclasses.field(default_factory=dict)
    has_label_image: bool = False
    image_digest: bytes = b""
    label_digest: bytes = b""


@dataclasses.dataclass
class Split:
    """What is known of a split.

    Attributes:
      name: of the split.
      examples: facts of each, without `value_counts`, of which only sums are kept.
      value_counts: number of pixels of each mask value.
      bad_counts: the same, in masks with values that have no class.
      photo_counts: the same, in masks that are photos.
      class_pixels: number of pixels of each class and of `schema.IGNORE_LABEL`, int64
        [256].
      class_examples: number of examples in which each of these occurs, int64 [256].
      ignored_shares: share of ignored pixels of each example by its index, where
        there are any.
    """

    name: str
    examples: list[Facts] = dataclasses.field(default_factory=list)
    value_counts: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    bad_counts: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    photo_counts: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    class_pixels: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    class_examples: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    ignored_shares: dict[int, float] = dataclasses.field(default_factory=dict)


def walk(
    source: schema.Source, preprocessor: preprocessing.Preprocessor | None
) -> Iterator[Facts]:
    """Looks at all examples, several at a time, in their order.

    An example that cannot be read or decoded is a fact like others, no end.

    Args:
      source: the examples.
      preprocessor: says which can be used; None if it is not known how many classes
        there are, for what can be said without.
    """
    num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for index, read in _list_reads(source):
            waiting.append(pool.submit(_look, index, read, preprocessor))
            if len(waiting) >= _WAITING_PER_THREAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def summarize(
    name: str,
    facts: Iterable[Facts],
    preprocessor: preprocessing.Preprocessor | None,
) -> Split:
    """Sums up what `walk` yields."""
    split = Split(name)
    for fact in facts:
        split.examples.append(dataclasses.replace(fact, value_counts={}))
        split.value_counts.update(fact.value_counts)
        if fact.kind == "mask_is_photo":
            split.photo_counts.update(fact.value_counts)
        elif fact.kind:
            split.bad_counts.update(fact.value_counts)
        elif preprocessor:
            pixels = np.zeros(256, np.int64)
            for value, count in fact.value_counts.items():
                pixels[preprocessor.class_table[value]] += count
            split.class_pixels += pixels
            split.class_examples += pixels > 0
            if ignored := pixels[schema.IGNORE_LABEL]:
                split.ignored_shares[fact.index] = float(ignored / pixels.sum())
    return split


def read_examples(source: schema.Source, ids: Sequence[int]) -> Iterator[Example]:
    """Reads some examples, as NumPy values, in ascending order of their ids."""
    if isinstance(source, schema.RandomAccessSource):
        for index in sorted(ids):
            yield _load(source, index)
    elif ids:
        first, stop = min(ids), max(ids) + 1
        examples = source.examples(first, stop).as_numpy_iterator()
        for index, example in enumerate(examples, first):
            if index in ids:
                yield example


def _list_reads(
    source: schema.Source,
) -> Iterator[tuple[int, Callable[[], Example]]]:
    """Yields the id of each example and a function that reads it, or has done so."""
    if isinstance(source, schema.RandomAccessSource):
        for index in range(len(source)):
            yield index, lambda index=index: _load(source, index)
        return
    examples = source.examples().as_numpy_iterator()
    for index in range(len(source)):
        try:
            example = next(examples)
        except tf.errors.OpError as error:
            # What comes after a damaged record cannot be read either.
            for lost in range(index, len(source)):
                yield lost, functools.partial(_fail, error)
            return
        yield index, lambda example=example: example


def _fail(error: Exception) -> Example:
    raise error


def _load(source: schema.RandomAccessSource, index: int) -> Example:
    example = source.load(tf.constant(index, tf.int64))
    return {key: value.numpy() for key, value in example.items()}


def _look(
    index: int,
    read: Callable[[], Example],
    preprocessor: preprocessing.Preprocessor | None,
) -> Facts:
    """Reads and decodes an example, and returns what is to be known of it."""
    try:
        example = read()
    except tf.errors.OpError as error:
        message = store.explain_read_error(error)
        # The message alone knows the name of the file.
        files = (f"example {index}: {message}",)
        return Facts(index, files, "unreadable_file", message)
    files = tuple(
        example[key].decode("utf-8", "replace")
        for key in ("name", "label_name")
        if key in example
    )
    label_colors = preprocessor.label_colors if preprocessor else ()
    try:
        image, values = decoding.decode_pair(
            example["image"], example["label"], label_colors
        )
    except schema.DataError as error:
        colors = _read_colors(example) if error.kind == "coloured_mask" else ()
        return Facts(index, files, error.kind, str(error), frozenset(colors))
    counts = mask_values.count(values)
    diagnosis = preprocessor.diagnose(counts) if preprocessor else None
    return Facts(
        index,
        files,
        kind=diagnosis.kind if diagnosis else "",
        message=str(diagnosis) if diagnosis else "",
        size=values.shape,
        value_counts=counts,
        has_label_image=_has_label_image(image, values, counts),
        image_digest=_digest(image),
        label_digest=_digest(values),
    )


def _read_colors(example: Example) -> list[palettes.Color]:
    """Returns the colours of a coloured mask, the most frequent of very many."""
    label = example["label"]
    if isinstance(label, bytes):
        label = images.load_pixels(images.open_image(label), "RGB")
    colors, _ = masks.find_colors(label[..., :3])
    return colors[:_MAX_COLORS]


def _has_label_image(
    image: np.ndarray, values: np.ndarray, counts: dict[int, int]
) -> bool:
    if not 1 < len(counts) <= _MAX_VALUES_OF_LABELS:
        return False
    gray = image[..., 0]
    if (image != gray[..., np.newaxis]).any():
        return False
    # Black and white drawings are photos too: with two values each pixel must agree.
    if len(counts) == 2:
        return np.array_equal(gray, values)
    return mask_values.count(gray).keys() == counts.keys()


def _digest(array: np.ndarray) -> bytes:
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array))
    return digest.digest()
