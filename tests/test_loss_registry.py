"""Losses by their names, and what holds for each of them."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.losses import registry

_IGNORED = 255


@pytest.mark.parametrize(
    ("text", "weights", "canonical"),
    [
        ("ce", {"ce": 1}, "ce"),
        ("1*ce", {"ce": 1}, "ce"),
        ("ce+0.5*dice", {"ce": 1, "dice": 0.5}, "ce+0.5*dice"),
        (" 2.5 * dice + ce ", {"dice": 2.5, "ce": 1}, "2.5*dice+ce"),
        ("1e20*ce", {"ce": 1e20}, "1e20*ce"),
    ],
)
def test_a_weighted_sum_is_read_and_written(text, weights, canonical):
    assert registry.parse(text) == weights
    assert registry.format_sum(weights) == canonical
    assert registry.parse(canonical) == weights


def _draw(num_classes=3):
    random = np.random.default_rng(0)
    labels = random.integers(0, num_classes, (4, 5, 6)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.3] = _IGNORED
    labels[0] = _IGNORED
    logits = random.normal(size=(4, 5, 6, num_classes)).astype(np.float32)
    return logits, labels


@pytest.fixture(name="loss", params=registry.TERMS)
def _loss(request):
    return registry.make(request.param, 3, (0.5, 1.0, 2.0))


def test_sums_of_parts_add_up(loss):
    logits, labels = _draw()
    whole = loss.sums(logits, labels)
    assert (whole.dtype, whole.shape) == (tf.float32, [loss.num_sums])
    parts = loss.sums(logits[:1], labels[:1]) + loss.sums(logits[1:], labels[1:])
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_logits_of_ignored_pixels_change_no_sum_and_have_no_gradient(loss):
    logits, labels = _draw()
    is_ignored = (labels == _IGNORED)[..., np.newaxis]
    changed = tf.Variable(np.where(is_ignored, 9 - 50 * logits, logits))
    with tf.GradientTape() as tape:
        sums = loss.sums(changed, labels)
    np.testing.assert_array_equal(sums, loss.sums(logits, labels))
    upstream = loss.derivative(sums)
    gradient = tape.gradient(sums, changed, output_gradients=upstream).numpy()
    assert (gradient[labels == _IGNORED] == 0).all() and gradient.any()


def test_a_batch_without_a_valid_pixel_costs_nothing(loss):
    logits, labels = _draw()
    sums = loss.sums(logits, np.full_like(labels, _IGNORED))
    assert loss.number(sums) == 0
    assert np.isfinite(loss.derivative(sums)).all()
    assert loss.divisor(sums) == 1


def test_class_weights_count(loss):
    logits, labels = _draw()
    plain = registry.make(next(iter(loss.by_term(np.zeros(loss.num_sums)))), 3)
    logits[..., 2] -= 3  # The class of the greatest weight is missed.
    values = [float(each.number(each.sums(logits, labels))) for each in (loss, plain)]
    assert values[0] > 1.05 * values[1]


def test_a_better_prediction_costs_less(loss):
    _, labels = _draw()
    one_hot = np.eye(256, dtype=np.float32)[labels][..., :3]
    costs = [loss.number(loss.sums(c * one_hot, labels)) for c in (-2, 0, 2, 4)]
    assert (np.diff(costs) < 0).all()


def test_sums_go_through_json_by_the_names_of_terms():
    loss = registry.make("ce+0.5*dice", 2)
    sums = np.arange(8) / 3
    named = loss.by_term(sums)
    assert {name: len(part) for name, part in named.items()} == {"ce": 2, "dice": 6}
    np.testing.assert_array_equal(loss.from_terms(named), sums)
