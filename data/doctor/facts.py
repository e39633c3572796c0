"""What is known of the examples of a split."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from data import schema
from data.files import blends, file_traits, mask_values, palettes
from data.preparing import preprocessing


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an example; of one that cannot be decoded, only a part.

    Attributes:
      index: its place in the source.
      files: the names of image and mask, or of the record; of an example that cannot be
        read, its number and the reason.
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
      traits: what the files hold that training does not see; of an example that cannot
        be decoded, only `stored`.
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

    @property
    def has_bad_values(self) -> bool:
        """Whether it can be decoded, and only the values of its mask are wrong."""
        return self.size is not None and self.kind in mask_values.KINDS


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


def summarize(
    name: str,
    facts: Iterable[Facts],
    preprocessor: preprocessing.Preprocessor | None,
    *,
    is_training: bool = True,
) -> Split:
    """Sums up what `inspection.walk` yields."""
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


def sum_neighbours(splits: Sequence[Split], place: str) -> blends.Neighbours:
    """Sums up the neighbours of all splits; `place` as in `Split`."""
    total = blends.Neighbours()
    for split in splits:
        total.update(split.neighbours[place])
    return total
