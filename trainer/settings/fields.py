"""How a setting describes itself, and the checks that follow from that alone."""

import dataclasses
import math
import types
import typing
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from trainer import errors

_UNWRITABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's control characters, surrogates (bytes that are not UTF-8), line ends."""

_AS_DEFAULT = object()


def setting(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] | None = None,
    refused: Mapping[str, str] | None = None,
    prefixes: Mapping[str, str] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    identity: bool = False,
    legacy: Any = _AS_DEFAULT,
    only_with: Mapping[str, tuple] | None = None,
    parts: Callable[[Any], tuple | None] | None = None,
    replaces: tuple[str, ...] = (),
    follows: str = "",
    shapes_model: bool = False,
    describes_data: bool = False,
    is_saved: bool = True,
    is_local: bool = False,
    unused_by: tuple[str, ...] = (),
    used_with: str = "",
    in_fit: tuple | None = None,
) -> Any:
    """Makes a dataclass field with what a flag and the checks need to know.

    Args:
      default: the value where the flag is not given; None means "derived".
      help_text: one line for `--help`.
      choices: the values allowed.
      refused: values that people may look for among these, and why they are not there.
      prefixes: what else may stand before a colon and a name, which `--help` shows so.
      minimum: the least number allowed.
      maximum: the greatest number allowed.
      identity: a model dir belongs to one value of this; see `Config.identity`.
      legacy: what a run had that was started before there was this setting, if that is
        another value than the default.
      only_with: other settings, and the values of each with which this one has a
        meaning. A value `tfds` stands for `tfds:NAME`, too. Of a setting with `parts`,
        one part must be among the values.
      parts: from a value to what it is made of, which is what `only_with` of others
        names; None for a value that will be refused.
      replaces: settings of less weight, in a flagfile for instance, that this one
        overrules where it is given.
      follows: the setting that decides, as it always did, where this one is not given.
      shapes_model: whether weights trained with one value fit no other.
      describes_data: whether it says where examples lie and what their masks mean, and
        so has no bearing on other data.
      is_saved: whether it is a property of the run rather than of one command.
      is_local: whether it is about the machine, and so no matter of the trained model.
      unused_by: the modes that have no use for it.
      used_with: a setting beside which all of these have a use for it after all.
      in_fit: the values that `--against=fit` can give to Keras' loop, too; None: all,
        or it makes no difference to that.
    """
    metadata = dict(locals())  # The arguments, by name.
    metadata["help"] = metadata.pop("help_text")
    metadata["legacy"] = default if legacy is _AS_DEFAULT else legacy
    for name in ("only_with", "prefixes", "refused"):
        metadata[name] = metadata[name] or {}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of settings, each checked by itself against its metadata."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if not is_choice(field, value):
                rule = f"use one of {', '.join(list_choices(field))}"
                reason = field.metadata["refused"].get(value)
                reject(field.name, value, f"{reason}; {rule}" if reason else rule)
            values = value if isinstance(value, tuple) else (value,)
            for item in values:
                if isinstance(item, str) and not _is_writable(item):
                    reject(
                        field.name,
                        ascii(item),
                        "line ends, control characters, blanks at either end and names "
                        "that are not UTF-8 do not fit into a flagfile; use another",
                    )
                if isinstance(item, float) and not math.isfinite(item):
                    reject(field.name, value, "must be finite")
                minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
                if minimum is not None and not item >= minimum:
                    reject(field.name, value, f"must be at least {minimum}")
                if maximum is not None and not item <= maximum:
                    reject(field.name, value, f"must be at most {maximum}")


def list_choices(field: dataclasses.Field) -> list[str]:
    """Returns the values that a setting with choices takes, as `--help` has them."""
    prefixes = field.metadata["prefixes"].items()
    return [*field.metadata["choices"], *(f"{p}:{name}" for p, name in prefixes)]


def is_choice(field: dataclasses.Field, value: Any) -> bool:
    """Tells whether a setting's choices, if it has any, allow a value."""
    choices = field.metadata["choices"]
    if not choices or value in choices:
        return True
    prefix, _, name = value.partition(":")
    return bool(name) and prefix in field.metadata["prefixes"]


def _is_writable(text: str) -> bool:
    """Tells whether a flagfile gives back a text as it is."""
    is_plain = all(unicodedata.category(c) not in _UNWRITABLE for c in text)
    return is_plain and text == text.strip()


def reject(name: str, value: Any, rule: str) -> typing.NoReturn:
    """Raises the error of a value that breaks a rule.

    Raises:
      errors.ConfigError: always.
    """
    raise errors.ConfigError(f"--{name}={format_value(value)}: {rule}.")


def check_names(
    name: str, given: Sequence[str], known: Collection[str], kind: str
) -> None:
    """Checks a setting that is a list of names.

    Args:
      name: of the setting.
      given: its value.
      known: the names that there are.
      kind: what they are names of.

    Raises:
      errors.ConfigError: if one is unknown, or there twice.
    """
    for word in given:
        if word not in known:
            reject(name, given, f"{word!r} is no {kind}; use {', '.join(known)}")
        if given.count(word) > 1:
            reject(name, given, f"{word} is there twice")


def reject_missing(
    name: str, value: Any, part: str, package: str, extra: str
) -> typing.NoReturn:
    """Raises the error of a value that needs a package which is not installed.

    Args:
      name: of the setting.
      value: its value.
      part: of that, what needs the package.
      package: as it is imported.
      extra: of this package, that brings it.

    Raises:
      errors.ConfigError: always.
    """
    reject(
        name,
        value,
        f"{part} needs the package {package}, which is not installed; run `pip install "
        f"'.[{extra}]'` in a clone of this repository, or install its wheel with "
        f"`[{extra}]` behind the file's name",
    )


def unmet_condition(
    name: str, settings: Mapping[str, dataclasses.Field], values: Mapping[str, Any]
) -> str:
    """Returns what a setting would need to have a meaning; nothing if it has one.

    Args:
      name: of the setting.
      settings: all fields by name.
      values: all settings by name.
    """
    for other, allowed in settings[name].metadata["only_with"].items():
        value, parts_of = values[other], settings[other].metadata["parts"]
        if allowed == ("",):
            if value:
                return f"it has no meaning beside --{other}={format_value(value)}"
            continue
        if parts_of:
            parts = parts_of(value)
            if parts is not None and not set(parts) & set(allowed):
                needed = " or ".join(allowed)
                return _describe_condition(f"{needed} in --{other}", other, value)
            continue
        kind = value.partition(":")[0] if isinstance(value, str) else value
        if kind in allowed:
            continue
        needed = " or ".join(format_value(item) for item in allowed)
        return _describe_condition(f"--{other}={needed}", other, value)
    return ""


def _describe_condition(needed: str, name: str, value: Any) -> str:
    return (
        f"it has a meaning only with {needed}, and here is "
        f"--{name}={format_value(value)}"
    )


def is_off(value: Any) -> bool:
    """Tells whether a value asks for nothing, so that it cannot be ignored."""
    # The number 0 may be one like others: a mask value, a seed.
    return not value and type(value) is not int


def format_value(value: Any) -> str:
    """Formats a setting as a user would type it after `--name=`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value)


def value_type(field: dataclasses.Field) -> tuple[type, bool]:
    """Returns the scalar type of a setting, and whether it is a list of them."""
    annotation = field.type
    if isinstance(annotation, types.UnionType):
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True
    return annotation, False
