"""Random changes to training examples."""

import dataclasses

from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(fields.Section):
    """Random changes to training examples."""

    horizontal_flip: bool = fields.setting(
        True,
        "Mirror each training example with probability 1/2.",
        identity=True,
        unused_by=("evaluate",),
    )
    random_scale: tuple[float, ...] = fields.setting(
        (),
        "LOW,HIGH: scale each training example by a factor drawn between them, e.g. "
        "0.5,2.0, and cut a window of the original size at random; empty: none.",
        minimum=0.1,
        maximum=10.0,
        identity=True,
        unused_by=("evaluate",),
        in_fit=((),),
    )
    random_brightness: float = fields.setting(
        0.0,
        "Multiply each training image by a factor drawn within 1 -/+ this; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        unused_by=("evaluate",),
        in_fit=(0.0,),
    )
    random_contrast: float = fields.setting(
        0.0,
        "Multiply each training image's distances from its mean luma by a factor drawn "
        "within 1 -/+ this; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        unused_by=("evaluate",),
        in_fit=(0.0,),
    )
    random_saturation: float = fields.setting(
        0.0,
        "Multiply each pixel's distance from its luma by a factor drawn, for each "
        "training image, within 1 -/+ this; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        unused_by=("evaluate",),
        in_fit=(0.0,),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.random_scale and not (
            len(self.random_scale) == 2 and self.random_scale[0] <= self.random_scale[1]
        ):
            fields.reject(
                "random_scale",
                self.random_scale,
                "give LOW,HIGH with LOW not above HIGH, e.g. 0.5,2.0, or nothing",
            )
