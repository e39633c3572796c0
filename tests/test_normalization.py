"""Synchronized batch norm gives the statistics and gradients of the whole batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import normalization
from tests import helpers


def _run(strategy, inputs):
    """Returns output rows, input gradients and moving statistics of a training step."""
    with strategy.scope():
        layer = normalization.BatchNormalization(
            synchronized=strategy.num_replicas_in_sync > 1
        )
        layer.build(inputs.shape)
    weights = tf.constant(np.arange(inputs.size).reshape(inputs.shape), tf.float32)

    def step(rows, weights):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            outputs = layer(rows, training=True)
            total = tf.reduce_sum(outputs * weights)
        return outputs, tape.gradient(total, rows)

    dataset = tf.data.Dataset.from_tensors((tf.constant(inputs), weights)).unbatch()
    dataset = dataset.batch(len(inputs))
    (batch,) = strategy.experimental_distribute_dataset(dataset)
    results = tf.function(lambda b: strategy.run(step, b))(batch)
    joined = [
        np.concatenate([np.array(v) for v in strategy.experimental_local_results(r)])
        for r in results
    ]
    return [*joined, layer.moving_mean.numpy(), layer.moving_variance.numpy()]


@pytest.mark.cross_section
@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_together_give_what_one_device_gives(replicas):
    inputs = np.random.default_rng(0).normal(3, 2, (8, 2, 3, 5)).astype(np.float32)
    expected = _run(helpers.make_strategy(1), inputs)
    actual = _run(helpers.make_strategy(replicas), inputs)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_a_large_mean_does_not_cancel_the_variance():
    # In float32, E[x^2] - E[x]^2 is 9e6 - 9e6 in steps of 1, a variance of 1 is lost.
    random = np.random.default_rng(0)
    inputs = (random.normal(0, 1, (8, 8, 8, 1)) + 3000).astype(np.float32)
    *_, variance = _run(helpers.make_strategy(2), inputs)
    expected = 0.99 + 0.01 * inputs.astype(np.float64).var()
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


@pytest.mark.cross_section
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 0), ("float32", 1e-5), ("mixed_bfloat16", 2e-2)],
)
def test_one_replica_computes_what_keras_does(dtype, tolerance):
    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(3, 2, (4, 2, 3, 5)))
    weights = tf.constant(random.normal(size=inputs.shape))
    results = []
    for kind in (normalization.BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.5, dtype=dtype)
        layer.build(inputs.shape)
        layer.gamma.assign([0.5, 1, 2, 3, -1])
        layer.beta.assign([1, 2, 3, 4, 5])
        rows = tf.cast(inputs, layer.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            outputs = layer(rows, training=True)
            total = tf.reduce_sum(outputs * tf.cast(weights, outputs.dtype))
        variables = [rows, layer.gamma.value, layer.beta.value]
        moved = [layer.moving_mean.value, layer.moving_variance.value]
        results.append([outputs, *tape.gradient(total, variables), *moved])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = (tf.cast(value, tf.float64).numpy() for value in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance * 10)


def test_a_norm_without_scale_and_shift_computes_what_keras_does():
    inputs = np.random.default_rng(0).normal(3, 2, (4, 2, 3, 5)).astype(np.float32)
    settings = {"scale": False, "center": False}
    ours = normalization.BatchNormalization(**settings)(inputs, training=True)
    theirs = keras.layers.BatchNormalization(**settings)(inputs, training=True)
    np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)


def test_scale_and_shift_are_what_inference_does():
    layer = normalization.BatchNormalization(dtype="float64")
    inputs = np.random.default_rng(0).normal(3, 2, (4, 2, 3, 2))
    layer.build(inputs.shape)
    for variable, value in zip(
        layer.weights, ([2, 3], [4, 5], [6, 7], [0.5, 2]), strict=True
    ):
        variable.assign(value)
    scale, shift = layer.scale_and_shift()
    np.testing.assert_allclose(inputs * scale + shift, layer(inputs), rtol=1e-12)
