"""What the numbers in masks tell of how the masks were made.

Masks go wrong in few ways, and most leave a trace in the histogram of their values:
the luminance of a lost palette, multiples of 257 or 85, rare values between frequent
ones. Each trace is looked for in turn, the surest first.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np

from data import palettes, schema

_MAX_VALUES_SHOWN = 12
_MAX_ROWS_SHOWN = 8

_WHITE = 255
_SCALE_TO_16_BITS = 257
"""65535 / 255: what tools multiply 8 bits by to fill 16."""
_LEAST_STEP = 5
"""Values stretched to be seen lie at least so far apart."""
_MAX_CLASSES_TO_SEE = 52
_FAR = 100
"""A lone value from here on marks pixels to ignore rather than one more class."""

_COMMON_SHARE = 0.01
"""Values of this share of the pixels or more are frequent."""
_LEAST_COMMON_SHARE = 0.6
"""Frequent values make up more than this of a mask, be it blended at its edges."""
_LEAST_VALUES_OF_PHOTO = 64
_LEAST_BLENDS = 8
_MOST_BLENDED_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What is wrong with values of masks; `str` makes a message of it.

    Attributes:
      kind: a short code; see `schema.DataError`.
      sentence: what was found.
      remedy: what to do about it, possibly empty or a question.
    """

    kind: str
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        return "; ".join(part for part in (self.sentence, self.remedy) if part)


@dataclasses.dataclass(frozen=True)
class Convention:
    """What settings say of the values in masks.

    Attributes:
      num_classes: classes that masks may hold; None if nothing says how many.
      label_offset: added to each value to get the class.
      ignore_label: value of pixels to leave out.
      has_label_map: whether a label map says which value is what.
    """

    num_classes: int | None
    label_offset: int = 0
    ignore_label: int = schema.IGNORE_LABEL
    has_label_map: bool = False


def count(values: np.ndarray) -> dict[int, int]:
    """Returns the number of pixels of each value of a mask, 0 or more, that occurs."""
    counts = np.bincount(values.ravel())
    found = np.flatnonzero(counts)
    return dict(zip(found.tolist(), counts[found].tolist(), strict=True))


def diagnose(
    counts: Mapping[int, int],
    unknown: Collection[int],
    convention: Convention,
    *,
    subject: str = "the mask holds",
) -> Diagnosis | None:
    """Says what values without a class come from.

    Args:
      counts: number of pixels of each value, in one mask or in all of a split.
      unknown: the values that have no class, of those in `counts`; all of them, if it
        is not known how many classes there are.
      convention: what the settings say.
      subject: how the sentence starts.

    Returns:
      None if there is no unknown value.
    """
    counts = {
        value: count
        for value, count in sorted(counts.items())
        if value != palettes.IGNORED_VALUE
    }
    if not set(unknown) & counts.keys():
        return None
    held = f"{subject} the values {_join(list(counts))}"
    if convention.has_label_map:
        return Diagnosis(
            "unlisted_value",
            f"{held}, of which --label_map does not list {_join(sorted(unknown))}",
            "add a row for each",
        )
    if convention.num_classes is None:
        sentence = f"{held}; nothing says how many classes these are"
        kind = "classes_unknown"
    else:
        sentence = (
            f"{held}; with --label_offset={convention.label_offset} and --ignore_label="
            f"{convention.ignore_label} they must give classes 0 to "
            f"{convention.num_classes - 1} (--num_classes={convention.num_classes})"
        )
        kind = "values_out_of_range"
    for own_kind, find in (
        ("binary_mask", _explain_binary),
        ("scaled_16_bit", _explain_16_bits),
        ("mask_is_photo", _explain_photo),
        (kind, _suggest_offset),
        ("lost_palette", _explain_luminance),
        ("stretched_values", _explain_stretched),
        ("interpolated_mask", _explain_interpolated),
        (kind, _suggest_ignored),
        (kind, _suggest_classes),
    ):
        if remedy := find(counts, set(unknown), convention):
            return Diagnosis(own_kind, sentence, remedy)
    return Diagnosis(kind, sentence)


