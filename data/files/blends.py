"""Telling values that fill areas from blends, which smoothing leaves along edges."""

import collections
import dataclasses

import numpy as np

_LEAST_BLENDS = 8
_MOST_LONE_SHARE = 0.25
"""A class lies in areas: nearly each of its pixels is in a square of four alike. Along
a smoothed edge, straight or not, hardly any is."""


@dataclasses.dataclass
class Neighbours:
    """Counts of pixels by value: all of them, and those in no area of their value.

    Attributes:
      total: number of pixels.
      lone: number of those in no square of 2x2 pixels of one value.
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
    is_alone = np.ones(values.shape, bool)
    if min(values.shape) > 1:
        corner = values[:-1, :-1]
        is_block = (
            (corner == values[1:, :-1])
            & (corner == values[:-1, 1:])
            & (corner == values[1:, 1:])
        )
        for rows in (slice(None, -1), slice(1, None)):
            for columns in (slice(None, -1), slice(1, None)):
                is_alone[rows, columns] &= ~is_block
    return Neighbours(_count(values), _count(values[is_alone]))


def _count(values: np.ndarray) -> collections.Counter:
    found, counts = np.unique(values, return_counts=True)
    return collections.Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
