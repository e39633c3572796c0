"""What the examples of a split are like, each of them looked at once."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data import pipeline, schema
from data.doctor import edges
from data.doctor import facts as facts_lib
from data.files import (
    blends,
    conversions,
    decoding,
    file_traits,
    images,
    mask_values,
    masks,
)
from data.preparing import preprocessing
from data.stores import reading

_MOST_THREADS = 8
_WAITING_PER_THREAD = 4
"""Examples that are read and not yet looked at: what the walk holds in memory."""

_MAX_VALUES_OF_LABELS = 64
_MAX_COLORS = 256
"""A gray image of more values is no mask; of more colours than that, no palette."""
_MAX_VALUES_KEPT = 32
"""Of a mask, to tell conventions by; masks of more values follow none."""

Example = dict[str, Any]


def walk(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor | None,
    *,
    image_format: schema.ImageFormat = schema.RGB,
    masks_only: bool = False,
) -> Iterator[facts_lib.Facts]:
    """Looks at all examples, several at a time, in their order.

    An example that cannot be read or decoded is a fact like others, no end.

    Args:
      source: the examples.
      preprocessor: says which can be used; None if it is not known how many classes
        there are, for what can be said without.
      image_format: what images are decoded to.
      masks_only: whether to leave the images alone, and tell the values of masks.
    """
    describe = _describe_mask
    if not masks_only:
        describe = functools.partial(_describe_pair, image_format=image_format)
    num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for index, read in _list_reads(source):
            waiting.append(pool.submit(_look, index, read, preprocessor, describe))
            if len(waiting) >= _WAITING_PER_THREAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_examples(source: schema.Source, ids: Sequence[int]) -> Iterator[Example]:
    """Reads some examples, as NumPy values, in ascending order of their ids."""
    if isinstance(source, schema.RandomAccessSource):
        for index in sorted(ids):
            yield _load(source, index)
    elif ids:
        first, stop = min(ids), max(ids) + 1
        examples = pipeline.end_at_once(source.examples(first, stop))
        for index, example in enumerate(examples.as_numpy_iterator(), first):
            if index in ids:
                yield example


def glance(
    index: int, example: Example, preprocessor: preprocessing.Preprocessor
) -> facts_lib.Facts | None:
    """Tells what the headers of an example and the values of its mask are.

    Returns:
      The facts; None if it cannot be used, which decoding will say, too.
    """
    try:
        values = decoding.decode_label(example["label"], preprocessor.label_colors)
        found = file_traits.look(
            example["image"], example["label"], preprocessor.image_format
        )
    except schema.DataError:
        return None
    facts = _judge_values(index, example, values, preprocessor)
    return dataclasses.replace(facts, traits=found)


def _list_reads(
    source: schema.Source,
) -> Iterator[tuple[int, Callable[[], Example]]]:
    """Yields the id of each example and a function that reads it, or has done so."""
    if isinstance(source, schema.RandomAccessSource):
        for index in range(len(source)):
            yield index, lambda index=index: _load(source, index)
        return
    examples = pipeline.end_at_once(source.examples()).as_numpy_iterator()
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
    describe: Callable[..., facts_lib.Facts],
) -> facts_lib.Facts:
    """Reads an example, and returns what is to be known of it.

    Args:
      index: of the example.
      read: reads it.
      preprocessor: see `walk`.
      describe: decodes it, `_describe_pair` or `_describe_mask`.
    """
    example = _try_read(index, read)
    if isinstance(example, facts_lib.Facts):
        return example
    label_colors = preprocessor.label_colors if preprocessor else ()
    try:
        return describe(index, example, label_colors, preprocessor)
    except schema.DataError as error:
        return _describe_error(index, example, error)


def _describe_pair(
    index: int,
    example: Example,
    label_colors: decoding.LabelColors,
    preprocessor: preprocessing.Preprocessor | None,
    *,
    image_format: schema.ImageFormat,
) -> facts_lib.Facts:
    """Returns the facts of an image and its mask.

    Raises:
      schema.DataError: if they cannot be decoded.
    """
    image, values = decoding.decode_pair(
        example["image"], example["label"], label_colors, image_format
    )
    found = file_traits.look(example["image"], example["label"], image_format)
    facts = _judge_values(index, example, values, preprocessor)
    gain = 0.0
    if found.orientation != 1:
        as_stored = images.turn_back(image, found.orientation)
        gain = edges.compare(image, as_stored, values)
    return dataclasses.replace(
        facts,
        traits=found,
        turn_gain=gain,
        has_label_image=_has_label_image(image, values, facts.value_counts),
        image_digest=_digest(image),
        label_digest=_digest(values),
    )


def _describe_mask(
    index: int,
    example: Example,
    label_colors: decoding.LabelColors,
    preprocessor: preprocessing.Preprocessor | None,
) -> facts_lib.Facts:
    """Returns the facts of a mask alone.

    Raises:
      schema.DataError: if it cannot be decoded.
    """
    values = decoding.decode_label(example["label"], label_colors)
    found = file_traits.look(np.zeros([1, 1, 3], np.uint8), example["label"])
    facts = _judge_values(index, example, values, preprocessor)
    return dataclasses.replace(facts, traits=found)


def _try_read(index: int, read: Callable[[], Example]) -> Example | facts_lib.Facts:
    try:
        return read()
    except tf.errors.OpError as error:
        message = reading.explain_read_error(error)
        # The message alone knows the name of the file.
        files = (f"example {index}: {message}",)
        return facts_lib.Facts(index, files, "unreadable_file", message)


def _describe_error(
    index: int, example: Example, error: schema.DataError
) -> facts_lib.Facts:
    """Returns the facts of an example that cannot be decoded."""
    colors, neighbours, cells = (), None, None
    if error.kind in ("coloured_mask", "interpolated_mask", "unlisted_color"):
        pixels = _load_label(example)
        colors = masks.find_colors(pixels)[0][:_MAX_COLORS]
        neighbours = blends.count(masks.encode_colors(pixels))
    if error.kind == "lossy_mask":
        try:
            cells = conversions.count_cells(_load_label(example))
        except schema.DataError as damage:  # The header alone told that it is lossy.
            error = schema.DataError(f"the mask: {damage}", kind=damage.kind)
    return facts_lib.Facts(
        index,
        reading.name_files(example),
        error.kind,
        str(error),
        frozenset(colors),
        neighbours=neighbours,
        cells=cells,
        traits=file_traits.Traits(stored=_look_at_image(example["image"])),
    )


def _look_at_image(image: bytes | np.ndarray) -> file_traits.Stored | None:
    """Returns what an image has of each pixel; None if its header is damaged."""
    try:
        return file_traits.look_at_image(image)
    except schema.DataError:
        return None


def _judge_values(
    index: int,
    example: Example,
    values: np.ndarray,
    preprocessor: preprocessing.Preprocessor | None,
) -> facts_lib.Facts:
    """Returns the facts of an example by the values of its mask."""
    counts = mask_values.count(values)
    diagnosis = preprocessor.diagnose(counts) if preprocessor else None
    is_open = preprocessor is None
    if diagnosis:
        is_open = diagnosis.kind in mask_values.KINDS
    return facts_lib.Facts(
        index,
        reading.name_files(example),
        kind=diagnosis.kind if diagnosis else "",
        message=str(diagnosis) if diagnosis else "",
        size=values.shape,
        value_counts=counts,
        values=frozenset(counts) if len(counts) <= _MAX_VALUES_KEPT else None,
        neighbours=blends.count(values) if is_open else None,
    )


def _load_label(example: Example) -> np.ndarray:
    """Returns the pixels of a mask as colours, [height, width, 3]."""
    label = example["label"]
    if isinstance(label, bytes):
        label = images.load_pixels(images.open_image(label), "RGB")
    return label[..., :3]


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
