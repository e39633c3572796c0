"""Cross-entropy is a total over the valid pixels, and their count."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.losses import cross_entropy, pixels

_IGNORED = 255

# [batch=1, height=2, width=3], one pixel of each class and of none.
_LABELS = np.array([[[0, 2, _IGNORED], [1, _IGNORED, 2]]], np.uint8)


def _ramp(dtype) -> np.ndarray:
    """Returns logits [1, 2, 3, 3] that differ in each pixel and class."""
    ramp = np.arange(18, dtype=np.float64).reshape(1, 2, 3, 3)
    return ((ramp * 7 % 18) / 4 - 2).astype(dtype)


def _reference(logits: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    total, count = 0.0, 0
    for index in np.ndindex(labels.shape):
        if labels[index] != _IGNORED:
            exponentials = np.exp(logits[index].astype(np.float64))
            total -= np.log(exponentials[labels[index]] / exponentials.sum())
            count += 1
    return total, count


def _sums(logits, labels, class_weights=None):
    """Returns total and count."""
    term = cross_entropy.CrossEntropy(3, class_weights)
    return tf.unstack(term.sums(logits, labels))


def test_two_equal_logits_cost_log_two():
    # softmax([3, 3]) = [1/2, 1/2], so each of the two pixels costs log 2.
    logits = tf.constant([[[[3.0, 3.0], [-1.0, -1.0]]]])
    total, _ = _sums(logits, tf.constant([[[0, 1]]], tf.uint8))
    np.testing.assert_allclose(total, 2 * np.log(2), rtol=1e-6)


def test_valid_pixels_are_those_without_the_ignore_label():
    expected = [[[True, True, False], [True, False, True]]]
    np.testing.assert_array_equal(pixels.is_valid(_LABELS), expected)


def test_total_equals_a_loop_over_pixels():
    logits = _ramp(np.float32)
    total, _ = _sums(tf.constant(logits), tf.constant(_LABELS))
    np.testing.assert_allclose(total, _reference(logits, _LABELS)[0], rtol=1e-6)


def test_count_is_the_number_of_valid_pixels():
    _, count = _sums(tf.constant(_ramp(np.float32)), _LABELS)
    # 6 pixels less 2 ignored.
    assert count == 4.0


def test_logits_of_ignored_pixels_do_not_change_the_total():
    logits = _ramp(np.float32)
    changed = np.where((_LABELS == _IGNORED)[..., np.newaxis], -50 * logits, logits)
    assert not np.array_equal(logits, changed)
    total, _ = _sums(tf.constant(logits), _LABELS)
    assert _sums(tf.constant(changed), _LABELS)[0] == total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_total_and_count_have_the_dtype_of_the_logits(dtype):
    results = _sums(tf.constant(_ramp(dtype)), _LABELS)
    assert [result.dtype.as_numpy_dtype for result in results] == [dtype, dtype]


def test_float64_logits_are_summed_in_float64():
    logits = _ramp(np.float64)
    total, _ = _sums(tf.constant(logits), _LABELS)
    np.testing.assert_allclose(total, _reference(logits, _LABELS)[0], rtol=1e-14)


def test_only_ignored_pixels_give_zero_and_zero():
    labels = np.full_like(_LABELS, _IGNORED)
    results = _sums(tf.constant(_ramp(np.float32)), labels)
    assert [float(result) for result in results] == [0.0, 0.0]


def test_gradient_is_softmax_less_one_hot_and_zero_where_ignored():
    logits = tf.constant(_ramp(np.float64))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total, _ = _sums(logits, _LABELS)
    exponentials = np.exp(logits.numpy())
    expected = exponentials / exponentials.sum(axis=-1, keepdims=True)
    expected -= np.eye(256)[_LABELS][..., :3]
    expected[_LABELS == _IGNORED] = 0
    np.testing.assert_allclose(tape.gradient(total, logits), expected, atol=1e-14)


_WEIGHTS = (0.5, 2.0, 3.0)


def test_weighted_total_and_count_equal_a_loop_over_pixels():
    logits = _ramp(np.float64)
    total, count = _sums(tf.constant(logits), _LABELS, _WEIGHTS)
    parts = [
        _reference(logits, np.where(label == _LABELS, label, _IGNORED))[0]
        for label in range(3)
    ]
    np.testing.assert_allclose(total, np.dot(parts, _WEIGHTS), rtol=1e-14)
    # One pixel of class 0, one of class 1, two of class 2.
    assert count == 0.5 + 2 + 2 * 3


def test_gradient_of_a_pixel_is_that_without_weights_times_its_weight():
    logits = tf.constant(_ramp(np.float64))
    gradients = []
    for weights in (None, _WEIGHTS):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total, _ = _sums(logits, _LABELS, weights)
        gradients.append(tape.gradient(total, logits).numpy())
    factors = np.array([*_WEIGHTS, *[0] * 253])[_LABELS][..., np.newaxis]
    np.testing.assert_allclose(gradients[1], gradients[0] * factors, atol=1e-15)
