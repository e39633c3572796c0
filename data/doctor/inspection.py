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

from data import schema
from data.doctor import blends, conversions, edges
from data.files import decoding, file_traits, images, mask_values, masks, palettes
from data.preparing import preprocessing
from data.sources import listing
from data.stores import store

_MOST_THREADS = 8
_WAITING_PER_THREAD = 4
"""Examples that are read and not yet looked at: what the walk holds in memory."""

_MAX_VALUES_OF_LABELS = 64
_MAX_COLORS = 256
"""A gray image of more values is no mask; of more colours than that, no palette."""
_MAX_VALUES_KEPT = 32
"""Of a mask, to tell conventions by; masks of more values follow none."""

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
      values: those that occur, None if they are too many to keep.
      neighbours: of the values of a mask that cannot be used, or of the codes of its
        colours; see `blends.count` and `masks.encode_colors`.
      cells: colours of a mask that is compressed; see `conversions.count_cells`.
      traits: what the files hold that training does not see.
      turn_gain: how much better the mask fits the image turned by its orientation than
        as stored, where sizes do not tell; see `edges.compare`.
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
    values: frozenset[int] | None = None
    neighbours: blends.Neighbours | None = None
    cells: collections.Counter | None = None
    traits: file_traits.Traits = file_traits.Traits()
    turn_gain: float = 0.0
    has_label_image: bool = False
    image_digest: bytes = b""
    label_digest: bytes = b""

    @property
    def label(self) -> str:
        """The image and, in brackets, the mask if it is a file."""
        return f"{self.files[0]} ({self.files[1]})" if self.files[1:] else self.files[0]


@dataclasses.dataclass
class Split:
    """What is known of a split.

    Attributes:
      name: of the split.
      is_training: whether it is the split to train on.
      examples: facts of each, without `value_counts`, `neighbours` and `cells`, of
        which only sums are kept.
      value_counts: number of pixels of each mask value.
      bad_counts: the same, in masks with values that have no class.
      photo_counts: the same, in masks that are photos.
      neighbours: sums of theirs, of `values` and of `colours`.
      cells: sum of theirs.
      class_pixels: number of pixels of each class and of `schema.IGNORE_LABEL`, int64
        [256].
      class_examples: number of examples in which each of these occurs, int64 [256].
      ignored_shares: share of ignored pixels of each example by its index, where
        there are any.
    """

    name: str
    is_training: bool = True
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
    neighbours: dict[str, blends.Neighbours] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(blends.Neighbours)
    )
    cells: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    class_pixels: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    class_examples: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    ignored_shares: dict[int, float] = dataclasses.field(default_factory=dict)


def walk(
    source: schema.Source,
    preprocessor: preprocessing.Preprocessor | None,
    *,
    masks_only: bool = False,
) -> Iterator[Facts]:
    """Looks at all examples, several at a time, in their order.

    An example that cannot be read or decoded is a fact like others, no end.

    Args:
      source: the examples.
      preprocessor: says which can be used; None if it is not known how many classes
        there are, for what can be said without.
      masks_only: whether to leave the images alone, and tell the values of masks.
    """
    look = _look_at_mask if masks_only else _look
    num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        for index, read in _list_reads(source):
            waiting.append(pool.submit(look, index, read, preprocessor))
            if len(waiting) >= _WAITING_PER_THREAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def summarize(
    name: str,
    facts: Iterable[Facts],
    preprocessor: preprocessing.Preprocessor | None,
    *,
    is_training: bool = True,
) -> Split:
    """Sums up what `walk` yields."""
    split = Split(name, is_training)
    for fact in facts:
        split.examples.append(
            dataclasses.replace(fact, value_counts={}, neighbours=None, cells=None)
        )
        if fact.neighbours:
            place = "values" if fact.size else "colours"
            split.neighbours[place].update(fact.neighbours)
        if fact.cells:
            split.cells.update(fact.cells)
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


def glance(
    source: schema.RandomAccessSource,
    index: int,
    preprocessor: preprocessing.Preprocessor,
) -> Facts | None:
    """Tells what the headers of an example and the values of its mask are.

    Returns:
      The facts; None if it cannot be read, which decoding will say, too.
    """
    example = _try_read(index, functools.partial(_load, source, index))
    if isinstance(example, Facts):
        return None
    try:
        values = decoding.decode_label(example["label"], preprocessor.label_colors)
        found = file_traits.look(example["image"], example["label"])
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
    example = _try_read(index, read)
    if isinstance(example, Facts):
        return example
    label_colors = preprocessor.label_colors if preprocessor else ()
    try:
        image, values = decoding.decode_pair(
            example["image"], example["label"], label_colors
        )
        found = file_traits.look(example["image"], example["label"])
    except schema.DataError as error:
        return _describe_error(index, example, error)
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


def _look_at_mask(
    index: int,
    read: Callable[[], Example],
    preprocessor: preprocessing.Preprocessor | None,
) -> Facts:
    """Does the same for the mask alone."""
    example = _try_read(index, read)
    if isinstance(example, Facts):
        return example
    label_colors = preprocessor.label_colors if preprocessor else ()
    try:
        values = decoding.decode_label(example["label"], label_colors)
        found = file_traits.look(np.zeros([1, 1, 3], np.uint8), example["label"])
    except schema.DataError as error:
        return _describe_error(index, example, error)
    facts = _judge_values(index, example, values, preprocessor)
    return dataclasses.replace(facts, traits=found)


def _try_read(index: int, read: Callable[[], Example]) -> Example | Facts:
    try:
        return read()
    except tf.errors.OpError as error:
        message = store.explain_read_error(error)
        # The message alone knows the name of the file.
        files = (f"example {index}: {message}",)
        return Facts(index, files, "unreadable_file", message)


def _name_files(example: Example) -> tuple[str, ...]:
    return tuple(
        listing.printable(os.fsdecode(example[key]))
        for key in ("name", "label_name")
        if key in example
    )


def _describe_error(index: int, example: Example, error: schema.DataError) -> Facts:
    """Returns the facts of an example that cannot be decoded."""
    colors, neighbours, cells = (), None, None
    if error.kind in ("coloured_mask", "interpolated_mask", "unlisted_color"):
        pixels = _load_label(example)
        colors = masks.find_colors(pixels)[0][:_MAX_COLORS]
        neighbours = blends.count(masks.encode_colors(pixels))
    if error.kind == "lossy_mask":
        cells = conversions.count_cells(_load_label(example))
    return Facts(
        index,
        _name_files(example),
        error.kind,
        str(error),
        frozenset(colors),
        neighbours=neighbours,
        cells=cells,
    )


def _judge_values(
    index: int,
    example: Example,
    values: np.ndarray,
    preprocessor: preprocessing.Preprocessor | None,
) -> Facts:
    """Returns the facts of an example by the values of its mask."""
    counts = mask_values.count(values)
    diagnosis = preprocessor.diagnose(counts) if preprocessor else None
    is_open = preprocessor is None
    if diagnosis:
        is_open = diagnosis.kind in mask_values.KINDS
    return Facts(
        index,
        _name_files(example),
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
