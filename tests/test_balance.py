"""Pixels of each class are counted once, wherever examples are kept."""

import numpy as np
import pytest

from data import balance, device_store
from tests import helpers


@pytest.mark.parametrize("num_examples", [1, 64, 131])
@pytest.mark.parametrize("is_on_device", [False, True])
def test_every_pixel_counts_once(num_examples, is_on_device):
    examples = helpers.make_store(num_examples, size=8, ignored=0.1)
    expected = [int((examples.labels == label).sum()) for label in range(256)]
    if is_on_device:
        examples = device_store.place(examples, helpers.make_strategy(1))

    counts = balance.count_labels(examples)

    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == num_examples * 64


def test_images_in_a_store_are_not_read():
    """They may be on disk, and 3 times the size of the labels."""
    examples = helpers.make_store(3, size=8)
    object.__setattr__(examples, "images", None)

    assert balance.count_labels(examples).sum() == 3 * 64
