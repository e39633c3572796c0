"""Tests of single random changes, against NumPy and numbers by hand.

Those of colours are in `test_color`, what holds for all of them in `test_augment`.
"""

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.augmentation import kinds, mixing, registry, resampling

_IGNORED = schema.IGNORE_LABEL


def _make(name, strength, image_format=schema.RGB):
    return registry.make({name: strength}, image_format)[name]


def _draw_batch(num_rows, height=5, width=7, channels=3):
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (num_rows, height, width, channels))
    labels = random.integers(0, 5, (num_rows, height, width))
    return images.astype(np.uint8), labels.astype(np.uint8)


def _rows(first_row=0, step=3, key=11):
    return kinds.Rows(
        step=tf.constant(step, tf.int64),
        first_row=tf.constant(first_row, tf.int64),
        key=key,
    )


def _change(name, strength, images, labels, draws, rows=None, **kwargs):
    """Makes a change of pixels with given draws."""
    images, labels = _make(name, strength, **kwargs).change(
        tf.constant(images),
        tf.constant(labels),
        tf.constant(draws, tf.float32),
        rows or _rows(),
    )
    return images.numpy(), labels.numpy()


def _map_back(name, strength, draws, size=(5, 7)):
    change = _make(name, strength)
    return change.map_back(tf.constant(draws, tf.float32)[:, tf.newaxis], size).numpy()


