"""Random changes to training examples: a setting for each of them."""

import dataclasses
from typing import Any

from data.augmentation import registry
from trainer.settings import fields


def _setting(name: str, entry: registry.Entry) -> tuple[str, type, Any]:
    """Returns name, type and field of the setting of a change."""
    default = registry.strength_of(registry.DEFAULT_POLICY, name)
    field = fields.setting(
        None,
        entry.help,
        minimum=entry.minimum,
        maximum=entry.maximum,
        identity=True,
        legacy=default,
        follows="augment",
        unused_by=("evaluate",),
        in_fit=(entry.off, default),
    )
    is_list = isinstance(entry.off, tuple)
    return name, (tuple[float, ...] if is_list else type(entry.off)) | None, field


def _describe_policies() -> str:
    """Returns what each policy comes to, as flags that could be typed instead."""
    described = []
    for policy, strengths in registry.POLICIES.items():
        typed = [
            f"--{name}" if value is True else f"--{name}={fields.format_value(value)}"
            for name, value in strengths.items()
        ]
        described.append(f"{policy} ({' '.join(typed) or 'no change'})")
    return "; ".join(described)


@dataclasses.dataclass(frozen=True)
class _Checked(fields.Section):
    """What the settings of one name cannot say by themselves."""

    augment: str = fields.setting(
        registry.DEFAULT_POLICY,
        "Which random changes training examples get. Each change has a flag of its "
        f"own, too, which counts before this one. {_describe_policies()}.",
        choices=tuple(registry.POLICIES),
        replaces=tuple(registry.CHANGES),
        unused_by=("evaluate",),
    )
    crop_size: tuple[int, ...] = fields.setting(
        (),
        "Height[,width] of the windows of training examples that the model is trained "
        "on. They are cut at a place drawn at random, after all other changes of "
        "geometry; colours, noise, mixing and cutout change the window. Evaluation "
        "sees all of --image_size. Empty: none.",
        minimum=8,
        maximum=16384,
        identity=True,
        parts=lambda size: ("a window",) if size else (),
        unused_by=("evaluate",),
        in_fit=((),),
    )
    crop_rare_classes: float = fields.setting(
        0.0,
        "Share of the windows of --crop_size that are laid over a class drawn first. "
        "All classes in the example are equally likely, however few pixels they have. "
        "Then a pixel of the class is drawn, and the window is centred on it as far "
        "as the edges of the example allow; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        only_with={"crop_size": ("a window",)},
        unused_by=("evaluate",),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.crop_size) > 2:
            fields.reject("crop_size", self.crop_size, "give HEIGHT or HEIGHT,WIDTH")
        if len(self.crop_size) == 1:
            object.__setattr__(self, "crop_size", self.crop_size * 2)
        for name in registry.CHANGES:
            if getattr(self, name) is None:
                strength = registry.strength_of(self.augment, name)
                object.__setattr__(self, name, strength)
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
"""A policy, and the settings of `registry.CHANGES`, by their names."""
