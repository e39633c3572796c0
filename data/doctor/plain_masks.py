"""A program that makes plain masks of those that are compressed or blended."""

import collections
import os
from collections.abc import Sequence
from typing import NamedTuple

from data.doctor import facts as facts_lib
from data.files import conversions, mask_values, masks, palettes

_MAX_WRITTEN = 255
"""The greatest value of the masks that are written, which have 8 bits."""


class Program(NamedTuple):
    """What is to be run, and done by hand.

    Attributes:
      lines: two lines of Python; see `conversions.write_lines`.
      last_step: what is left to be done after them; empty if nothing is.
    """

    lines: str
    last_step: str


class _Levels(NamedTuple):
    """What pixels are to be replaced by; see `conversions.write_lines`."""

    levels: list[tuple[int, ...]]
    values: list[tuple[int, ...]]
    known: list[tuple[int, ...]]
    mode: str


def write_program(
    kind: str,
    splits: Sequence[facts_lib.Split],
    convention: mask_values.Convention,
) -> Program | None:
    """Writes a program for the masks that cannot be used as they are.

    Sound masks stay as they are. With `--label_colors` the colours that it lists are
    written; else numbers that the settings read as the classes 0, 1, 2 and so on.

    Args:
      kind: of the error that training would end with.
      splits: the facts of all masks.
      convention: what the settings say of mask values.

    Returns:
      The program; None if it does not show which colours or values the classes have.
    """
    facts = [f for split in splits for f in split.examples if f.files[1:]]
    if kind == "lossy_mask":
        cells = sum((split.cells for split in splits), collections.Counter())
        found = _find_compressed(cells, convention)
        concerned = [fact for fact in facts if fact.kind == kind]
        others = [fact for fact in facts if fact.kind != kind]
    elif kind == "interpolated_mask":
        found, place = _find_blended(splits, convention)
        concerned = [
            fact
            for fact in facts
            if (fact.colors if place == "colours" else fact.has_bad_values)
        ]
        names = {fact.files[1] for fact in concerned}
        # The program itself leaves sound masks as they are.
        others = [f for f in facts if f.kind and f.files[1] not in names]
    else:
        return None
    if not (found and concerned):
        return None
    files = {fact.files[1] for fact in concerned}
    lines = conversions.write_lines(
        found.levels,
        found.values,
        files,
        others={fact.files[1] for fact in others},
        known=found.known,
        mode=found.mode,
    )
    is_beside = any(os.path.splitext(file)[1] != ".png" for file in files)
    step = (
        "take away each mask that has got a PNG file of its name" if is_beside else ""
    )
    return Program(lines, step)


def _find_compressed(
    cells: collections.Counter, convention: mask_values.Convention
) -> _Levels | None:
    """Finds the colours that compressed masks were drawn in."""
    if convention.label_colors:
        colors = dict(convention.label_colors)
        levels = conversions.find_listed(cells, colors)
        is_whole = _has_all_classes(levels, colors)
        return _Levels(levels, levels, [], "RGB") if is_whole else None
    levels = conversions.find_levels(cells, convention.num_classes)
    values = _list_values(len(levels), convention)
    if not values:
        return None
    if all(len(set(level)) == 1 for level in levels):
        return _Levels([level[:1] for level in levels], values, [], "L")
    return _Levels(levels, values, [], "RGB")


def _find_blended(
    splits: Sequence[facts_lib.Split], convention: mask_values.Convention
) -> tuple[_Levels | None, str]:
    """Finds the colours, or else the values, that fill areas, and which it was."""
    for place in ("colours", "values"):
        solid = facts_lib.sum_neighbours(splits, place).find_solid()
        if solid and place == "values":
            return _number([(value,) for value in solid], convention), place
        if solid:
            levels = [masks.decode_color(code) for code in solid]
            find = _match_listed if convention.label_colors else _number
            return find(levels, convention), place
    return None, ""


def _match_listed(
    levels: list[palettes.Color], convention: mask_values.Convention
) -> _Levels | None:
    """Gives colours their own values, if `--label_colors` lists all of them."""
    colors = dict(convention.label_colors)
    if not colors.keys() >= set(levels) or not _has_all_classes(levels, colors):
        return None
    # Outlines that are to be ignored are too thin to fill an area.
    ignored = [c for c, value in colors.items() if value == palettes.IGNORED_VALUE]
    levels = list(dict.fromkeys([*levels, *ignored]))
    return _Levels(levels, levels, list(colors), "RGB")


def _has_all_classes(
    levels: Sequence[palettes.Color], colors: dict[palettes.Color, int]
) -> bool:
    """Tells whether each listed class has one of some colours.

    The pixels of another would be given to the classes of the nearest colours.
    """
    found = {colors[level] for level in levels}
    return found >= set(colors.values()) - {palettes.IGNORED_VALUE}


def _number(
    levels: list[tuple[int, ...]], convention: mask_values.Convention
) -> _Levels | None:
    """Gives colours, or values, the numbers of the classes in their order."""
    values = _list_values(len(levels), convention)
    if not values:
        return None
    sound = [*(value for (value,) in values), convention.ignore_label]
    known = [(value,) * len(levels[0]) for value in sound]
    return _Levels(levels, values, known, "")


def _list_values(count: int, convention: mask_values.Convention) -> list[tuple[int]]:
    """Returns what the settings read as the classes from 0 on; nothing if not all."""
    values = [label - convention.label_offset for label in range(count)]
    is_usable = (
        count == (convention.num_classes or count)
        and not convention.has_label_map
        and convention.ignore_label not in values
        and all(0 <= value <= _MAX_WRITTEN for value in values)
    )
    return [(value,) for value in values] if is_usable else []
