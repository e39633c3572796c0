"""What a segmentation data set is: its classes, and where its examples come from."""

import dataclasses
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # Three seconds that `--help` should not take.
    import tensorflow as tf

IGNORE_LABEL = 255
"""The label of a pixel that neither loss nor metrics may see, everywhere past
preprocessing. `--ignore_label` names the value that stands for it in the raw masks."""

FILL_VALUE = 128
"""Mid-grey, the colour of what lies outside an image of 8 bits."""

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601). They add up to 1, so gray stays gray."""

ALL_SPLITS = "all"
"""The split of all examples, of any data set."""

MAX_CLASSES = 255
"""Labels are stored as uint8 and 255 is taken by `IGNORE_LABEL`."""


class DataError(ValueError):
    """Examples that cannot be used as they are; the message names file and remedy.

    Attributes:
      kind: what is wrong, as a short code like `size_mismatch`, to group errors by.
    """

    def __init__(self, message: str, *, kind: str = "unusable") -> None:
        """Makes an error of a kind."""
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """What decoded images are: their channels, and the values that these may have.

    Attributes:
      num_channels: of each image.
      value_range: the least and the greatest value. A range within 0..255 is kept in 8
        bits (of images of 16 bits, the upper 8), any other range in 16 bits.
    """

    num_channels: int = 3
    value_range: tuple[int, int] = (0, 255)

    @property
    def bits(self) -> int:
        """How many bits a value is kept in."""
        return 8 if self.value_range[1] <= 255 else 16

    @property
    def dtype(self) -> str:
        """The name of the type of the values."""
        return f"uint{self.bits}"

    @property
    def is_whole(self) -> bool:
        """Whether the range has all values of its type, so that none is beyond it."""
        return self.value_range == (0, 2**self.bits - 1)

    @property
    def fill_value(self) -> int:
        """The middle of the range, which fills what lies outside the image."""
        return (sum(self.value_range) + 1) // 2


RGB = ImageFormat()
"""Red, green and blue of 8 bits."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The classes of a data set, and what its images are decoded to.

    Attributes:
      class_names: one name for each class, in the order of the labels.
      label_offset: what to add to a raw mask value to get the class index, for
        instance -1 for masks that count from 1.
      palette: one (red, green, blue) triple, 0..255, for each class.
      label_map: pairs of a raw mask value and its class or `IGNORE_LABEL`, in place of
        `label_offset`; empty if there is no such map.
      label_colors: pairs of a colour in the masks and its raw value, where masks hold
        colours; see `data.files.palettes`.
      image_format: what the stores hold of the images.
      reordered_offset: the `label_offset` that `label_map` stands for, where all it
        does is to put the classes in another order; else None.
    """

    class_names: tuple[str, ...]
    label_offset: int = 0
    palette: tuple[tuple[int, int, int], ...] = ()
    label_map: tuple[tuple[int, int], ...] = ()
    label_colors: tuple[tuple[tuple[int, int, int], int], ...] = ()
    image_format: ImageFormat = RGB
    reordered_offset: int | None = None

    def __post_init__(self) -> None:
        if not self.palette:
            colors = voc_palette(len(self.class_names))
            object.__setattr__(self, "palette", colors)

    @property
    def num_classes(self) -> int:
        """The number of classes, the ignored label not counted."""
        return len(self.class_names)


def resolve_info(
    info: DatasetInfo | None,
    *,
    class_names: tuple[str, ...] | None = None,
    num_classes: int | None = None,
    label_offset: int | None = None,
) -> DatasetInfo:
    """Merges what a data set says of its classes with what the user says.

    Args:
      info: the data set's own convention, None if it has none.
      class_names: the user's names, or None.
      num_classes: the user's number of classes, or None.
      label_offset: the user's offset, or None.

    Raises:
      DataError: if neither says how many classes there are.
    """
    own_names = info.class_names if info else None
    if class_names is None and num_classes in (None, len(own_names or ())):
        class_names = own_names
    if class_names is None and num_classes is None:
        raise DataError(
            "This data set does not say how many classes it has; give --num_classes "
            "or --class_names.",
            kind="classes_unknown",
        )
    if class_names is None:
        class_names = placeholder_names(num_classes)
    if label_offset is None:
        label_offset = info.label_offset if info else 0
    palette = info.palette if info and len(info.palette) == len(class_names) else ()
    return dataclasses.replace(
        info or DatasetInfo(class_names),
        class_names=class_names,
        label_offset=label_offset,
        palette=palette,
    )


class Source(Protocol):
    """A split of a data set: encoded or generated examples in a fixed order.

    Attributes:
      name: what error messages call the split, e.g. `synthetic/train`.
      info: classes and label convention of the raw masks, None if not known.
      fingerprint: changes whenever any example may have changed.
    """

    name: str
    info: DatasetInfo | None
    fingerprint: str

    def __len__(self) -> int:
        """Returns the number of examples."""

    def examples(self, start: int = 0, stop: int | None = None) -> "tf.data.Dataset":
        """Reads examples `start` to `stop` (exclusive), in the order of their ids.

        Returns:
          A `tf.data.Dataset` of dicts with `image` and `label`, each either the
          bytes of an image file (a string scalar) or pixels (uint8 or uint16 [height,
          width, channels] and integers [height, width] or [height, width, 3]), and
          `name`, a string scalar for messages. Where the mask is a file of its own,
          `label_name` is its name.
        """


@runtime_checkable
class RandomAccessSource(Source, Protocol):
    """A source that can read any single example; `--cache=none` asks for it."""

    def load(self, index: "tf.Tensor") -> "dict[str, tf.Tensor]":
        """Reads one example, in a graph, many at the same time.

        Args:
          index: int64 scalar, the id.

        Returns:
          A dict, equal to element `index` of `examples()`.
        """


def placeholder_names(num_classes: int) -> tuple[str, ...]:
    """Returns the names of classes that nobody gave a name.

    >>> placeholder_names(2)
    ('class_0', 'class_1')
    """
    return tuple(f"class_{label}" for label in range(num_classes))


def voc_palette(num_colors: int) -> tuple[tuple[int, int, int], ...]:
    """Makes the colour map of the Pascal VOC development kit.

    The bits of the label are dealt to the three channels in turn, from the highest
    bit of each channel downwards, so that neighbouring labels differ strongly.

    >>> voc_palette(4)
    ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """
    colors = []
    for label in range(num_colors):
        color = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                color[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append(tuple(color))
    return tuple(colors)
