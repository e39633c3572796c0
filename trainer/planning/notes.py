"""What is noted for a plan: facts of data and machine, shapes, costs, choices."""

import dataclasses
import math
from typing import Any, NamedTuple

from trainer.planning import costs


class Choice(NamedTuple):
    """The value of a setting, and why it has it."""

    value: Any
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before anything is measured.

    Attributes:
      num_train: examples to train on.
      num_eval: examples to evaluate on.
      height: median of the training files.
      width: the same.
      aspects: height over width: the first quartile, the median, the third.
      class_names: of the classes.
      class_pixels: of each class in the training split.
      class_examples: in which each occurs.
      pixel_bytes: of a decoded pixel with its label.
      num_channels: of an image.
      num_replicas: devices.
      has_gpu: whether these are GPUs.
      memory_bytes: of the host that are free.
      has_weights: whether there are pretrained weights of the encoder.
      weights_file: the one that has them, if Keras has no files of some sizes; empty:
        it has all that are needed.
    """

    num_train: int
    num_eval: int
    height: int
    width: int
    aspects: tuple[float, float, float] = (1.0, 1.0, 1.0)
    class_names: tuple[str, ...]
    class_pixels: tuple[int, ...]
    class_examples: tuple[int, ...]
    pixel_bytes: int = 4
    num_channels: int = 3
    num_replicas: int = 1
    has_gpu: bool = False
    memory_bytes: int
    has_weights: bool
    weights_file: str = ""

    @property
    def side(self) -> float:
        """Of a square of as many pixels as a file."""
        return math.sqrt(self.height * self.width)


class Shape(NamedTuple):
    """What is trained on: images, or windows of them."""

    image_size: tuple[int, int]
    crop_size: tuple[int, ...] = ()

    @property
    def pixels(self) -> int:
        """Of what a training step sees of an example."""
        return math.prod(self.crop_size or self.image_size)

    def describe(self) -> str:
        """Returns height and width of that, for people."""
        return "x".join(map(str, self.crop_size or self.image_size))

    def settings(self) -> dict[str, tuple[int, ...]]:
        """Returns the settings that ask for it."""
        return {"image_size": self.image_size, "crop_size": self.crop_size}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run of one shape takes.

    Attributes:
      costs: in time.
      memory_bytes: at most, of the host or of a device.
      num_parts: into which each device splits its share of a batch for it.
    """

    costs: costs.Costs
    memory_bytes: float
    num_parts: int = 1


def interpolate(low: Measured, high: Measured, place: float) -> Measured:
    """Returns what a shape takes that lies between two, or beyond them.

    Its `num_parts` tells nothing: the two may have been measured in different parts.

    Args:
      low: of the shape at place 0.
      high: of the shape at place 1.
      place: of the shape, by its number of pixels.
    """

    def between(first: float, last: float) -> float:
        return max(first + place * (last - first), 0.0)

    parts = {
        field.name: between(
            getattr(low.costs, field.name), getattr(high.costs, field.name)
        )
        for field in dataclasses.fields(costs.Costs)
    }
    return Measured(
        costs=costs.Costs(**parts),
        memory_bytes=between(low.memory_bytes, high.memory_bytes),
    )
