"""What is wrong with the numbers in masks, of one or of many."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from data import schema
from data.files import mask_traces, palettes, prescriptions

Convention = prescriptions.Convention

_WHITE = 255

SEE_DOCTOR = "--mode=doctor looks at all masks, and says what mends them"
"""In place of a remedy, where only one mask is known."""

KINDS = frozenset({
    "binary_mask", "scaled_16_bit", "lost_palette", "stretched_values",
    "interpolated_mask", "unlisted_value", "values_out_of_range", "classes_unknown",
    "mixed_conventions", "one_class",
})  # fmt: skip
"""Of diagnoses that one mask alone may mislead in."""


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
    all_values: Iterable[int] = (),
    solid: Collection[int] | None = None,
) -> Diagnosis | None:
    """Says what values without a class come from.

    Args:
      counts: number of pixels of each value, in one mask or in many.
      unknown: the values that have no class, of those in `counts`; all of them, if it
        is not known how many classes there are.
      convention: what the settings say.
      subject: how the sentence starts.
      all_values: those of all masks of the data set, with which settings are tried
        before they are given; by default those in `counts`.
      solid: the values that fill areas, where the others are blends of them; see
        `blends.Neighbours.find_solid`.

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
    held = f"{subject} the values {mask_traces.join(list(counts))}"
    if convention.has_label_map:
        unlisted = mask_traces.join(sorted(unknown))
        return Diagnosis(
            "unlisted_value",
            f"{held}, of which --label_map does not list {unlisted}",
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
    case = mask_traces.Case(
        counts,
        frozenset(unknown),
        convention,
        frozenset(all_values) | counts.keys(),
        solid,
    )
    own_kind, remedy = mask_traces.explain(case)
    return Diagnosis(own_kind or kind, sentence, remedy)


def diagnose_classes(
    class_counts: np.ndarray,
    convention: Convention,
    *,
    class_names: tuple[str, ...],
    has_label_colors: bool = False,
    all_values: Iterable[int] = (0, _WHITE),
) -> Diagnosis | None:
    """Says why a split has pixels of fewer than two classes.

    Args:
      class_counts: number of pixels of each class and of `schema.IGNORE_LABEL`, int64
        [256].
      convention: what the settings say.
      class_names: of the classes.
      has_label_colors: whether masks hold colours.
      all_values: those of all masks of the data set.

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
    raw = convention.find_values(present)
    is_white_ignored = ignored and convention.ignore_label == _WHITE
    rows = prescriptions.make_rows((0, _WHITE))
    if is_white_ignored and raw <= {0} and rows.suits(all_values, convention):
        return Diagnosis(
            "binary_mask",
            f"{found} (--ignore_label={_WHITE})",
            f"say {rows.describe(all_values, convention)}",
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
