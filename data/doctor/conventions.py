"""Masks of one set that do not agree on what their numbers mean."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping

from data.doctor import facts as facts_lib
from data.files import mask_values, palettes, prescriptions

_WHITES = (1, 255, 65535)
_LEAST_WHITE = 250
"""Of each channel of the colour that a viewer shows for a value."""
_MAX_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Group:
    """Masks that follow one convention.

    Attributes:
      values: what they use, in ascending order, without 0.
      facts: of the masks.
    """

    values: tuple[int, ...]
    facts: tuple[facts_lib.Facts, ...]

    def __str__(self) -> str:
        encodings = sorted({fact.traits.encoding for fact in self.facts})
        example = self.facts[0].files[-1]
        values = ", ".join(map(str, (0, *self.values)))
        return (
            f"{len(self.facts)} ({' and '.join(encodings)}, e.g. {example}) hold "
            f"{values}"
        )


def find_mixed(
    facts: Iterable[facts_lib.Facts], convention: mask_values.Convention
) -> tuple[mask_values.Diagnosis, tuple[Group, ...]] | None:
    """Finds masks of several conventions that name the same classes by other numbers.

    Two values belong to one group if some mask has both. Two groups are taken for two
    conventions of the same classes if they have the same number of values, and at least
    one of these has no class or is ignored. Groups of a single value must also be shown
    as white by viewers.

    Args:
      facts: of all examples of the data set.
      convention: what the settings say.

    Returns:
      What is to be said, and the groups; None if there is one convention.
    """
    if convention.has_label_map:
        return None
    decoded = [fact for fact in facts if fact.values is not None]
    groups = _group(decoded)
    if len(groups) < 2 or len({len(group.values) for group in groups}) > 1:
        return None
    num_classes = len(groups[0].values) + 1
    used = {value for group in groups for value in group.values}
    if convention.num_classes not in (None, num_classes):
        return None
    if num_classes == 2 and not all(_is_white(group) for group in groups):
        return None
    # Classes that do not meet in any mask form groups, too, but in steps of no kind.
    if num_classes > 2 and not all(map(_is_even, groups)):
        return None
    if all(_has_class(value, convention) for value in used):
        return None
    names = [f"class_{label}" for label in range(num_classes)]
    if num_classes == 2:
        names = ["background", "foreground"]
    rows = [(0, names[0])]
    for group in groups:
        rows += zip(group.values, names[1:], strict=True)
    prescription = prescriptions.Prescription(rows=tuple(sorted(rows)))
    values = {value for fact in decoded for value in fact.values}
    what = "black and white" if num_classes == 2 else "what numbers mean"
    shown = "; ".join(map(str, groups[:_MAX_NAMED]))
    sentence = f"the masks are of {len(groups)} conventions of {what}: {shown}"
    remedy = "make them alike where they were drawn"
    if prescription.suits(values, convention):
        said = prescription.describe(values, convention)
        order = "" if num_classes == 2 else ", in their order,"
        remedy = f"if the values of all{order} mean the same, say {said}"
    return mask_values.Diagnosis("mixed_conventions", sentence, remedy), tuple(groups)


def find_palettes(
    facts: Iterable[facts_lib.Facts],
) -> Mapping[int, Mapping[palettes.Color, list[facts_lib.Facts]]]:
    """Finds indexes that are of several colours in the palettes of the masks.

    Returns:
      For each such index, the masks of each of its colours.
    """
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for fact in facts:
        for index, color in fact.traits.palette:
            found[index][color].append(fact)
    return {index: colors for index, colors in found.items() if len(colors) > 1}


def list_colors(facts: Iterable[facts_lib.Facts]) -> str:
    """Lists the colours that masks are shown in, gray ones apart.

    With `--label_colors` all masks are read by their colours, gray ones too.
    """
    facts = list(facts)
    colored = {color for fact in facts for _, color in fact.traits.palette}
    shown = ", ".join(map(str, sorted(colored)))
    gray = {
        (value, value, value)
        for fact in facts
        if fact.traits.encoding != "palette"
        for value in fact.values
    } - colored
    if not gray:
        return shown
    num_gray = sum(fact.traits.encoding != "palette" for fact in facts)
    return (
        f"{shown}; and, for the {num_gray} masks without a palette, "
        f"{', '.join(map(str, sorted(gray)))}"
    )


def _group(facts: list[facts_lib.Facts]) -> list[Group]:
    """Groups masks by values that occur together; those of 0 alone are in none."""
    parents: dict[int, int] = {}

    def find(value: int) -> int:
        while parents.setdefault(value, value) != value:
            value = parents[value]
        return value

    kept = [(fact, fact.values - {0, palettes.IGNORED_VALUE}) for fact in facts]
    for _, values in kept:
        first = next(iter(values), None)
        for value in values:
            parents[find(value)] = find(first)
    members = collections.defaultdict(list)
    for fact, values in kept:
        if values:
            members[find(next(iter(values)))].append((fact, values))
    groups = [
        Group(
            tuple(sorted(set().union(*(values for _, values in rows)))),
            tuple(fact for fact, _ in rows),
        )
        for rows in members.values()
    ]
    return sorted(groups, key=lambda group: group.values)


def _is_even(group: Group) -> bool:
    """Tells whether the values, from 0 on, are steps of one size, rounded or not."""
    values = (0, *group.values)
    steps = [after - value for value, after in itertools.pairwise(values)]
    return max(steps) - min(steps) <= 1


def _is_white(group: Group) -> bool:
    (value,) = group.values
    for fact in group.facts:
        color = dict(fact.traits.palette).get(value)
        is_shown_white = color is not None and min(color) >= _LEAST_WHITE
        if value not in _WHITES and not is_shown_white:
            return False
    return True


def _has_class(value: int, convention: mask_values.Convention) -> bool:
    if convention.num_classes is None or value == convention.ignore_label:
        return False
    return 0 <= value + convention.label_offset < convention.num_classes
