"""Telling values that fill areas from blends, which smoothing leaves along edges."""

import collections
import dataclasses

import numpy as np

_LEAST_BLENDS = 8
_MOST_LONE_SHARE = 0.25
"""A class lies in areas: hardly any of its pixels is without a neighbour of its own
value. Along a smoothed edge most are."""


@dataclasses.dataclass
class Neighbours:
    """Pixels, and those of them with no neighbour alike, by value.

    Attributes:
      total: number of pixels.
      lone: number of those that differ from all four neighbours.
    """

    total: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    lone: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def update(self, other: "Neighbours") -> None:
        """Adds the numbers of another."""
        self.total.update(other.total)
        self.lone.update(other.lone)

    def find_solid(self) -> list[int] | None:
        """Returns the values that fill areas, if the others are blends of them."""
        solid = sorted(
            value
            for value, count in self.total.items()
            if self.lone[value] <= _MOST_LONE_SHARE * count
        )
        num_blends = len(self.total) - len(solid)
        if len(solid) < 2 or num_blends < max(_LEAST_BLENDS, len(solid)):
            return None
        return solid


def count(values: np.ndarray) -> Neighbours:
    """Counts the values of a mask, integers [height, width]."""
    has_like = np.zeros(values.shape, bool)
    for axis in (0, 1):
        length = values.shape[axis]
        first, second = (
            values.take(range(*ends), axis) for ends in ((length - 1,), (1, length))
        )
        is_like = first == second
        margin = [(0, 0), (0, 0)]
        margin[axis] = (0, 1)
        has_like |= np.pad(is_like, margin)
        has_like |= np.pad(is_like, [pair[::-1] for pair in margin])
    return Neighbours(_count(values), _count(values[~has_like]))


def _count(values: np.ndarray) -> collections.Counter:
    found, counts = np.unique(values, return_counts=True)
    return collections.Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
