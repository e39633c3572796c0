"""Settings of several places, joined: a later place counts before an earlier one."""

import graphlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainer.settings import config as config_lib
from trainer.settings import fields


class Joined(NamedTuple):
    """What counts of all that was given.

    Attributes:
      values: the settings that count, by name.
      meaningless: of each setting that does not, the condition that it breaks. What a
        later place replaces is not here.
    """

    values: dict[str, Any]
    meaningless: dict[str, str]


def join(places: Sequence[Mapping[str, Any]]) -> Joined:
    """Joins settings by name, of places of growing weight.

    Whether a setting has a meaning is judged when all places have spoken: a flagfile's
    `--momentum` has one if `--optimizer=sgd` is typed.
    """
    settings = config_lib.fields_by_name()
    values: dict[str, Any] = {}
    for place in places:
        for name in place:
            for other in settings[name].metadata["replaces"]:
                if other not in place and place[name]:
                    values.pop(other, None)
        values |= place
    defaults = {name: field.default for name, field in settings.items()}
    complete, meaningless = {**defaults, **values}, {}
    # A setting comes after those that it depends on, so that theirs are settled: one
    # that is itself without a meaning takes none from others.
    conditions = {name: f.metadata["only_with"] for name, f in settings.items()}
    for name in graphlib.TopologicalSorter(conditions).static_order():
        if name not in values:
            continue
        if condition := fields.unmet_condition(name, settings, complete):
            meaningless[name] = condition
            complete[name] = defaults[name]
            del values[name]
    return Joined(values, meaningless)


def join_command(
    from_files: Sequence[Mapping[str, Any]], typed: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings that a command gives, as far as they count in any case.

    Whether one that is a property of a run has a meaning may depend on what the run's
    folder says, so all of these are here.

    Args:
      from_files: settings by name, of each flagfile.
      typed: those of the command line itself.
    """
    places = [*from_files, typed]
    settings = config_lib.fields_by_name()
    meaningless = join(places).meaningless
    return {
        name: value
        for place in places
        for name, value in place.items()
        if settings[name].metadata["is_saved"] or name not in meaningless
    }
