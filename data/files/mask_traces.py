"""Traces in the values of masks that tell how the masks were made.

Masks go wrong in few ways, and most leave a trace in the histogram of their values:
the luminance of a lost palette, multiples of 257 or 85, rare values between frequent
ones. Each trace is looked for in turn, the surest first. Settings are given only where
they suit all values of the data set.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping

from data import schema
from data.files import palettes, prescriptions

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
_MAX_VALUES_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Case:
    """Values of which some have no class.

    Attributes:
      counts: number of pixels of each value, in ascending order of the values.
      unknown: those without a class.
      convention: what the settings say.
      all_values: of all masks of the data set.
      solid: values that fill areas; None if nothing is known of areas, or if the others
        are no blends.
    """

    counts: Mapping[int, int]
    unknown: Collection[int]
    convention: prescriptions.Convention
    all_values: Collection[int]
    solid: Collection[int] | None = None

    @property
    def values(self) -> list[int]:
        """All values of the case."""
        return list(self.counts)

    @property
    def counted(self) -> list[int]:
        """Those that are not ignored."""
        return [v for v in self.counts if v != self.convention.ignore_label]

    def say(self, *choices: prescriptions.Prescription) -> str:
        """Returns the first of some settings that suits all masks, or nothing."""
        for choice in choices:
            if choice.suits(self.all_values, self.convention):
                return choice.describe(self.all_values, self.convention)
        return ""


def explain(case: Case) -> tuple[str, str]:
    """Returns the kind of the surest trace, empty if it is none, and the remedy."""
    for kind, find in (
        ("binary_mask", _explain_binary),
        ("scaled_16_bit", _explain_16_bits),
        ("interpolated_mask", _explain_lone_pixels),
        ("mask_is_photo", _explain_photo),
        ("", _suggest_offset),
        ("lost_palette", _explain_luminance),
        ("stretched_values", _explain_stretched),
        ("interpolated_mask", _explain_interpolated),
        ("", _suggest_ignored),
        ("", _suggest_classes),
    ):
        if remedy := find(case):
            return kind, remedy
    return "", ""


def _explain_binary(case: Case) -> str:
    if case.counts.keys() != {0, _WHITE}:
        return ""
    said = case.say(prescriptions.make_rows(case.values))
    return said and f"say {said}"


def _explain_16_bits(case: Case) -> str:
    values = case.values
    if values[-1] <= 255 or any(value % _SCALE_TO_16_BITS for value in values):
        return ""
    said = case.say(prescriptions.make_rows(values))
    return (
        "all are multiples of 257, as 8 bits become where they are stretched to 16; "
        f"divide them by 257{said and f', or say {said}'}"
    )


def _explain_lone_pixels(case: Case) -> str:
    if case.solid is None:
        return ""
    return _describe_blends(
        case, sorted(case.solid), [v for v in case.values if v not in case.solid]
    )


def _suggest_offset(case: Case) -> str:
    """Looks for an offset with which all values are classes."""
    rest, convention = case.counted, case.convention
    if len(rest) < 2:
        return ""
    width = rest[-1] - rest[0] + 1
    if convention.num_classes is None:
        if len(rest) < width:
            return ""
        said = case.say(
            prescriptions.Prescription(
                num_classes=width, label_offset=-rest[0] if rest[0] else None
            )
        )
        return said and f"if each is a class, say {said}"
    if width <= convention.num_classes:
        said = case.say(prescriptions.Prescription(label_offset=-rest[0]))
        return said and f"did you mean {said}?"
    if (rest[0], rest[-1]) != (0, convention.num_classes):
        return ""
    without_zero = case.say(
        prescriptions.Prescription(label_offset=-1, ignore_label=0),
        prescriptions.make_rows(range(1, width), (0, convention.ignore_label)),
    )
    with_zero = case.say(_take_all(width, convention))
    if not without_zero or not with_zero:
        return ""
    return f"if 0 is no class, say {without_zero}, else {with_zero}"


def _explain_luminance(case: Case) -> str:
    rest = {value for value in case.counted if value != 0}
    names = palettes.find_by_grays(rest)
    # A single value is too easily there by chance.
    if len(rest) < 2 or not names:
        return ""
    return (
        f"these are the grays of the colours of {' or '.join(names)}: the masks were "
        "turned gray and their palette is lost; export them again as they were drawn"
    )


def _explain_stretched(case: Case) -> str:
    for values in (case.values, case.counted):
        if not _is_stretched(values):
            continue
        ignored = set(case.all_values) & {case.convention.ignore_label} - set(values)
        if said := case.say(prescriptions.make_rows(values, ignored)):
            return (
                "they are spread evenly, as classes are to be told apart on a screen; "
                f"say {said}"
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


def _explain_photo(case: Case) -> str:
    counts = case.counts
    common, _ = _split_by_share(counts)
    share = sum(counts[value] for value in common) / sum(counts.values())
    if len(counts) < _LEAST_VALUES_OF_PHOTO or share >= _LEAST_COMMON_SHARE:
        return ""
    return (
        f"{len(counts)} values, few of them frequent, are those of a photo; name the "
        "masks in its place"
    )


def _explain_interpolated(case: Case) -> str:
    common, rare = _split_by_share(case.counts)
    if not common or len(rare) < max(_LEAST_BLENDS, 2 * len(common)):
        return ""
    share = sum(case.counts[value] for value in rare) / sum(case.counts.values())
    between = [value for value in rare if common[0] < value < common[-1]]
    # Else they may be the many rare classes of a large data set.
    if len(between) < 0.9 * len(rare) and share > _MOST_BLENDED_SHARE:
        return ""
    return _describe_blends(case, common, rare)


def _describe_blends(case: Case, common: list[int], rare: list[int]) -> str:
    share = sum(case.counts[value] for value in rare) / sum(case.counts.values())
    return (
        f"{len(rare)} rare values ({share:.1%} of the pixels) lie between and around "
        f"{join(common)}: blends, as smoothing, resizing and JPEG make them; export "
        "the masks as PNG without smoothing, and resize by nearest neighbour"
    )


def _split_by_share(counts: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Returns the frequent and the rare values."""
    limit = _COMMON_SHARE * sum(counts.values())
    common = [value for value in counts if counts[value] >= limit]
    return common, [value for value in counts if counts[value] < limit]


