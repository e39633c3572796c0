"""The sizes of images to choose from, and which of them leaves enough epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.planning import notes

SIDES = (96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Of square images to train on; of others, those of a square of as many pixels."""
WINDOW_SIDES = (128, 192, 256, 320, 384, 512)
_STRIDE = 32
_LARGE_SIDE = 1024
"""Files of more pixels than a square of this are trained on in windows."""
_MOST_SIDE = 2048
_ROUGHLY_SQUARE = 1.25
_LEAST_OBJECT_SIDE = 8
"""So many pixels are to be left of what an image has of the smallest class."""


def find_shapes(facts: notes.Facts) -> tuple[notes.Shape, ...]:
    """Returns the shapes to choose from, the smallest first.

    Files are made smaller, never larger; of each shape enough is left of the smallest
    class; large files are trained on in windows.
    """
    if facts.side > _LARGE_SIDE:
        shrink = min(1.0, _MOST_SIDE / facts.side)
        whole = tuple(
            max(_STRIDE, int(n * shrink) // _STRIDE * _STRIDE)
            for n in (facts.height, facts.width)
        )
        sides = [side for side in WINDOW_SIDES if side <= min(whole)]
        return tuple(notes.Shape(whole, (side, side)) for side in sides) or (
            notes.Shape(whole),
        )
    least = min(least_side(facts), facts.side)
    sides = [side for side in SIDES if least <= side <= facts.side]
    if not sides:  # Between two sides, or smaller than all.
        sides = [max((s for s in SIDES if s <= facts.side), default=SIDES[0])]
    shapes = (notes.Shape(_with_aspect(side, facts.aspects)) for side in sides)
    return tuple(dict.fromkeys(shapes))


def shapes_to_try(
    facts: notes.Facts, given: Mapping[str, Any]
) -> tuple[notes.Shape, ...]:
    """Returns the shapes to choose from: one, if images or windows have a given size.

    Args:
      facts: of the data.
      given: settings that are not to be chosen, by name.
    """
    shapes = find_shapes(facts)
    if not given.keys() & {"image_size", "crop_size"}:
        return shapes
    whole = given.get("image_size", shapes[-1].image_size)
    return (notes.Shape(whole, given.get("crop_size", ())),)


def _with_aspect(side: int, aspects: tuple[float, float, float]) -> tuple[int, int]:
    """Returns height and width of as many pixels as a square's, as files have them."""
    low, median, high = aspects
    is_square = 1 / _ROUGHLY_SQUARE <= median <= _ROUGHLY_SQUARE
    if is_square or low <= 1 <= high:  # Upright and lying files, mixed.
        return side, side
    root = math.sqrt(median)
    height, width = (round(n / _STRIDE) * _STRIDE for n in (side * root, side / root))
    return max(height, _STRIDE), max(width, _STRIDE)


def least_side(facts: notes.Facts) -> float:
    """Returns the least side of images in which the smallest class can be seen.

    Of a class that has on average the share s of the pixels where it occurs, an image
    of side n shows about as many pixels as a square of the side n sqrt(s) has.
    """
    total = sum(facts.class_pixels)
    shares = [
        pixels / total * facts.num_train / examples
        for pixels, examples in zip(
            facts.class_pixels, facts.class_examples, strict=True
        )
        if pixels and examples
    ]
    return _LEAST_OBJECT_SIDE / math.sqrt(min(shares, default=1.0))


def choose_shape(
    shapes: Sequence[notes.Shape], epochs: Sequence[float], needed: int
) -> tuple[int, str]:
    """Returns the place of the shape to train on, and why that one.

    Args:
      shapes: to choose from, the smallest first.
      epochs: how many fit into the time with each.
      needed: how many there should be.

    Returns:
      That of the largest shape with enough epochs, or of the smallest one.
    """
    fitting = [place for place, count in enumerate(epochs) if count >= needed]
    if not fitting:
        return 0, (
            f"the smallest that will do; {epochs[0]:.0f} epochs fit, and {needed} "
            "would be good: give more time"
        )
    place = fitting[-1]
    if place + 1 == len(shapes):
        return place, "the largest that makes sense for these files"
    larger = shapes[place + 1].describe()
    return place, (
        f"the largest that leaves time for the {needed} epochs which so many examples "
        f"need; of {larger}, {epochs[place + 1]:.0f} would fit"
    )
