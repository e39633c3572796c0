"""What the benchmark of the doctor does to masks."""

import numpy as np
import pytest

from tests.benchmarks import spoiled_masks, spoiling


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _draw():
    mask = np.full((40, 50), 2, np.uint8)
    mask[9:31, 14:36] = 3
    mask[10:30, 15:35] = 1
    return mask


def test_masks_are_spoiled_evenly_and_by_the_seed():
    chosen = spoiling.choose(0)
    assert chosen == spoiling.choose(0)
    assert chosen.keys() != spoiling.choose(1).keys()
    assert max(chosen) < 300
    counts = [list(chosen.values()).count(way) for way in spoiling.WAYS]
    assert counts == [7, 7, 6]


def test_a_shift_moves_both_ways_by_an_eighth_to_a_fifth():
    mask = _draw()
    for seed in range(5):
        moved = spoiling.shift(mask, np.random.default_rng(seed))
        before, after = (np.argwhere(m == 1).mean(axis=0) for m in (mask, moved))
        shares = np.abs(after - before) / mask.shape
        assert ((shares > 0.1) & (shares <= 0.21)).all()


def test_a_swap_keeps_the_border():
    mask, swapped = _draw(), spoiling.swap(_draw(), np.random.default_rng(0))
    np.testing.assert_array_equal(swapped[mask == 3], 3)
    np.testing.assert_array_equal(swapped[mask == 1], 2)
    np.testing.assert_array_equal(swapped[mask == 2], 1)


def test_a_half_goes_missing():
    mask = _draw()
    for seed in range(5):
        halved = spoiling.halve(mask, np.random.default_rng(seed))
        assert 0.4 < (halved == 1).sum() / (mask == 1).sum() < 0.6
        assert (halved[halved != mask] == 2).all()


def test_the_result_counts_among_the_first():
    rows = [{"name": str(n), "reason": "r"} for n in range(40)]
    spoiled = {"0": "swapped", "29": "shifted", "30": "shifted"}
    text = spoiled_masks.format_result(rows, spoiled)
    assert text.endswith("2 of 3 spoiled masks are among the first 30 of 40.")
    assert text.splitlines()[2].split()[:2] == ["31", "shifted"]
