"""Reading the small files that users write about classes."""

import csv
import json
import os
import pathlib
from collections.abc import Iterable

from data import schema
from data.files import palettes


def read_class_names(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names, read from a file if the only one is the path of one.

    Raises:
      schema.DataError: if a line of the file is a name that was there before.
    """
    if len(class_names) != 1 or not os.path.isfile(class_names[0]):
        return class_names
    lines = [line.strip() for line in _read_text(class_names[0]).splitlines()]
    names = tuple(line for line in lines if line)
    if repeated := _repeated(names):
        raise schema.DataError(
            f"--class_names={class_names[0]}: {', '.join(repeated)} is there twice; "
            "give each class a name of its own."
        )
    return names


def read_label_colors(name: str) -> schema.DatasetInfo:
    """Reads which class each mask colour stands for.

    Args:
      name: `voc`, `cityscapes`, `camvid`; or a CSV file with the columns class name,
        red, green, blue; or a JSON file like {"road": [128, 64, 128]}, with a list of
        colours for a class that has several. Classes are numbered in the order of
        their first rows; rows named `ignore` or `void` are no class.

    Returns:
      The classes, `label_colors` set.

    Raises:
      schema.DataError: if that cannot be read, or a colour has two classes.
    """
    if name in palettes.PALETTES:
        rows = palettes.PALETTES[name]
    else:
        rows = [
            (label, _parse_color(name, label, color))
            for label, color in _read_color_rows(name)
        ]
    labels = dict.fromkeys(label for label, _ in rows)
    names = [label for label in labels if not palettes.is_ignored(label)]
    values, first_colors = {}, {}
    for label, color in rows:
        value = names.index(label) if label in names else palettes.IGNORED_VALUE
        if values.setdefault(color, value) != value:
            raise schema.DataError(
                f"--label_colors={name}: {color} is the colour of two classes, "
                f"{label} one of them; give each colour one class."
            )
        first_colors.setdefault(label, color)
    palette = tuple(first_colors[label] for label in names)
    return schema.DatasetInfo(
        tuple(names), palette=palette, label_colors=tuple(values.items())
    )


def read_label_map(path: str) -> tuple[tuple[str, str], ...]:
    """Reads what becomes of each old class.

    Args:
      path: a CSV file with two columns, or a JSON object: old mask value, as it is on
        disk, or old class name; then new class name, or `ignore`. A first row
        `old,new` is passed over.

    Raises:
      schema.DataError: if that cannot be read, or an old class is there twice.
    """
    if _is_json(path):
        rows = [(old, new) for old, new in _read_json_items(path, "label_map")]
        if not all(isinstance(new, str) for _, new in rows):
            raise schema.DataError(
                f'--label_map={path}: give strings, like {{"3": "animal"}}.'
            )
    else:
        rows = _read_csv(path, "label_map")
        rows = rows[1:] if rows and rows[0] == ["old", "new"] else rows
    for row in rows:
        if len(row) != 2 or not all(row):
            raise schema.DataError(
                f"--label_map={path}: the row {','.join(row)!r} is not an old class "
                "and a new one; write e.g. 3,animal or cat,animal or 0,ignore."
            )
    if not rows:
        raise schema.DataError(f"--label_map={path}: there is no row in it.")
    if repeated := _repeated(old for old, _ in rows):
        raise schema.DataError(
            f"--label_map={path}: {', '.join(repeated)} is there twice; give each old "
            "class one new one."
        )
    return tuple((old, new) for old, new in rows)


def _read_color_rows(path: str) -> list[tuple[str, list]]:
    if not _is_json(path):
        rows = _read_csv(path, "label_colors")
        if rows and len(rows[0]) == 4 and not any(c.isdecimal() for c in rows[0][1:]):
            rows = rows[1:]  # The names of the columns.
        rows = [(row[0], row[1:]) for row in rows]
    else:
        rows = []
        for label, colors in _read_json_items(path, "label_colors"):
            has_several = isinstance(colors, list) and any(
                isinstance(color, list) for color in colors
            )
            rows += [(label, c) for c in (colors if has_several else [colors])]
    if not rows:
        raise schema.DataError(f"--label_colors={path}: there is no row in it.")
    return rows


def _parse_color(path: str, label: str, color: Iterable) -> palettes.Color:
    try:
        red, green, blue = (int(str(channel)) for channel in color)
        if not all(0 <= channel <= 255 for channel in (red, green, blue)):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise schema.DataError(
            f"--label_colors={path}: {label!r} has {color!r} for a colour; give red, "
            "green and blue, each 0 to 255."
        ) from error
    return red, green, blue


def _read_csv(path: str, flag: str) -> list[list[str]]:
    lines = _read_text(path, flag).splitlines()
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    return [row for row in rows if any(row)]


def _read_json_items(path: str, flag: str) -> list[tuple[str, object]]:
    """Returns the items of a JSON object, also those whose key is there twice."""
    try:
        items = json.loads(_read_text(path, flag), object_pairs_hook=list)
    except ValueError as error:
        raise schema.DataError(f"--{flag}={path} is no JSON file ({error}).") from error
    if not isinstance(items, list) or not all(isinstance(i, tuple) for i in items):
        raise schema.DataError(f"--{flag}={path} holds no JSON object of names.")
    return items


def _read_text(path: str, flag: str = "class_names") -> str:
    try:
        return pathlib.Path(path).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        known = f", and is none of {', '.join(palettes.PALETTES)}"
        raise schema.DataError(
            f"--{flag}={path} cannot be read ({error})"
            f"{known if flag == 'label_colors' else ''}."
        ) from error


def _is_json(path: str) -> bool:
    return path.lower().endswith(".json")


def _repeated(names: Iterable[str]) -> list[str]:
    names = list(names)
    return sorted({name for name in names if names.count(name) > 1})