def _suggest_ignored(case: Case) -> str:
    """Looks for a lone value that stands for no class, or for one more."""
    convention = case.convention
    if convention.num_classes is None or len(case.unknown) > 1:
        return ""
    (value,) = case.unknown
    others = [other for other in case.counted if other != value]
    if len(others) < 2 or 0 < value < _FAR:
        return ""
    used = set(case.all_values)
    ignored = used & {convention.ignore_label}
    is_short = len(others) < convention.num_classes
    dropped = case.say(
        prescriptions.Prescription(
            num_classes=len(others) if is_short else None, ignore_label=value
        ),
        prescriptions.make_rows(others, {value} | ignored),
    )
    said = dropped and f"if {value} is no class, say {dropped}"
    if is_short:
        taken = case.say(prescriptions.make_rows(case.counted, ignored))
        if taken:
            return f"if {value} is a class, say {taken}{said and f'; {said}'}"
    return said


def _suggest_classes(case: Case) -> str:
    rest, convention = case.counted, case.convention
    if len(rest) < 2 or len(rest) > schema.MAX_CLASSES:
        return "" if convention.num_classes else "say --num_classes"
    num_needed = rest[-1] + max(convention.label_offset, 0) + 1
    said = case.say(_take_all(num_needed, convention))
    if said and num_needed / 2 <= len(rest) and 2 < num_needed <= schema.MAX_CLASSES:
        return f"if each is a class, say {said}"
    return "say with --label_map=FILE which are classes, a row `value,name` for each"


def _take_all(
    num_classes: int, convention: prescriptions.Convention
) -> prescriptions.Prescription:
    """Returns settings by which all values from 0 on are classes."""
    offset = 0 if convention.label_offset < 0 else None
    return prescriptions.Prescription(num_classes=num_classes, label_offset=offset)


def join(values: list[int]) -> str:
    """Lists values, of very many the first few."""
    shown = [str(value) for value in values]
    rest = len(shown) - _MAX_VALUES_SHOWN
    if rest > 0:
        shown = [*shown[:_MAX_VALUES_SHOWN], f"{rest} more up to {shown[-1]}"]
    return ", ".join(shown)
