"""Tests of how examples of all sizes come to one, and scores back."""

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.preparing import resizing

GRAY, IGNORED = schema.FILL_VALUE, schema.IGNORE_LABEL


def make_pair(height, width):
    """Makes an example whose image shows the label of each pixel."""
    label = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    return np.repeat(label[..., np.newaxis], 3, axis=-1), label


def resize(image, label, size, method):
    """Resizes in a graph that does not know the size before."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8),
            tf.TensorSpec([None, None], tf.uint8),
        ]
    )
    def run(image, label):
        return (
            resizing.resize_image(image, size, method),
            resizing.resize_labels(label, size, method),
        )

    return [tensor.numpy() for tensor in run(image, label)]


@pytest.mark.parametrize("method", resizing.METHODS)
def test_examples_of_that_size_are_not_changed(method):
    image, label = make_pair(4, 6)

    new_image, new_label = resize(image, label, (4, 6), method)

    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_label, label)


def test_stretch_fills_both_sides():
    image, label = make_pair(2, 2)

    new_image, new_label = resize(image, label, (4, 2), "stretch")

    # The labels 0 1 / 2 3 at rows -0.25, 0.25, 0.75, 1.25.
    np.testing.assert_array_equal(new_label, [[0, 1], [0, 1], [2, 3], [2, 3]])
    # Linear between them, 0.5 and 1.5 (rounded to even numbers) in the middle.
    expected = [[0, 1], [0, 2], [2, 2], [2, 3]]
    np.testing.assert_array_equal(
        new_image, np.repeat(np.c_[expected][..., None], 3, 2)
    )


def test_pad_puts_a_wide_example_between_gray_ignored_rows():
    image, label = make_pair(1, 4)

    new_image, new_label = resize(image, label, (4, 4), "pad")

    # One row of four; of the three others the greater half comes below.
    expected = np.full((4, 4), IGNORED)
    expected[1] = [0, 1, 2, 3]
    np.testing.assert_array_equal(new_label, expected)
    np.testing.assert_array_equal(
        new_image[..., 0], np.where(expected == IGNORED, GRAY, expected)
    )


def test_pad_keeps_the_aspect_ratio():
    _, label = make_pair(10, 3)

    _, new_label = resize(*make_pair(10, 3), (4, 8), "pad")

    # 4 rows for 10, so 1.2 columns for 3: one, the fourth of eight.
    columns = np.flatnonzero((new_label != IGNORED).any(axis=0))
    assert columns.tolist() == [3]
    assert set(new_label[:, 3]) <= set(label[:, 1])


def test_crop_cuts_the_middle_out_of_a_wide_example():
    image, label = make_pair(2, 7)

    new_image, new_label = resize(image, label, (2, 2), "crop")

    # Columns 2 and 3 of 0..6: of the five others the greater half is cut at the right.
    np.testing.assert_array_equal(new_label, [[2, 3], [9, 10]])
    np.testing.assert_array_equal(new_image[..., 0], new_label)


def test_crop_cuts_the_middle_out_of_a_tall_example():
    _, new_label = resize(*make_pair(6, 2), (2, 4), "crop")

    # One row of the six fits 2x4; row 2, each pixel four times.
    np.testing.assert_array_equal(new_label, [[4, 4, 5, 5], [4, 4, 5, 5]])


@pytest.mark.parametrize("method", resizing.METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (37, 41)])
def test_every_size_gives_the_one_asked_for(method, size):
    image, label = (np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8))

    new_image, new_label = resize(image, label, (32, 64), method)

    assert new_image.shape == (32, 64, 3)
    assert new_label.shape == (32, 64)
    assert (new_label == 0).any()


@pytest.mark.parametrize("method", ["stretch", "pad"])
@pytest.mark.parametrize("native", [(48, 96), (96, 48), (96, 96), (200, 90)])
def test_restored_scores_lie_upon_the_labels_they_came_from(method, native):
    # Four quadrants survive any resizing but for the pixels along their borders.
    rows, columns = (np.arange(n) >= n // 2 for n in native)
    label = (2 * rows[:, None] + columns).astype(np.uint8)
    image = np.zeros((*native, 3), np.uint8)
    _, small = resize(image, label, (64, 64), method)
    scores = tf.one_hot(small, 4)

    restored = resizing.restore_size(scores, tf.constant(native), method)

    assert restored.shape == (*native, 4)
    classes = np.argmax(restored, axis=-1)
    assert (classes == label).mean() > 0.97


def test_restoring_undoes_an_exact_enlargement():
    _, label = make_pair(2, 3)
    _, large = resize(*make_pair(2, 3), (4, 6), "stretch")
    scores = tf.cast(large, tf.float32)[..., tf.newaxis]

    restored = resizing.restore_size(scores, tf.constant([2, 3]), "stretch")

    # Each is the mean of four equal pixels, or one of them.
    np.testing.assert_array_equal(restored[..., 0], label)
