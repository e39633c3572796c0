"""Values that fill areas are told from those along smoothed edges."""

import numpy as np
import pytest

from data.files import blends


def test_pixels_in_no_square_of_four_are_counted():
    values = np.array([
        [1, 1, 2, 0],
        [1, 1, 2, 0],
        [0, 3, 2, 0],
        [0, 0, 0, 0],
    ])  # fmt: skip

    found = blends.count(values)

    assert found.total == {0: 8, 1: 4, 2: 3, 3: 1}
    # Neither column of 0s is two wide, nor is the row.
    assert found.lone == {0: 8, 2: 3, 3: 1}


def smooth(slope):
    """Draws a half plane four times as large, and takes means of 4x4 pixels."""
    row, column = np.ogrid[:128, :128]
    label = np.where(row > slope * column + 40, 240, 0)
    return label.reshape(32, 4, 32, 4).mean((1, 3)).astype(int)


def test_values_along_smoothed_edges_are_not_solid():
    neighbours = blends.Neighbours()
    for slope in (0.0, 0.05, 0.3, 0.77):
        neighbours.update(blends.count(smooth(slope)))

    assert len(neighbours.total) > 10
    assert neighbours.find_solid() == [0, 240]


@pytest.mark.parametrize("size", [2, 9])
def test_many_small_areas_are_no_blends(size):
    blocks = np.random.default_rng(0).integers(0, 30, (12, 12))

    assert blends.count(np.kron(blocks, np.ones((size, size)))).find_solid() is None
