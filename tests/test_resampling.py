"""Tests of mirrored, scaled and shifted copies, against a loop over pixels."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.augmentation import maps, resampling
from data.augmentation.changes import horizontal_flip, scale

HEIGHT, WIDTH = 5, 8


def make_batch(num_rows):
    """Makes noise: images [rows, 5, 8, 3] and labels [rows, 5, 8] of 0..20."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (num_rows, HEIGHT, WIDTH, 3))
    labels = random.integers(0, 21, (num_rows, HEIGHT, WIDTH))
    return images.astype(np.uint8), labels.astype(np.uint8)


def scale_and_crop(images, labels, factors, places, is_mirrored, *, use_xla=False):
    """Scales, cuts a window, and mirrors it."""
    composed = maps.compose(
        scale.scale_and_crop(
            tf.constant(factors, tf.float32),
            tf.constant(places, tf.float32),
            labels.shape[1:],
        ),
        horizontal_flip.mirror(tf.constant(is_mirrored)),
    )
    images, labels = tf.function(resampling.resample_lines, jit_compile=use_xla)(
        tf.constant(images), tf.constant(labels), composed
    )
    return images.numpy(), labels.numpy()


def change_one(images, labels, *, factor, place=(0.0, 0.0), is_mirrored=False):
    """Changes the first example of a batch."""
    images, labels = scale_and_crop(
        images[:1], labels[:1], [factor], [place], [is_mirrored]
    )
    return images[0], labels[0]


def interpolate(image, y, x):
    """Returns the bilinear value where pixel centres lie at 0, 1, 2, ..."""
    height, width = image.shape[:2]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[top, left] * (left + 1 - x) + image[top, right] * (x - left)
    lower = image[bottom, left] * (left + 1 - x) + image[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def scale_by_pixel(image, label, factor, place, is_mirrored):
    """Scales and crops one example as the docstring says, pixel by pixel."""
    height, width = label.shape
    new_image = np.full(image.shape, 128.0)
    new_label = np.full(label.shape, 255)
    for row in range(height):
        for column in range(width):
            y = (row + 0.5 + place[0] * (factor - 1) * height) / factor
            x = (column + 0.5 + place[1] * (factor - 1) * width) / factor
            if 0 <= y < height and 0 <= x < width:
                target = row, width - 1 - column if is_mirrored else column
                new_image[target] = interpolate(
                    image.astype(np.float64), y - 0.5, x - 0.5
                )
                new_label[target] = label[math.floor(y), math.floor(x)]
    return new_image, new_label


# Mirrored or not, at each corner and in between.
PLACES = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.3, 0.6), (0.85, 0.15)] * 2
IS_MIRRORED = [False] * 6 + [True] * 6


@pytest.mark.parametrize("use_xla", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("factor", [0.13, 0.37, 0.5, 0.93, 1.0, 1.21, 2.0, 3.3, 10.0])
def test_every_pixel_is_that_of_a_loop_over_pixels(factor, use_xla):
    images, labels = make_batch(12)

    new_images, new_labels = scale_and_crop(
        images, labels, [factor] * 12, PLACES, IS_MIRRORED, use_xla=use_xla
    )

    assert (new_images.dtype, new_labels.dtype) == (np.float32, np.uint8)
    for row, (place, is_mirrored) in enumerate(zip(PLACES, IS_MIRRORED, strict=True)):
        expected = scale_by_pixel(images[row], labels[row], factor, place, is_mirrored)
        np.testing.assert_allclose(new_images[row], expected[0], atol=1e-3)
        np.testing.assert_array_equal(new_labels[row], expected[1])


def test_each_example_has_a_factor_of_its_own():
    images, labels = make_batch(3)
    factors, places = [0.6, 1.0, 1.7], [(0.2, 0.9), (0.5, 0.5), (0.7, 0.4)]

    new_images, new_labels = scale_and_crop(
        images, labels, factors, places, [True, False, True]
    )

    for row in range(3):
        expected = scale_by_pixel(
            images[row], labels[row], factors[row], places[row], row != 1
        )
        np.testing.assert_allclose(new_images[row], expected[0], atol=1e-3)
        np.testing.assert_array_equal(new_labels[row], expected[1])


def test_factor_two_by_hand():
    """The left half of a row 0, 100, 200, 40 at twice the size.

    Centres 0.5, 1.5, 2.5, 3.5 come from 0.25, 0.75, 1.25, 1.75; pixel centres lie at
    0.5, 1.5, so the values are 0, 1/4 and 3/4 of the way to 100, and 1/4 to 200.
    """
    image = np.array([[0, 100, 200, 40]] * 2, np.uint8)[:, :, np.newaxis]
    label = np.array([[1, 2, 3, 4]] * 2, np.uint8)

    new_image, new_label = change_one(image[np.newaxis], label[np.newaxis], factor=2.0)

    np.testing.assert_array_equal(new_image[0, :, 0], [0, 25, 75, 125])
    np.testing.assert_array_equal(new_label[0], [1, 1, 2, 2])


def test_half_the_size_at_the_bottom_right_by_hand():
    """Centre 2.5 comes from (2.5 - 2) / 0.5 = 1, between the first two pixels."""
    image = np.array([[0, 100, 200, 40]] * 2, np.uint8)[:, :, np.newaxis]
    label = np.array([[1, 2, 3, 4]] * 2, np.uint8)

    new_image, new_label = change_one(
        image[np.newaxis], label[np.newaxis], factor=0.5, place=(1.0, 1.0)
    )

    np.testing.assert_array_equal(
        new_image[..., 0], [[128, 128, 128, 128], [128, 128, 50, 120]]
    )
    np.testing.assert_array_equal(new_label, [[255, 255, 255, 255], [255, 255, 2, 4]])


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, 0.7)])
def test_factor_one_changes_no_bit(place):
    images, labels = make_batch(1)

    new_image, new_label = change_one(images, labels, factor=1.0, place=place)

    np.testing.assert_array_equal(new_image, images[0])
    np.testing.assert_array_equal(new_label, labels[0])


