"""Pixels of each class are counted once, and rare classes weighed up."""

import numpy as np
import pytest

from data.stores import balance, device_store
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


def test_balanced_weights_give_each_class_the_same_sum():
    weights = balance.class_weights(np.array([10, 40, 50]), "balanced")

    # Each class then counts 100 / 3 of the 100 pixels.
    np.testing.assert_allclose(weights, [10 / 3, 10 / 12, 10 / 15])


def test_weights_by_the_square_root_are_less_unequal():
    weights = balance.class_weights(np.array([1, 9]), "inverse_sqrt")

    # 1 to 1/3, so that 1 * w + 9 * w / 3 = 10.
    np.testing.assert_allclose(weights, [2.5, 2.5 / 3])


@pytest.mark.parametrize("method", balance.METHODS)
def test_a_class_without_pixels_has_the_weight_of_the_mean(method):
    weights = balance.class_weights(np.array([5, 0, 5]), method)

    np.testing.assert_allclose(weights, [1, 1, 1])
