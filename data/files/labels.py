"""From the classes of a data set to those that the user wants."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from data import schema
from data.files import label_files, palettes

_MAX_VALUE = 65535
"""The greatest number in a mask of 16 bits."""


def resolve_info(
    info: schema.DatasetInfo | None,
    *,
    class_names: tuple[str, ...] | None = None,
    num_classes: int | None = None,
    label_offset: int | None = None,
    label_colors: str = "",
    label_map: str = "",
) -> schema.DatasetInfo:
    """Merges what a data set says of its classes with all that the user says.

    Args:
      info: the data set's own convention, None if it has none.
      class_names: the user's names, of the merged classes if there is a label map; or
        the path of a file with one name a line.
      num_classes: the user's number of classes.
      label_offset: the user's offset.
      label_colors: file or known palette; see `label_files.read_label_colors`.
      label_map: file; see `label_files.read_label_map`.

    Raises:
      schema.DataError: if a file cannot be used, two of the arguments contradict each
        other, or none says how many classes there are.
    """
    names = label_files.read_class_names(class_names) if class_names else None
    if label_colors:
        info = label_files.read_label_colors(label_colors)
    if label_map:
        rows = label_files.read_label_map(label_map)
        info = map_classes(
            info, rows, label_map=label_map, label_offset=label_offset, names=names
        )
        label_offset = None
    if label_colors or label_map:
        kind, path = ("map", label_map) if label_map else ("colors", label_colors)
        _check_count(info.class_names, f"--label_{kind}={path}", num_classes, names)
    elif names:
        _check_count(names, f"--class_names={','.join(class_names)}", num_classes)
    is_reordered = names and info and set(names) == set(info.class_names)
    if is_reordered:
        # To take the names one after the other would call dogs cats. The offset leads
        # from mask values to the data set's own order, so it comes first.
        if label_offset is not None:
            info = dataclasses.replace(info, label_offset=label_offset)
        info = match_classes(info, names, subject="")
        label_offset = None
    elif names and info:
        _check_places(names, info.class_names)
    info = schema.resolve_info(
        info, class_names=names, num_classes=num_classes, label_offset=label_offset
    )
    if not 2 <= info.num_classes <= schema.MAX_CLASSES:
        raise schema.DataError(
            f"There are {info.num_classes} classes ({', '.join(info.class_names[:5])}"
            f"{', ...' if info.num_classes > 5 else ''}), but there must be 2 to "
            f"{schema.MAX_CLASSES}; merge or drop some with --label_map, or name more."
        )
    return info


def match_classes(
    info: schema.DatasetInfo, class_names: tuple[str, ...], *, subject: str
) -> schema.DatasetInfo:
    """Numbers the classes of a data set as a model does that was trained on another.

    Classes are told by their names. Where only one of the two has any, the order
    decides.

    Args:
      info: the classes of the data set.
      class_names: those of the model, in the order of its logits.
      subject: the data set, for messages.

    Returns:
      The classes of the model, and how masks of the data set show them.

    Raises:
      schema.DataError: if the two have other names, or other numbers of classes.
    """
    if info.class_names == class_names:
        return info
    is_named = [not _are_placeholders(n) for n in (info.class_names, class_names)]
    if len(info.class_names) == len(class_names) and not all(is_named):
        return dataclasses.replace(info, class_names=class_names)
    if set(info.class_names) != set(class_names):
        raise schema.DataError(
            f"{subject} has the classes {_some(info.class_names)}, and the model was "
            f"trained with {_some(class_names)}. Give the data set the same names, "
            "with --class_names, --label_map or in the file of --label_colors.",
            kind="other_classes",
        )
    places = [class_names.index(name) for name in info.class_names]
    places_by_value = info.label_map or tuple(
        (label - info.label_offset, label)
        for label in range(info.num_classes)
        if label >= info.label_offset
    )
    return dataclasses.replace(
        info,
        class_names=class_names,
        palette=tuple(
            info.palette[info.class_names.index(name)] for name in class_names
        ),
        label_map=tuple(
            (value, label if label == schema.IGNORE_LABEL else places[label])
            for value, label in places_by_value
        ),
        label_offset=0,
        reordered_offset=info.reordered_offset if info.label_map else info.label_offset,
    )


def _are_placeholders(class_names: tuple[str, ...]) -> bool:
    """Tells whether these are the names of classes that nobody gave a name."""
    return class_names == schema.placeholder_names(len(class_names))


def map_classes(
    info: schema.DatasetInfo | None,
    rows: tuple[tuple[str, str], ...],
    *,
    label_map: str,
    label_offset: int | None = None,
    names: tuple[str, ...] | None = None,
) -> schema.DatasetInfo:
    """Merges and drops classes.

    Args:
      info: the old classes, None if only their mask values are known.
      rows: of `label_files.read_label_map`.
      label_map: the file's name, for messages.
      label_offset: the user's offset, which leads from old names to mask values.
      names: the order of the new classes; None for that of their first rows.

    Returns:
      The new classes, `label_map` set. Each has the colour of the first old class that
      becomes it.

    Raises:
      schema.DataError: if there is an offset but no old name, a row names no old
        class, an old class has no row, or `names` are not the new classes.
    """
    if label_offset is not None and info is None:
        raise schema.DataError(
            f"--label_offset={label_offset} leads from class names to mask values, but "
            f"this data set has no names; --label_map={label_map} takes the values as "
            "they are on disk. Leave --label_offset out."
        )
    if label_offset is None:
        label_offset = info.label_offset if info else 0
    old_values = {
        old: index - label_offset
        for index, old in enumerate(info.class_names if info else ())
    }
    targets = _find_targets(old_values, rows, label_map)
    news = dict.fromkeys(targets.values())
    new_names = tuple(new for new in news if not palettes.is_ignored(new))
    if names is not None and set(names) != set(new_names):
        raise schema.DataError(
            f"--class_names={','.join(names)}: --label_map={label_map} makes the "
            f"classes {', '.join(new_names)}; name these, or leave --class_names out."
        )
    new_names = names or new_names
    labels = {name: label for label, name in enumerate(new_names)}
    return schema.DatasetInfo(
        new_names,
        palette=_merge_palette(info, old_values, targets, new_names),
        label_map=tuple(
            (value, labels.get(new, schema.IGNORE_LABEL))
            for value, new in sorted(targets.items())
            if value >= 0  # An offset can lead to values that no mask holds.
        ),
        label_colors=info.label_colors if info else (),
    )


def _find_targets(
    old_values: dict[str, int], rows: tuple[tuple[str, str], ...], label_map: str
) -> dict[int, str]:
    """Returns the new name for each old mask value."""
    ignored = dict.fromkeys(palettes.IGNORED_NAMES, palettes.IGNORED_VALUE)
    known = {**old_values, **ignored}
    targets = {}
    for old, new in rows:
        value = known.get(old, known.get(old.lower()))
        if old.isdecimal() and int(old) <= _MAX_VALUE:
            value = int(old)
        if value is None:
            names = ", ".join(old_values) or "not known, so give mask values"
            raise schema.DataError(
                f"--label_map={label_map}: {old!r} is no mask value and no old class; "
                f"these are {names}."
            )
        if value in targets:
            raise schema.DataError(
                f"--label_map={label_map}: {old!r} and another row both say what "
                f"becomes of the mask value {value}; keep one."
            )
        targets[value] = new
    missing = [old for old, value in old_values.items() if value not in targets]
    if missing:
        raise schema.DataError(
            f"--label_map={label_map} does not say what becomes of {_some(missing)}; "
            "add a row for each, e.g. NAME,ignore."
        )
    return targets


def _merge_palette(
    info: schema.DatasetInfo,
    old_values: Mapping[str, int],
    targets: Mapping[int, str],
    new_names: Sequence[str],
) -> tuple[palettes.Color, ...]:
    """Returns the colours of the new classes, or () if some old one has none."""
    colors = {}
    for index, value in enumerate(old_values.values()):
        colors.setdefault(targets[value], info.palette[index])
    if not set(new_names) <= colors.keys():
        return ()
    return tuple(colors[name] for name in new_names)


def _check_places(names: Sequence[str], own_names: Sequence[str]) -> None:
    """Looks for a class of a data set that would get the name of another one.

    Raises:
      schema.DataError: if there is one. Where fewer names are given, it is a warning: a
        layout tells the names of its classes, and its masks may hold others.
    """
    for name, own in zip(names, own_names, strict=False):
        if name == own or name not in own_names:
            continue
        message = (
            f"--class_names={','.join(names)}: the classes of this data set are "
            f"{_some(own_names)}, and {name} would be the name of {own}"
        )
        if len(names) >= len(own_names):
            raise schema.DataError(
                f"{message}; give all of these names, in any order, or other ones, or "
                "merge and drop classes with --label_map."
            )
        logging.warning("%s. If that is wrong, use --label_map.", message)
        return


def _check_count(
    class_names: tuple[str, ...],
    source: str,
    num_classes: int | None,
    names: tuple[str, ...] | None = None,
) -> None:
    """Compares the classes that a file makes with what other flags say."""
    for flag, count in (
        ("num_classes", num_classes),
        ("class_names", names and len(names)),
    ):
        if count not in (None, len(class_names)):
            raise schema.DataError(
                f"{source} makes {len(class_names)} classes ({_some(class_names)}), "
                f"but --{flag} gives {count}; make the two agree or leave --{flag} out."
            )


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
