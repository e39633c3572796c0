"""Random changes to training examples: a setting for each of them."""

import dataclasses
from typing import Any

from data.augmentation import registry
from trainer.settings import fields

_DEFAULTS = {"horizontal_flip": True}


def _setting(name: str, entry: registry.Entry) -> tuple[str, type, Any]:
    """Returns name, type and field of the setting of a change."""
    is_list = isinstance(entry.off, tuple)
    field = fields.setting(
        _DEFAULTS.get(name, entry.off),
        entry.help,
        minimum=entry.minimum,
        maximum=entry.maximum,
        identity=True,
        legacy=_DEFAULTS.get(name, entry.off),
        unused_by=("evaluate",),
    )
    return name, tuple[float, ...] if is_list else type(entry.off), field


@dataclasses.dataclass(frozen=True)
class _Checked(fields.Section):
    """What the settings of one name cannot say by themselves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, entry in registry.CHANGES.items():
            value = getattr(self, name)
            if not isinstance(entry.off, tuple) or value == entry.off:
                continue
            if len(value) != 2 or value[0] > value[1]:
                fields.reject(
                    name,
                    value,
                    "give LOW,HIGH with LOW not above HIGH, e.g. 0.5,2.0, or nothing",
                )


AugmentationConfig = dataclasses.make_dataclass(
    "AugmentationConfig",
    [_setting(name, entry) for name, entry in registry.CHANGES.items()],
    bases=(_Checked,),
    namespace={
        "__doc__": "Random changes to training examples.",
        "__module__": __name__,
    },
    frozen=True,
)
"""The settings of `registry.CHANGES`, by their names."""
