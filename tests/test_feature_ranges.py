"""Features in 8 bits have the range of the least error."""

import numpy as np
import pytest

from trainer.exporting import feature_ranges

_NUM_BINS = 1400


def _error(values, low, high):
    """Rounds to 255 steps from low to high, 0 among them; returns the squared error."""
    step = (high - low) / 255
    zero = round(low / step)
    rounded = np.clip(np.round(values / step), zero, zero + 255) * step
    return ((values - rounded) ** 2).mean()


_DRAWN = np.random.default_rng(0).laplace(size=200_000)  # A few values are large.
_EVEN = np.linspace(0, 1, 200_000)


@pytest.mark.parametrize(
    ("values", "is_narrower"),
    [(_DRAWN, True), (np.maximum(_DRAWN, 0), True), (_EVEN, False)],
    ids=["both", "relu", "even"],
)
def test_no_other_share_of_the_range_makes_a_smaller_error(values, is_narrower):
    low, high = values.min(), values.max()
    counts, _ = np.histogram(values, _NUM_BINS, (low, high))
    start, end = feature_ranges.choose_range(counts, low, high)
    share = end / high
    assert start == pytest.approx(low * share)
    assert (share < 0.9) == is_narrower
    shares = np.linspace(0.3, 1.0, 36)
    errors = [_error(values, low * share, high * share) for share in shares]
    assert _error(values, start, end) == pytest.approx(min(errors))