def diagnose_classes(
    class_counts: np.ndarray,
    convention: Convention,
    *,
    class_names: tuple[str, ...],
    has_label_colors: bool = False,
) -> Diagnosis | None:
    """Says why a split has pixels of fewer than two classes.

    Args:
      class_counts: number of pixels of each class and of `schema.IGNORE_LABEL`, int64
        [256].
      convention: what the settings say.
      class_names: of the classes.
      has_label_colors: whether masks hold colours.

    Returns:
      None if there are pixels of two classes or more.
    """
    present = np.flatnonzero(class_counts[: schema.IGNORE_LABEL]).tolist()
    if len(present) > 1:
        return None
    ignored = class_counts[schema.IGNORE_LABEL]
    found = "every pixel is ignored"
    if present:
        name = class_names[present[0]]
        found = f"every pixel that counts is of one class, {name}"
        if ignored:
            share = ignored / class_counts.sum()
            found += f", and the other {share:.1%} are ignored"
    if convention.has_label_map:
        return Diagnosis("one_class", found, "give two classes or more in --label_map")
    if has_label_colors:
        return Diagnosis("one_class", found, "list the colours of two classes or more")
    raw = {label - convention.label_offset for label in present}
    is_white_ignored = ignored and convention.ignore_label == _WHITE
    if is_white_ignored and raw <= {0}:
        return Diagnosis(
            "binary_mask",
            f"{found} (--ignore_label={_WHITE})",
            _suggest_rows([0, _WHITE]),
        )
    if raw == {0} and not ignored:
        return Diagnosis(
            "one_class",
            f"{found}: every mask value is 0",
            "masks of 16 bits that were cut to 8 look so, and masks whose drawing was "
            "not exported; look at them where they were made",
        )
    return Diagnosis(
        "one_class",
        found,
        f"look at --label_offset={convention.label_offset}, --ignore_label="
        f"{convention.ignore_label} and the masks",
    )


def _explain_binary(counts, unknown, convention) -> str:
    return _suggest_rows([0, _WHITE]) if counts.keys() == {0, _WHITE} else ""


def _explain_16_bits(counts, unknown, convention) -> str:
    values = list(counts)
    if values[-1] <= 255 or any(value % _SCALE_TO_16_BITS for value in values):
        return ""
    return (
        "all are multiples of 257, as 8 bits become where they are stretched to 16; "
        f"divide them by 257, or {_suggest_rows(values)}"
    )


def _suggest_offset(counts, unknown, convention) -> str:
    """Looks for an offset with which all values are classes."""
    rest = [value for value in counts if value != convention.ignore_label]
    if len(rest) < 2:
        return ""
    width = rest[-1] - rest[0] + 1
    if convention.num_classes is None:
        if len(rest) < width:
            return ""
        offset = f" --label_offset={-rest[0]}" if rest[0] else ""
        return f"if each is a class, say --num_classes={width}{offset}"
    if width <= convention.num_classes:
        return f"did you mean --label_offset={-rest[0]}?"
    if (rest[0], rest[-1]) == (0, convention.num_classes):
        return (
            "if 0 is no class, say --label_offset=-1 --ignore_label=0, else "
            f"--num_classes={width}"
        )
    return ""


def _explain_luminance(counts, unknown, convention) -> str:
    rest = {value for value in counts if value not in (0, convention.ignore_label)}
    names = palettes.find_by_grays(rest)
    # A single value is too easily there by chance.
    if len(rest) < 2 or not names:
        return ""
    return (
        f"these are the grays of the colours of {' or '.join(names)}: the masks were "
        "turned gray and their palette is lost; export them again as they were drawn"
    )


def _explain_stretched(counts, unknown, convention) -> str:
    rest = [value for value in counts if value != convention.ignore_label]
    for values in (list(counts), rest):
        if _is_stretched(values):
            return (
                "they are spread evenly, as classes are to be told apart on a screen; "
                f"{_suggest_rows(values)}"
            )
    return ""