def test_a_vertical_flip_reverses_y():
    maps = _map_back("vertical_flip", True, [0.49, 0.5])

    np.testing.assert_array_equal(maps[0], [[-1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(maps[1], [[1, 0, 0], [0, 1, 0]])


def test_rotation_by_hand():
    """Draws of 0, 1/2 and 3/4 at 60 degrees: -60, 0 and 30."""
    maps = _map_back("random_rotation", 60.0, [0.0, 0.5, 0.75])

    cos, sin = np.cos(np.pi / 6), 0.5
    np.testing.assert_allclose(
        maps[:, :, :2],
        [[[0.5, cos], [-cos, 0.5]], [[1, 0], [0, 1]], [[cos, -sin], [sin, cos]]],
        atol=1e-6,
    )
    assert not maps[:, :, 2].any()


def test_shear_by_hand():
    """45 degrees: one pixel down comes from one pixel further to the right."""
    maps = _map_back("random_shear", 45.0, [0.0, 0.999999])

    np.testing.assert_allclose(maps[0, :, :2], [[1, 0], [-1, 1]], atol=1e-5)
    np.testing.assert_allclose(maps[1, :, :2], [[1, 0], [1, 1]], atol=1e-5)


def test_quarter_turns_of_squares_are_those_of_numpy():
    images, labels = _draw_batch(4, 5, 5)
    maps = tf.constant(_map_back("random_quarter_turn", True, [0.1, 0.3, 0.6, 0.9]))

    swapped = resampling.swap_axes(tf.constant(images), tf.constant(labels), maps)
    new_images, new_labels = resampling.mirror(*swapped, axes=("y", "x"))

    assert new_images.dtype == tf.uint8
    for row in range(4):
        np.testing.assert_array_equal(new_images[row], np.rot90(images[row], -row))
        np.testing.assert_array_equal(new_labels[row], np.rot90(labels[row], -row))


def test_quarter_turns_of_what_is_no_square_fill_and_ignore():
    images, labels = _draw_batch(1, 3, 5)
    maps = tf.constant(_map_back("random_quarter_turn", True, [0.3]))

    new_images, new_labels = resampling.resample(images, labels, maps)

    # The middle three columns become the rows; the outer columns are empty.
    inner = slice(1, 4)
    np.testing.assert_allclose(
        new_images[0, :, inner], np.rot90(images[0, :, inner], -1), atol=1e-3
    )
    np.testing.assert_array_equal(
        new_labels[0, :, inner], np.rot90(labels[0, :, inner], -1)
    )
    np.testing.assert_array_equal(new_labels[0, :, ::4], _IGNORED)
    np.testing.assert_array_equal(new_images[0, :, ::4], schema.FILL_VALUE)


def test_grey_is_luma_for_those_that_are_drawn():
    change = _make("random_grey", 0.3)

    matrices, offsets = change.map_colors(
        tf.constant([[0.29], [0.3]]), tf.zeros([2, 3])
    )

    np.testing.assert_allclose(matrices[0], [[0.299, 0.587, 0.114]] * 3, atol=1e-6)
    np.testing.assert_array_equal(matrices[1], np.eye(3))
    assert not offsets.numpy().any()


def test_gamma_by_hand():
    """Draws of 0, 1/2 and 1 at 1: powers of 1/2, 1 and 2 of (x - 100) / 100."""
    images = np.full((3, 1, 1, 3), [100, 125, 200], np.uint16).astype(np.float32)
    labels = np.zeros((3, 1, 1), np.uint8)
    kind = schema.ImageFormat(3, (100, 200))

    changed, _ = _change(
        "random_gamma", 1.0, images, labels, [[0.0], [0.5], [1.0]], image_format=kind
    )

    expected = [[100, 150, 200], [100, 125, 200], [100, 106.25, 200]]
    np.testing.assert_allclose(changed[:, 0, 0], expected, atol=1e-3)


def test_blur_is_a_mean_with_gaussian_weights():
    images, labels = _draw_batch(2)

    changed, new_labels = _change("random_blur", 2.0, images, labels, [[0.6], [0.0]])

    def weights(length):
        distance = np.arange(length)[:, None] - np.arange(length)
        raw = np.exp(-(distance**2) / (2 * 1.2**2))
        return raw / raw.sum(1, keepdims=True)

    expected = np.einsum("ab,bcd,ec->aed", weights(5), images[0] * 1.0, weights(7))
    np.testing.assert_allclose(changed[0], expected, rtol=1e-4)
    np.testing.assert_array_equal(changed[1], images[1])
    np.testing.assert_array_equal(new_labels, labels)


def test_noise_has_the_deviation_that_is_drawn():
    """Of 30,000 numbers the deviation is within 0.02 of the true one."""
    images = np.full((2, 100, 100, 3), 128, np.uint8)
    labels = np.zeros((2, 100, 100), np.uint8)

    changed, _ = _change("random_noise", 0.1, images, labels, [[0.4], [0.0]])

    noise = changed[0] - 128
    assert abs(noise.std() / (0.04 * 255) - 1) < 0.02
    assert abs(noise.mean()) < 0.3
    np.testing.assert_array_equal(changed[1], images[1])


def test_noise_stays_in_the_range():
    images, labels = _draw_batch(2)

    changed, _ = _change("random_noise", 1.0, images, labels, [[1.0], [1.0]])

    assert (changed.min(), changed.max()) == (0, 255)


@pytest.mark.parametrize("shape", [(5, 7, 3), (4, 4, 1)])
def test_noise_belongs_to_the_rows_of_the_global_batch(shape):
    whole = _rows().normal((4, *shape)).numpy()

    for first in (0, 2):
        part = _rows(first).normal((2, *shape))
        np.testing.assert_array_equal(part, whole[first : first + 2])
    others = [_rows(step=4), _rows(key=12)]
    for rows in others:
        assert not np.isclose(rows.normal((4, *shape)), whole).any()
    assert len(np.unique(whole)) == whole.size


def test_boxes_by_hand():
    """Half of 4 by 6 about its middle, and about the corner at the top left."""
    is_in = mixing.boxes(
        tf.constant([[0.5, 0.5], [0.0, 0.0]]), tf.constant([0.5, 0.5]), (4, 6)
    ).numpy()

    expected = np.zeros((4, 6), bool)
    # |column + 1/2 - 3| < 1.5, so 2 and 3 only: 1.5 of column 1 is on the edge.
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(is_in[0], expected)
    expected = np.zeros((4, 6), bool)
    expected[:1, :1] = True
    np.testing.assert_array_equal(is_in[1, :1, :1], True)
    assert is_in[1].sum() == 1


def test_a_box_without_sides_is_empty():
    is_in = mixing.boxes(tf.constant([[0.5, 0.5]]), tf.constant([0.0]), (3, 3))

    assert not is_in.numpy().any()


def test_cutout_fills_and_ignores_a_box():
    images, labels = _draw_batch(1, 4, 8)

    changed, new_labels = _change("random_cutout", 0.5, images, labels, [[0.5, 0.5]])

    is_cut = np.zeros((4, 8), bool)
    is_cut[1:3, 2:6] = True
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(
        changed[0], np.where(is_cut[..., None], 128, images[0])
    )
    np.testing.assert_array_equal(new_labels[0], np.where(is_cut, 255, labels[0]))


@pytest.mark.parametrize(
    ("num_rows", "expected"), [(4, [1, 0, 3, 2]), (3, [1, 0, 2]), (1, [0])]
)
def test_partners_are_rows_2i_and_2i_plus_1(num_rows, expected):
    rows = tf.range(num_rows)[:, tf.newaxis] * [1, 10]

    np.testing.assert_array_equal(mixing.partners(rows)[:, 0], expected)
    np.testing.assert_array_equal(
        mixing.partners(rows)[:, 1], np.multiply(10, expected)
    )


def test_cutmix_takes_a_box_of_the_other_row():
    """A quarter of the area is half of each side; the second row is not drawn."""
    images, labels = _draw_batch(2, 4, 8)
    draws = [[0.69, 0.25, 0.5, 0.5], [0.7, 0.25, 0.5, 0.5]]

    changed, new_labels = _change("random_cutmix", 0.7, images, labels, draws)

    expected_images, expected_labels = images.copy(), labels.copy()
    expected_images[0, 1:3, 2:6] = images[1, 1:3, 2:6]
    expected_labels[0, 1:3, 2:6] = labels[1, 1:3, 2:6]
    np.testing.assert_array_equal(changed, expected_images)
    np.testing.assert_array_equal(new_labels, expected_labels)


def test_classmix_takes_the_classes_that_are_drawn_but_never_the_ignored():
    images, labels = _draw_batch(2, 4, 8)
    labels[:, 0] = _IGNORED
    draws = np.full((2, 257), 0.5)
    draws[:, 0] = [0.69, 0.7]  # The second row is not drawn.
    draws[:, 1 + np.array([1, 3, _IGNORED])] = 0.49

    changed, new_labels = _change("random_classmix", 0.7, images, labels, draws)

    is_pasted = (labels[1] == 1) | (labels[1] == 3)
    assert 0 < is_pasted.sum() < 24
    np.testing.assert_array_equal(
        changed[0], np.where(is_pasted[..., None], images[1], images[0])
    )
    np.testing.assert_array_equal(
        new_labels[0], np.where(is_pasted, labels[1], labels[0])
    )
    np.testing.assert_array_equal(changed[1], images[1])
    np.testing.assert_array_equal(new_labels[1], labels[1])
