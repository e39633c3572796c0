"""Settings that give the values of masks their classes, tried before they are given."""

import dataclasses
from collections.abc import Collection, Iterable

from data import schema
from data.files import palettes

_MAX_ROWS_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Convention:
    """What settings say of the values in masks.

    Attributes:
      num_classes: classes that masks may hold; None if nothing says how many.
      label_offset: added to each value to get the class.
      ignore_label: value of pixels to leave out.
      has_label_map: whether the user gave a label map, which says which value is what.
      order: pairs of a value and its class, where classes are in another order than
        their values; else empty.
      label_colors: colours of the masks and the value of each, if they hold colours.
    """

    num_classes: int | None
    label_offset: int = 0
    ignore_label: int = schema.IGNORE_LABEL
    has_label_map: bool = False
    order: tuple[tuple[int, int], ...] = ()
    label_colors: tuple[palettes.ColorValue, ...] = ()

    def find_values(self, labels: Iterable[int]) -> set[int]:
        """Returns the mask values of some classes."""
        labels = set(labels)
        if self.order:
            return {value for value, label in self.order if label in labels}
        return {label - self.label_offset for label in labels}


@dataclasses.dataclass(frozen=True)
class Prescription:
    """Settings to change; None stays as it is.

    Attributes:
      rows: of a label map: a mask value and the name of its class, or `ignore`.
      num_classes: the number of classes.
      label_offset: added to each value to get the class.
      ignore_label: value of pixels to leave out.
    """

    rows: tuple[tuple[int, str], ...] = ()
    num_classes: int | None = None
    label_offset: int | None = None
    ignore_label: int | None = None

    def suits(self, values: Iterable[int], convention: Convention) -> bool:
        """Tells whether each of some mask values would have a class or be ignored.

        A label map must list all of them: it would leave the rest without a class, or
        to `--ignore_label` without a word.
        """
        values = set(values) - {palettes.IGNORED_VALUE}
        if self.rows:
            is_listed = values <= {value for value, _ in self.rows}
            return is_listed and 2 <= len(self._classes()) <= schema.MAX_CLASSES
        num_classes = self.num_classes or convention.num_classes
        offset = _first(self.label_offset, convention.label_offset)
        ignored = _first(self.ignore_label, convention.ignore_label)
        labels = [value + offset for value in values if value != ignored]
        return bool(labels) and min(labels) >= 0 and max(labels) < num_classes

    def describe(self, values: Iterable[int], convention: Convention) -> str:
        """Returns the flags, or the rows of the file, to be said."""
        if self.rows:
            rows = [f"`{value},{name}`" for value, name in self.rows]
            if len(rows) > _MAX_ROWS_SHOWN:
                rows = [*rows[:_MAX_ROWS_SHOWN], "..."]
            text = f"--label_map=FILE, a file with the rows {' '.join(rows)}"
            num_classes = len(self._classes())
            if convention.num_classes not in (None, num_classes):
                text += f", and --num_classes={num_classes}"
            return text
        flags = " ".join(
            f"--{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name != "rows" and getattr(self, field.name) is not None
        )
        ignored = convention.ignore_label
        if self.ignore_label is None and ignored in values:
            # Else a class would be lost to the default without a word.
            flags += f" ({ignored} stays ignored)"
        return flags

    def _classes(self) -> list[str]:
        names = dict.fromkeys(name for _, name in self.rows)
        return [name for name in names if not palettes.is_ignored(name)]


def make_rows(values: Collection[int], ignored: Collection[int] = ()) -> Prescription:
    """Returns a label map that makes a class of each of some values.

    Args:
      values: of the classes, in their order.
      ignored: further values, whose pixels are to be left out.
    """
    names = [f"class_{label}" for label in range(len(values))]
    if len(values) == 2:
        names = ["background", "foreground"]
    rows = [*zip(values, names, strict=True), *((value, "ignore") for value in ignored)]
    return Prescription(rows=tuple(sorted(rows)))


def _first(value: int | None, default: int) -> int:
    return default if value is None else value