def test_mirroring_is_that_of_the_window():
    images, labels = make_batch(1)

    plain = change_one(images, labels, factor=1.3, place=(0.2, 0.1))
    mirrored = change_one(
        images, labels, factor=1.3, place=(0.2, 0.1), is_mirrored=True
    )

    np.testing.assert_array_equal(mirrored[0], plain[0][:, ::-1])
    np.testing.assert_array_equal(mirrored[1], plain[1][:, ::-1])


@pytest.mark.parametrize("factor", [0.4, 0.77, 1.0, 1.6, 2.9])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_labels_painted_into_the_image_stay_where_the_image_is(factor, is_mirrored):
    """Red and green count columns and rows, and so do the digits of the label.

    Where the image interpolates to column 3.3, the label is that of column 3: never
    more than half a pixel away.
    """
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([columns, rows, rows], -1).astype(np.uint8)
    label = (10 * rows + columns).astype(np.uint8)

    new_image, new_label = change_one(
        image[np.newaxis],
        label[np.newaxis],
        factor=factor,
        place=(0.35, 0.65),
        is_mirrored=is_mirrored,
    )

    is_outside = new_label == schema.IGNORE_LABEL
    assert is_outside.any() == (factor < 1)
    np.testing.assert_array_equal(new_image[is_outside], schema.FILL_VALUE)
    distances = new_image[..., :2] - np.stack([new_label % 10, new_label // 10], -1)
    assert np.abs(distances[~is_outside]).max() <= 0.5 + 1e-5


def test_all_of_a_smaller_example_is_in_the_window():
    """At a factor of 1/2 an even number of equal pairs shrinks without a loss."""
    label = np.kron(np.arange(8).reshape(2, 4), np.ones((2, 2))).astype(np.uint8)
    image = np.repeat(label[:, :, np.newaxis], 3, 2)

    for place in [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]:
        new_image, new_label = change_one(
            image[np.newaxis], label[np.newaxis], factor=0.5, place=place
        )
        is_inside = new_label != schema.IGNORE_LABEL
        np.testing.assert_array_equal(new_label[is_inside], np.arange(8))
        np.testing.assert_array_equal(new_image[is_inside][:, 0], np.arange(8))


def test_ignored_pixels_of_the_label_stay_ignored():
    images, labels = make_batch(1)
    labels[:] = schema.IGNORE_LABEL

    _, new_label = change_one(images, labels, factor=1.5)

    np.testing.assert_array_equal(new_label, schema.IGNORE_LABEL)


@pytest.mark.parametrize("use_xla", [False, True], ids=["plain", "xla"])
def test_mirror_reverses_the_chosen_rows(use_xla):
    images, labels = make_batch(3)

    new_images, new_labels = tf.function(
        functools.partial(resampling.mirror, axes=("x",)), jit_compile=use_xla
    )(images, labels, horizontal_flip.mirror(tf.constant([True, False, True])))

    np.testing.assert_array_equal(new_images[::2], images[::2, :, ::-1])
    np.testing.assert_array_equal(new_labels[::2], labels[::2, :, ::-1])
    np.testing.assert_array_equal(new_images[1], images[1])
    np.testing.assert_array_equal(new_labels[1], labels[1])


def test_mirror_keeps_types():
    images, labels = make_batch(1)

    new_images, new_labels = resampling.mirror(
        tf.constant(images, tf.float32),
        tf.constant(labels),
        horizontal_flip.mirror(tf.constant([True])),
        axes=("x",),
    )

    assert (new_images.dtype, new_labels.dtype) == (tf.float32, tf.uint8)


def map_by_pixel(image, label, matrix, shift):
    """Moves one example by any map, pixel by pixel."""
    height, width = label.shape
    new_image = np.full(image.shape, 128.0)
    new_label = np.full(label.shape, 255)
    for row in range(height):
        for column in range(width):
            point = np.array([row + 0.5 - height / 2, column + 0.5 - width / 2])
            y, x = matrix @ point + shift + np.array([height / 2, width / 2])
            if 0 <= y < height and 0 <= x < width:
                new_image[row, column] = interpolate(
                    image.astype(np.float64), y - 0.5, x - 0.5
                )
                new_label[row, column] = label[math.floor(y), math.floor(x)]
    return new_image, new_label


def draw_maps(num_rows, *, keeps_axes):
    """Draws matrices [rows, 2, 2] and shifts [rows, 2]."""
    random = np.random.default_rng(7)
    matrices = random.uniform(-1.5, 1.5, (num_rows, 2, 2))
    if keeps_axes:
        matrices *= np.eye(2)
    return matrices, random.uniform(-2, 2, (num_rows, 2))


def resample(function, images, labels, matrices, shifts, *, use_xla=False):
    composed = np.concatenate([matrices, shifts[..., np.newaxis]], -1)
    images, labels = tf.function(function, jit_compile=use_xla)(
        tf.constant(images), tf.constant(labels), tf.constant(composed, tf.float32)
    )
    assert (images.dtype, labels.dtype) == (tf.float32, tf.uint8)
    return images.numpy(), labels.numpy()


@pytest.mark.parametrize("use_xla", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize(
    ("function", "keeps_axes"),
    [
        (resampling.resample, False),
        (resampling.resample, True),
        (resampling.resample_lines, True),
    ],
)
def test_any_map_moves_what_a_loop_over_pixels_moves(function, keeps_axes, use_xla):
    images, labels = make_batch(12)
    matrices, shifts = draw_maps(12, keeps_axes=keeps_axes)

    new_images, new_labels = resample(
        function, images, labels, matrices, shifts, use_xla=use_xla
    )

    for row in range(12):
        expected = map_by_pixel(images[row], labels[row], matrices[row], shifts[row])
        np.testing.assert_allclose(new_images[row], expected[0], atol=1e-3)
        np.testing.assert_array_equal(new_labels[row], expected[1])
    is_outside = new_labels == schema.IGNORE_LABEL
    assert 0.1 < is_outside.mean() < 0.9


def test_a_map_of_nothing_changes_no_bit_of_any_path():
    images, labels = make_batch(2)
    matrices, shifts = np.tile(np.eye(2), (2, 1, 1)), np.zeros((2, 2))

    for function in (resampling.resample, resampling.resample_lines):
        new_images, new_labels = resample(function, images, labels, matrices, shifts)
        np.testing.assert_array_equal(new_images, images)
        np.testing.assert_array_equal(new_labels, labels)


def test_pixels_beyond_what_floats_count_are_found():
    """The last of 4097 x 4097 pixels: beyond 2**24, float32 holds even numbers only."""
    side = 4097
    pixels = np.zeros([1, side, side], np.uint8)
    pixels[0, -2:, -4:] = np.arange(8).reshape(2, 4)
    shift = tf.constant([[[1, 0, (side - 2) / 2], [0, 1, (side - 4) / 2]]], tf.float32)

    images, labels = resampling.resample(
        tf.constant(pixels[..., np.newaxis]), tf.constant(pixels), shift, size=(2, 4)
    )

    np.testing.assert_array_equal(labels[0], np.arange(8).reshape(2, 4))
    np.testing.assert_array_equal(images[0, ..., 0], np.arange(8).reshape(2, 4))


def test_composed_maps_go_through_the_inner_one_first():
    """(1, 2) -> inner: (2, 3) + (1, 0) -> outer: half of it."""
    inner = tf.constant([[[2.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    outer = tf.constant([[[0.5, 0.0, 0.0], [0.0, 0.5, 10.0]]])

    composed = maps.compose(outer, inner).numpy()[0]

    np.testing.assert_allclose(composed @ [1, 2, 1], [1.5, 11.5])
    np.testing.assert_array_equal(
        maps.compose(maps.identity(1), inner), maps.compose(inner, maps.identity(1))
    )
