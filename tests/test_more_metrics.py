"""Calibration, and the mean IoU of images, equal slow NumPy on any replicas."""

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.metrics import calibration, confusion, image_iou

_NAMES = ("a", "b", "c")
_IGNORED = 255


def _slow_calibration(logits, labels):
    """Equation 3 of the paper, bin by bin, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    is_valid = labels != _IGNORED
    confidence = probabilities.max(axis=-1)[is_valid]
    is_right = (logits.argmax(axis=-1) == labels)[is_valid]
    error = 0.0
    for m in range(1, 16):
        inside = ((m - 1) / 15 < confidence) & (confidence <= m / 15)
        if inside.any():
            gap = is_right[inside].mean() - confidence[inside].mean()
            error += inside.sum() / is_valid.sum() * abs(gap)
    return error


def _slow_image_scores(logits, labels):
    """Returns the mean IoU of each image; NaN of one without a valid pixel."""
    found, scores = logits.argmax(axis=-1), []
    for label, prediction in zip(labels, found, strict=True):
        is_valid = label != _IGNORED
        ious = []
        for c in range(logits.shape[-1]):
            t, p = (label == c) & is_valid, (prediction == c) & is_valid
            if (t | p).any():
                ious.append((t & p).sum() / (t | p).sum())
        scores.append(np.mean(ious) if ious else np.nan)
    return np.array(scores)


def _slow_image_iou(logits, labels):
    return np.nanmean(_slow_image_scores(logits, labels))


_CASES = {
    "calibration": ("calibration_error", _slow_calibration),
    "image_iou": ("image_mean_iou", _slow_image_iou),
}


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_evaluation_scores_are_those_of_slow_numpy(replicas):
    examples = helpers.make_store(num_examples=7, size=16, ignored=0.1)
    examples = helpers.relabel(examples, np.s_[2], _IGNORED)
    strategy = helpers.make_strategy(replicas)
    model, loop, _ = helpers.make_eval_loop(
        strategy, examples, metrics=tuple(_CASES), loss="ce", scores_images=True
    )
    for variable in model.trainable_variables:
        variable.assign(3 * variable)  # For confidences of all sizes.
    loop.score(helpers.evaluation_batches(strategy, examples, 4), 2)
    logits = model(examples.images, training=False).numpy()
    result = loop.result()
    for tag, slow in _CASES.values():
        expected = slow(logits, examples.labels)
        np.testing.assert_allclose(result[tag], expected, rtol=1e-6)
        assert 0.01 < expected < 0.99
    scores = loop.image_scores.result()
    expected = _slow_image_scores(logits, examples.labels)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2**-32)
    assert np.isnan(scores).tolist() == [index == 2 for index in range(7)]
    loop.reset()
    assert np.isnan(loop.image_scores.result()).all()


def test_calibration_of_drawn_pixels():
    # Confidences 0.6, 0.6 and 0.9; the first is right, the last, too.
    probabilities = np.array([[[[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.5, 0.5]]]])
    labels = np.array([[[0, 1, 1, _IGNORED]]], np.uint8)
    metric = calibration.Calibration(("a", "b"))
    metric.update(labels, tf.constant(np.log(probabilities)))
    # Two pixels of which half are right, and one.
    expected = (2 * abs(0.5 - 0.6) + abs(1 - 0.9)) / 3
    assert metric.result()["calibration_error"] == pytest.approx(expected, abs=1e-7)
    bins = metric.details()["calibration"]
    filled = {index: row for index, row in enumerate(bins) if row[0]}
    assert len(bins) == 15
    # 0.6 is in the ninth of 15 bins, or in the tenth after rounding.
    assert [row[:2] for row in filled.values()] == [[2, 1], [1, 1]]
    means = [row[2] for row in filled.values()]
    assert means == pytest.approx([0.6, 0.9], abs=1e-7)


def test_the_confidences_of_a_huge_photo_are_summed_up_exactly():
    # As many as two photos of 17 million pixels have, all of them 1.
    values = tf.fill([2**25], 2**24)
    sums = calibration._sum_large(
        values, tf.zeros_like(values), where=tf.ones_like(values, tf.bool)
    )
    assert sums.numpy().tolist() == [2**49] + 14 * [0]


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_the_least_and_the_greatest_confidence_have_a_bin(size):
    labels = np.array([[[0, 1]]], np.uint8)
    logits = np.float32(size) * np.eye(2, dtype=np.float32)[labels]
    metric = calibration.Calibration(("a", "b"))
    metric.update(labels, logits)
    number, _, confidence = metric.counts()
    assert number.sum() == 2
    assert confidence.sum() == 2**24 * (2 if size else 1)


def test_each_image_has_the_same_weight():
    # Three of four pixels right, then one of one.
    labels = np.array([[[0, 0, 1, 1]], [[2, *3 * [_IGNORED]]]], np.uint8)
    found = np.array([[[0, 0, 0, 1]], [[2, 0, 1, 0]]])
    metric = image_iou.ImageIou(_NAMES)
    metric.update(labels, np.eye(3, dtype=np.float32)[found])
    # (2 / 3 + 1 / 2) / 2 of classes a and b; 1 of class c.
    expected = ((2 / 3 + 1 / 2) / 2 + 1) / 2
    assert metric.result()["image_mean_iou"] == pytest.approx(expected, abs=1e-9)


def test_the_foreground_of_two_classes_comes_first():
    titles = confusion.ConfusionMatrix(("wall", "crack")).titles
    tags = ["iou/crack", "pixel_accuracy", "mean_iou"]
    assert list(titles) == tags
    titles = confusion.ConfusionMatrix(_NAMES).titles
    assert list(titles)[:2] == ["pixel_accuracy", "mean_iou"]
