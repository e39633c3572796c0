"""Classes that are scored as one, by their names; light, for the flags."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Groups(NamedTuple):
    """The classes that are scored, made of those that a model was trained with.

    Attributes:
      names: of the scored classes.
      members: for each of them, the indices of the trained classes that it is made of.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]


def parse(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Reads groups of classes.

    Args:
      words: each `NAME=CLASS+CLASS+...`.

    Returns:
      For the name of each group, those of its classes.

    Raises:
      ValueError: if a word is of another form, or a name is there twice.
    """
    groups = {}
    for word in words:
        name, _, members = word.partition("=")
        classes = tuple(part.strip() for part in members.split("+"))
        name = name.strip()
        if not name or not all(classes):
            raise ValueError(
                f"{word!r} is no group of classes; write NAME=CLASS+CLASS, e.g. "
                "foreground=body+border"
            )
        if name in groups:
            raise ValueError(f"the group {name} is there twice; name one otherwise")
        groups[name] = classes
    named = [part for classes in groups.values() for part in classes]
    for part in named:
        if named.count(part) > 1:
            raise ValueError(f"the class {part} is there twice; leave one out")
    return groups


def resolve(groups: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> Groups:
    """Finds the classes of groups among those of a model.

    Args:
      groups: of `parse`.
      class_names: the name of each class that the model was trained with.

    Returns:
      The classes that are in no group, in their order, then the groups, in theirs.

    Raises:
      ValueError: if a group has a class that is none, or the name of a class that is in
        no group; if fewer than two classes would be left.
    """
    named = {part for classes in groups.values() for part in classes}
    for part in named - set(class_names):
        raise ValueError(
            f"{part!r} is no class of the model; there are {', '.join(class_names)}"
        )
    single = [name for name in class_names if name not in named]
    for name in set(single) & set(groups):
        raise ValueError(
            f"{name!r} is a class that is in no group; give the group another name "
            f"than {', '.join(class_names)}"
        )
    if len(single) + len(groups) < 2:
        raise ValueError(
            f"one class would be left of {', '.join(class_names)}; leave two at least"
        )
    members = {**{name: (name,) for name in single}, **groups}
    return Groups(
        tuple(members),
        tuple(tuple(map(list(class_names).index, m)) for m in members.values()),
    )
