"""The names of the random changes, and their flags; light, for `--help`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from data import schema
    from data.augmentation import kinds


class Entry(NamedTuple):
    """What the command needs to know of a change.

    Attributes:
      module: holds a function `make`, from a strength and an `ImageFormat` to one of
        `data.augmentation.kinds`. It raises ValueError, with a sentence that goes on
        after the flag and a colon, if such images cannot be changed so.
      help: of the flag.
      off: the strength that asks for no change; other strengths are of its type.
      minimum: the least strength, or number of it.
      maximum: the greatest one.
    """

    module: str
    help: str
    off: Any = 0.0
    minimum: float | None = 0.0
    maximum: float | None = 1.0


CHANGES = {
    "random_rotation": Entry(
        "data.augmentation.changes.rotation",
        "Turn each training example about its centre by an angle drawn within -/+ this "
        "many degrees. Pixels from outside of it are ignored. 0: none.",
        maximum=180.0,
    ),
    "random_scale": Entry(
        "data.augmentation.changes.scale",
        "LOW,HIGH: scale each training example by a factor drawn between them, e.g. "
        "0.5,2.0, and cut out a window of the original size at random. Empty: none.",
        off=(),
        minimum=0.1,
        maximum=10.0,
    ),
    "random_shear": Entry(
        "data.augmentation.changes.shear",
        "Make the upright lines of each training example lean by an angle drawn within "
        "-/+ this many degrees. Pixels from outside of it are ignored. 0: none.",
        maximum=60.0,
    ),
    "random_quarter_turn": Entry(
        "data.augmentation.changes.quarter_turn",
        "Turn each training example by 0, 90, 180 or 270 degrees. One that is not "
        "square keeps its height and width: what a turn moves outside is cut off, and "
        "the pixels that it leaves empty are ignored.",
        off=False,
        minimum=None,
        maximum=None,
    ),
    "vertical_flip": Entry(
        "data.augmentation.changes.vertical_flip",
        "Mirror each training example top to bottom with probability 1/2.",
        off=False,
        minimum=None,
        maximum=None,
    ),
    "horizontal_flip": Entry(
        "data.augmentation.changes.horizontal_flip",
        "Mirror each training example left to right with probability 1/2.",
        off=False,
        minimum=None,
        maximum=None,
    ),
    "random_brightness": Entry(
        "data.augmentation.changes.brightness",
        "Multiply the brightness of each training image, which is the distance of its "
        "values from black, by a factor drawn within 1 -/+ this; 0: none.",
    ),
    "random_contrast": Entry(
        "data.augmentation.changes.contrast",
        "Multiply the contrast of each training image, which is the distance of its "
        "values from their mean luma, by a factor drawn within 1 -/+ this; 0: none. "
        "Images that do not have three channels have the mean of all channels in place "
        "of the luma.",
    ),
    "random_saturation": Entry(
        "data.augmentation.changes.saturation",
        "Multiply the saturation of each training image, which is the distance of its "
        "channels from the luma of the pixel, by a factor drawn within 1 -/+ this; 0: "
        "none.",
    ),
    "random_hue": Entry(
        "data.augmentation.changes.hue",
        "Turn the colours of each training image about the grey axis by an angle drawn "
        "within -/+ this many degrees; 0: none.",
        maximum=180.0,
    ),
    "random_grey": Entry(
        "data.augmentation.changes.grey",
        "Make each training image grey with this probability; 0: none.",
    ),
    "random_gamma": Entry(
        "data.augmentation.changes.gamma",
        "Raise the values of each training image (black 0, white 1) to a power drawn "
        "between 1/(1+x) and 1+x, where x is this; 0: none.",
        maximum=9.0,
    ),
    "random_blur": Entry(
        "data.augmentation.changes.blur",
        "Blur each training image by a Gaussian with a deviation drawn from 0 to this "
        "many pixels; 0: none.",
        maximum=100.0,
    ),
    "random_noise": Entry(
        "data.augmentation.changes.noise",
        "Add Gaussian noise to each training image, with a deviation drawn from 0 to "
        "this share of the range of values; 0: none.",
    ),
    "random_classmix": Entry(
        "data.augmentation.changes.classmix",
        "With this probability, paste about half of the classes of another example of "
        "the batch over each training example, image and label; 0: never.",
    ),
    "random_cutmix": Entry(
        "data.augmentation.changes.cutmix",
        "With this probability, paste a box of another example of the batch over each "
        "training example, image and label; 0: never.",
    ),
    "random_cutout": Entry(
        "data.augmentation.changes.cutout",
        "Fill a box in each training image, and ignore the labels there. The sides of "
        "the box are this share of those of the image, or of the window of "
        "--crop_size. 0: none.",
    ),
}
"""By the name of its flag, each change. Those of geometry are made first, then those of
colours, then the others, each in this order."""


POLICIES = {
    "none": {},
    "flip": {"horizontal_flip": True},
    "light": {
        "horizontal_flip": True,
        "random_scale": (0.75, 1.5),
        "random_brightness": 0.2,
        "random_contrast": 0.2,
        "random_saturation": 0.2,
    },
    # Less than a tenth of a step, on CPUs as well: what is dearer is not in it.
    "strong": {
        "horizontal_flip": True,
        "random_scale": (0.5, 2.0),
        "random_brightness": 0.4,
        "random_contrast": 0.4,
        "random_saturation": 0.4,
        "random_hue": 15.0,
        "random_grey": 0.1,
        "random_gamma": 0.5,
        "random_cutout": 0.25,
    },
}
"""Strengths that go well together, by the name of the whole; the others are off."""

DEFAULT_POLICY = "flip"


def strength_of(policy: str, name: str) -> Any:
    """Returns how strong a policy makes a change."""
    return POLICIES[policy].get(name, CHANGES[name].off)


def make(
    strengths: Mapping[str, Any], image_format: schema.ImageFormat
) -> dict[str, kinds.Geometry | kinds.Color | kinds.Pixels]:
    """Makes the changes that are asked for.

    Args:
      strengths: by name; those that are left out, or off, ask for nothing.
      image_format: of the images to change.

    Returns:
      By name, the changes in the order in which they are made.

    Raises:
      ValueError: if a name is unknown, or a change is not for such images.
    """
    if unknown := [name for name in strengths if name not in CHANGES]:
        raise ValueError(
            f"no random change: {', '.join(unknown)}; use one of {', '.join(CHANGES)}"
        )
    made = {}
    for name, entry in CHANGES.items():
        strength = strengths.get(name, entry.off)
        if strength == entry.off:
            continue
        try:
            made[name] = importlib.import_module(entry.module).make(
                strength, image_format
            )
        except ValueError as error:
            raise ValueError(f"--{name}={strength}: {error}") from error
    return made
