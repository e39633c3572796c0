"""Boundary IoU equals slow NumPy, on every number of replicas and at native sizes."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from data.preparing import resizing
from tests import helpers, test_native
from trainer.metrics import boundary_iou, confusion, registry

_IGNORED = 255
_NAMES = ("a", "b", "c")


def _erode(mask, distance):
    """Keeps the pixels whose square is in the mask; nothing outside the image is."""
    height, width = mask.shape
    padded = np.pad(mask, distance)
    kept = np.ones_like(mask)
    for dy in range(2 * distance + 1):
        for dx in range(2 * distance + 1):
            kept &= padded[dy : dy + height, dx : dx + width]
    return kept


def _slow_counts(label, predicted, num_classes=3):
    """Counts the pixels of both bands, the true and the predicted one of an image."""
    height, width = label.shape
    distance = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
    counts = np.zeros((3, num_classes), np.int64)
    for c in range(num_classes):
        masks = [(x == c) & (label != _IGNORED) for x in (label, predicted)]
        true, found = (mask & ~_erode(mask, distance) for mask in masks)
        counts[:, c] += [(true & found).sum(), true.sum(), found.sum()]
    return counts


def _slow_scores(counts):
    both, true, found = counts
    values = both / (true + found - both)
    named = {f"boundary_iou/{n}": v for n, v in zip(_NAMES, values, strict=True)}
    return {"mean_boundary_iou": np.nanmean(values), **named}


def _logits(predicted, num_classes=3):
    return tf.one_hot(predicted, num_classes)


def _draw_blobs(shape, seed):
    """Draws a map of three classes in pieces of all sizes, moved and with holes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 3, (shape[0] // 9 + 2, shape[1] // 9 + 2))
    label = np.kron(coarse, np.ones((9, 9), np.int64)).astype(np.uint8)
    label = np.roll(label, random.integers(0, 9, 2), (0, 1))[: shape[0], : shape[1]]
    noise = random.random(shape) < 0.01
    return np.where(noise, random.integers(0, 3, shape), label).astype(np.uint8)


def test_a_drawn_map():
    # A square of 5x5 in a corner of 8x8 pixels, found one column too wide; the diagonal
    # is 11.3, so the band is one pixel wide, along the end of the image as well.
    label, predicted = np.zeros((2, 8, 8), np.uint8)
    label[:5, :5] = 1
    predicted[:5, :6] = 1
    metric = boundary_iou.BoundaryIou(("ground", "square"))
    metric.update(label[None], _logits(predicted, 2)[None])
    # Bands of the square: 25 - 9 = 16 and 30 - 3 * 4 = 18 pixels, which share all but
    # the true right side's inner three and the found right side's five.
    shared = 16 - 3
    assert metric.counts()[:, 1].tolist() == [shared, 16, 18]
    assert metric.result()["boundary_iou/square"] == shared / (16 + 18 - shared)
    np.testing.assert_array_equal(metric.counts(), _slow_counts(label, predicted, 2))


# Bands of 1, 1, 2, 3 and 4 pixels, the last one wider than the image is high.
@pytest.mark.parametrize(
    "shape", [(1, 1), (20, 31), (64, 70), (100, 120), (3, 200)], ids=str
)
def test_counts_equal_slow_numpy(shape):
    label, predicted = _draw_blobs(shape, 0), _draw_blobs(shape, 0)
    predicted[:, shape[1] // 2 :] = _draw_blobs(shape, 1)[:, shape[1] // 2 :]
    random = np.random.default_rng(2)
    label[random.random(shape) < 0.01] = _IGNORED
    label[shape[0] // 3 : shape[0] // 2, shape[1] // 3 :] = _IGNORED
    metric = boundary_iou.BoundaryIou(_NAMES)
    # Twice, and mirrored: each image has bands of its own.
    labels = np.stack([label, label[::-1]])
    metric.update(labels, _logits(np.stack([predicted, predicted[::-1]])))
    expected = 2 * _slow_counts(label, predicted)
    np.testing.assert_array_equal(metric.counts(), expected)


def test_an_ignored_pixel_is_like_one_outside_of_the_image():
    label = _draw_blobs((40, 50), 3)
    predicted = _draw_blobs((40, 50), 4)
    margins = [(1, 1), (4, 4)]  # Few enough for the band to stay as wide.
    inner = _slow_counts(label, predicted)
    metric = boundary_iou.BoundaryIou(_NAMES)
    padded = np.pad(label, margins, constant_values=_IGNORED)
    metric.update(padded[None], _logits(np.pad(predicted, margins))[None])
    np.testing.assert_array_equal(metric.counts(), inner)


def test_a_class_that_is_nowhere_has_no_score():
    label = np.zeros((1, 9, 9), np.uint8)
    label[:, 4:] = 1
    metric = boundary_iou.BoundaryIou(_NAMES)
    metric.update(label, _logits(label))
    result = metric.result()
    assert np.isnan(result["boundary_iou/c"])
    assert result["mean_boundary_iou"] == 1


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_evaluation_scores_are_those_of_slow_numpy(replicas):
    examples = helpers.make_store(num_examples=7, ignored=0.02)
    strategy = helpers.make_strategy(replicas)
    model, loop, _ = helpers.make_eval_loop(
        strategy, examples, metrics=("boundary_iou",)
    )
    loop.score(helpers.evaluation_batches(strategy, examples, 4), 2)
    found = np.argmax(model(examples.images, training=False), axis=-1)
    counts = sum(map(_slow_counts, examples.labels, found))
    result = loop.result()
    for name, value in _slow_scores(counts).items():
        assert result[name] == value, name
    loop.reset()
    assert np.isnan(loop.result()["mean_boundary_iou"])


@pytest.mark.parametrize("replicas", [1, 2])
def test_scores_at_native_sizes_are_those_of_slow_numpy(tmp_path, replicas):
    source = helpers.FileSource(tmp_path)
    examples = test_native.open_native(source)
    strategy = helpers.make_strategy(replicas)
    model, loop, _ = helpers.make_eval_loop(
        strategy, examples, metrics=("boundary_iou",)
    )
    loop.score(helpers.evaluation_batches(strategy, examples, 4), 3)
    restore_size = functools.partial(resizing.restore_size, method="stretch")
    counts = 0
    for index, label in enumerate(test_native.read_labels(source)):
        logits = model(examples.examples.images[index : index + 1], training=False)
        logits = restore_size(logits[0], tf.constant(label.shape))
        counts += _slow_counts(label, np.argmax(logits, axis=-1))
    result = loop.result()
    for name, value in _slow_scores(counts).items():
        assert result[name] == value, name


def test_no_two_metrics_use_one_name():
    metrics = [
        confusion.ConfusionMatrix(_NAMES),
        *registry.make(registry.METRICS, _NAMES),
    ]
    names = [name for metric in metrics for name in metric.result()]
    assert len(set(names)) == len(names)
    for metric in metrics:
        assert metric.titles.keys() <= metric.result().keys()
