"""Dice is that of the whole batch, on every number of replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from tests import helpers
from trainer.losses import cross_entropy, dice, registry, term, weighted_sum

_IGNORED = 255


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _slow_dice(logits, labels, weights):
    """Computes the formula of the docstring in float64, class by class."""
    probabilities = _softmax(logits.astype(np.float64))
    is_valid = labels != _IGNORED
    total = 0.0
    there = [c for c in range(logits.shape[-1]) if (labels == c).any()]
    for c in there:
        p, g = probabilities[is_valid][:, c], labels[is_valid] == c
        total += weights[c] * 2 * (p * g).sum() / (p.sum() + g.sum())
    return 1 - total / sum(weights[c] for c in there)


def _slow_cross_entropy(logits, labels, weights):
    probabilities = _softmax(logits.astype(np.float64))
    total = count = 0.0
    for c in range(logits.shape[-1]):
        total -= weights[c] * np.log(probabilities[labels == c][:, c]).sum()
        count += weights[c] * (labels == c).sum()
    return total / count


def _draw(shape=(2, 5, 6), num_classes=4, seed=0):
    """Draws logits and labels; the last class is in no label."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes - 1, shape).astype(np.uint8)
    labels[random.random(shape) < 0.3] = _IGNORED
    return random.normal(size=(*shape, num_classes)), labels


def _loss(logits, labels, weights=None):
    loss = dice.Dice(logits.shape[-1], weights)
    return loss.number(loss.sums(tf.constant(logits), tf.constant(labels)))


def test_a_drawn_map():
    # Two pixels of class 0, one of class 1, one ignored; softmax of (0, log 3) is
    # (1/4, 3/4).
    logits = np.log([[[[1.0, 3.0], [3.0, 1.0]], [[1.0, 3.0], [1.0, 3.0]]]])
    labels = np.array([[[0, 0], [1, _IGNORED]]], np.uint8)
    # Class 0: p is 1/4, 3/4, 1/4, 2 (1/4 + 3/4) / (5/4 + 2) = 8/13.
    # Class 1: p is 3/4, 1/4, 3/4, 2 (3/4) / (7/4 + 1) = 6/11.
    expected = 1 - (8 / 13 + 6 / 11) / 2
    np.testing.assert_allclose(_loss(logits, labels), expected, rtol=1e-12)
    # Weights 1 and 3.
    expected = 1 - (8 / 13 + 3 * 6 / 11) / 4
    np.testing.assert_allclose(_loss(logits, labels, (1, 3)), expected, rtol=1e-12)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 3.0, 7.0)])
def test_value_and_gradient_equal_slow_numpy(weights):
    logits, labels = _draw()
    slow_weights = weights or np.ones(4)
    value = _slow_dice(logits, labels, slow_weights)
    np.testing.assert_allclose(_loss(logits, labels, weights), value, rtol=1e-12)
    loss = dice.Dice(4, weights)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss.number(loss.sums(variable, tf.constant(labels)))
    actual = tape.gradient(value, variable).numpy()
    step = 1e-5
    for index in np.ndindex(logits.shape):
        ends = []
        for side in (step, -step):
            moved = logits.copy()
            moved[index] += side
            ends.append(_slow_dice(moved, labels, slow_weights))
        np.testing.assert_allclose(
            actual[index], (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-10
        )
    assert (actual[labels == _IGNORED] == 0).all()


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0, 1.0), None])
def test_without_a_class_that_counts_loss_and_gradient_are_zero(weights):
    logits, labels = _draw()
    if weights is None:
        labels[:] = _IGNORED
    variable = tf.Variable(logits)
    loss = dice.Dice(4, weights)
    with tf.GradientTape() as tape:
        value = loss.number(loss.sums(variable, tf.constant(labels)))
    assert value == 0
    assert (tape.gradient(value, variable).numpy() == 0).all()


def _build_linear(replicas):
    """Builds a model of 12 numbers, of which NumPy can find the gradient."""
    del replicas
    images = keras.Input((None, None, 3))
    logits = keras.layers.Rescaling(1 / 127.5, -1)(images)
    logits = keras.layers.Conv2D(3, 1, dtype="float32")(logits)
    return keras.Model(images, logits)


def _uneven_examples():
    """Makes eight examples of which the first rows of the batch are mostly ignored.

    Class 2 is in the last row alone.
    """
    examples = helpers.make_store(num_examples=8, ignored=0.1)
    rows = pipeline.shuffled_ids(tf.range(8, dtype=tf.int64), num_examples=8, seed=0)
    labels = examples.labels.copy()
    labels[rows[:-1]] = np.where(labels[rows[:-1]] == 2, 1, labels[rows[:-1]])
    labels[rows[-1], :4] = 2
    labels[rows[:2]] = _IGNORED  # All of replica 0 of 4.
    labels[rows[2], 5:] = _IGNORED
    return helpers.relabel(examples, np.s_[:], labels)


_SLOW = {"ce": _slow_cross_entropy, "dice": _slow_dice}