def _is_stretched(values: list[int]) -> bool:
    """Tells whether values are classes times a number, rounded or not."""
    if len(values) < 2 or values[0] != 0:
        return False
    if len(values) == 2:
        return values[1] >= _FAR
    step = math.gcd(*values)
    if step >= _LEAST_STEP and len(values) > values[-1] / step / 2:
        return True
    for num_classes in range(3, min(2 * len(values), _MAX_CLASSES_TO_SEE) + 1):
        exact = [_WHITE * label / (num_classes - 1) for label in range(num_classes)]
        if {f(value) for value in exact for f in (math.floor, math.ceil)} >= set(
            values
        ):
            return True
    return False


def _explain_photo(counts, unknown, convention) -> str:
    common, _ = _split_by_share(counts)
    share = sum(counts[value] for value in common) / sum(counts.values())
    if len(counts) < _LEAST_VALUES_OF_PHOTO or share >= _LEAST_COMMON_SHARE:
        return ""
    return (
        f"{len(counts)} values, few of them frequent, are those of a photo; name the "
        "masks in its place"
    )


def _explain_interpolated(counts, unknown, convention) -> str:
    common, rare = _split_by_share(counts)
    if not common or len(rare) < max(_LEAST_BLENDS, 2 * len(common)):
        return ""
    share = sum(counts[value] for value in rare) / sum(counts.values())
    between = [value for value in rare if common[0] < value < common[-1]]
    # Else they may be the many rare classes of a large data set.
    if len(between) < 0.9 * len(rare) and share > _MOST_BLENDED_SHARE:
        return ""
    return (
        f"{len(rare)} rare values ({share:.1%} of the pixels) lie between and around "
        f"{_join(common)}: blends, as smoothing, resizing and JPEG make them; export "
        "the masks as PNG without smoothing, and resize by nearest neighbour"
    )


def _split_by_share(counts) -> tuple[list[int], list[int]]:
    """Returns the frequent and the rare values."""
    limit = _COMMON_SHARE * sum(counts.values())
    common = [value for value in counts if counts[value] >= limit]
    return common, [value for value in counts if counts[value] < limit]


def _suggest_ignored(counts, unknown, convention) -> str:
    """Looks for a lone value that stands for no class."""
    if convention.num_classes is None or len(unknown) > 1:
        return ""
    (value,) = unknown
    num_classes = len(counts.keys() - {value, convention.ignore_label})
    if num_classes < 2 or 0 < value < _FAR:
        return ""
    return f"if {value} is no class, say --ignore_label={value}"


def _suggest_classes(counts, unknown, convention) -> str:
    rest = [value for value in counts if value != convention.ignore_label]
    if len(rest) < 2 or len(rest) > schema.MAX_CLASSES:
        return "" if convention.num_classes else "say --num_classes"
    num_needed = rest[-1] + max(convention.label_offset, 0) + 1
    if num_needed / 2 <= len(rest) and 2 < num_needed <= schema.MAX_CLASSES:
        return f"if each is a class, say --num_classes={num_needed}"
    return "say with --label_map=FILE which are classes, a row `value,name` for each"


def _suggest_rows(values: list[int]) -> str:
    """Says how a label map gives each of some values a class."""
    names = [f"class_{label}" for label in range(len(values))]
    if len(values) == 2:
        names = ["background", "foreground"]
    rows = [f"`{value},{name}`" for value, name in zip(values, names, strict=True)]
    if len(rows) > _MAX_ROWS_SHOWN:
        rows = [*rows[:_MAX_ROWS_SHOWN], "..."]
    return f"say --label_map=FILE, a file with the rows {' '.join(rows)}"


def _join(values: list[int]) -> str:
    shown = [str(value) for value in values]
    rest = len(shown) - _MAX_VALUES_SHOWN
    if rest > 0:
        shown = [*shown[:_MAX_VALUES_SHOWN], f"{rest} more up to {shown[-1]}"]
    return ", ".join(shown)