@pytest.mark.parametrize(
    ("text", "class_weights", "replicas"),
    [
        ("dice", None, 2),
        ("ce+0.5*dice", (0.5, 2.0, 3.0), 1),
        ("ce+0.5*dice", (0.5, 2.0, 3.0), 2),
        ("ce+0.5*dice", (0.5, 2.0, 3.0), 4),
    ],
)
def test_a_step_is_that_of_slow_numpy_on_all_replicas(text, class_weights, replicas):
    examples = _uneven_examples()
    rig = helpers.Rig(
        examples,
        replicas=replicas,
        build=_build_linear,
        loss=text,
        class_weights=class_weights,
    )
    weights = class_weights or np.ones(3)
    terms = registry.parse(text)
    before = [v.numpy().astype(np.float64) for v in rig.model.trainable_variables]
    pixels = examples.images / 127.5 - 1

    def compute(kernel, bias):
        logits = pixels @ kernel[0, 0] + bias
        values = {n: _SLOW[n](logits, examples.labels, weights) for n in terms}
        return sum(terms[n] * value for n, value in values.items()), values

    (actual,) = rig.train(1)
    expected, values = compute(*before)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    curves = rig.loss.scores(rig.result.sums.numpy())
    for name, value in values.items():
        np.testing.assert_allclose(curves[f"loss/{name}"], value, rtol=1e-5)
    for position, variable in enumerate(rig.model.trainable_variables):
        gradient = np.zeros(variable.shape)
        for index in np.ndindex(*variable.shape):
            ends = []
            for side in (1e-5, -1e-5):
                moved = [value.copy() for value in before]
                moved[position][index] += side
                ends.append(compute(*moved)[0])
            gradient[index] = (ends[0] - ends[1]) / 2e-5
        # The learning rate is 0.1.
        moved = (before[position] - variable.numpy()) / 0.1
        assert np.abs(gradient).max() > 0.01
        np.testing.assert_allclose(moved, gradient, atol=2e-6)


def test_dice_of_each_replica_would_be_another_loss():
    """The control of the test above: a mean of the replicas' coefficients."""

    class MeanOfReplicas(term.Mean):
        def sums(self, logits, labels):
            loss = dice.Dice(3)
            return tf.stack([loss.number(loss.sums(logits, labels)), 1])

    loss = weighted_sum.WeightedSum(
        {"dice": weighted_sum.Weighted(1.0, MeanOfReplicas(3))}
    )
    examples = _uneven_examples()
    rigs = [
        helpers.Rig(examples, replicas=2, build=_build_linear, loss=each)
        for each in (loss, "dice")
    ]
    values = [rig.train(1)[0] for rig in rigs]
    assert abs(values[0] - values[1]) > 0.01


class _WorstPixel(term.Mean):
    """The mean over images of the greatest cross-entropy of a pixel in each."""

    def sums(self, logits, labels):
        is_valid = tf.not_equal(labels, _IGNORED)
        costs = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.where(is_valid, tf.cast(labels, tf.int32), 0), logits
        )
        worst = tf.reduce_max(tf.where(is_valid, costs, 0), axis=[1, 2])
        counts = tf.cast(tf.reduce_any(is_valid, axis=[1, 2]), worst.dtype)
        return tf.stack([tf.reduce_sum(worst * counts), tf.reduce_sum(counts)])


def test_a_term_of_images_trains_alike_on_two_replicas():
    loss = weighted_sum.WeightedSum(
        {
            "ce": weighted_sum.Weighted(1.0, cross_entropy.CrossEntropy(3)),
            "worst": weighted_sum.Weighted(0.5, _WorstPixel(3)),
        }
    )
    examples = _uneven_examples()
    one, two = (helpers.Rig(examples, loss=loss, replicas=n) for n in (1, 2))
    np.testing.assert_allclose(two.train(3), one.train(3), rtol=1e-5)
    for a, b in zip(two.weights(), one.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_a_mean_in_a_sum_has_the_gradient_that_it_has_alone():
    # One is divided after the sum over replicas, the other before the gradient.
    examples = _uneven_examples()
    ce = cross_entropy.CrossEntropy(3)
    halves = weighted_sum.WeightedSum(
        {name: weighted_sum.Weighted(0.5, ce) for name in ("a", "b")}
    )
    assert not halves.is_mean and registry.make("ce", 3).is_mean
    alone, both = (helpers.Rig(examples, loss=each) for each in ("ce", halves))
    np.testing.assert_allclose(both.train(3), alone.train(3), rtol=1e-5)
    for a, b in zip(both.weights(), alone.weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_weight_of_a_single_mean_counts():
    one, two = (helpers.Rig(helpers.make_store(), loss=x) for x in ("ce", "2*ce"))
    np.testing.assert_allclose(two.train(1)[0], 2 * one.train(1)[0], rtol=1e-6)
    norms = [float(rig.result.gradient_norm) for rig in (one, two)]
    np.testing.assert_allclose(norms[1], 2 * norms[0], rtol=1e-6)


@pytest.mark.parametrize("kwargs", [{"policy": "mixed_float16"}, {"enable_xla": True}])
def test_dice_trains_in_float16_and_with_xla(kwargs):
    expected = helpers.Rig(helpers.make_store(), loss="ce+0.5*dice").train(8)
    rig = helpers.Rig(helpers.make_store(), loss="ce+0.5*dice", **kwargs)
    rtol = 0.03 if "policy" in kwargs else 1e-4
    np.testing.assert_allclose(rig.train(8), expected, rtol=rtol)
    assert expected[-1] < 0.9 * expected[0]


def test_evaluation_has_the_dice_of_the_whole_split():
    examples = helpers.make_store(num_examples=13, ignored=0.1)
    strategy = helpers.make_strategy(2)
    model, loop, _ = helpers.make_eval_loop(strategy, examples, loss="ce+0.5*dice")
    loop.score(helpers.evaluation_batches(strategy, examples, 4), 4)
    logits = model(examples.images, training=False).numpy()
    ce = _slow_cross_entropy(logits, examples.labels, np.ones(3))
    coefficient = _slow_dice(logits, examples.labels, np.ones(3))
    result = loop.result()
    np.testing.assert_allclose(result["loss/ce"], ce, rtol=1e-5)
    np.testing.assert_allclose(result["loss/dice"], coefficient, rtol=1e-5)
    np.testing.assert_allclose(result["loss"], ce + 0.5 * coefficient, rtol=1e-5)
