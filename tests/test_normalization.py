"""Batch norm has the statistics of the whole batch, and keeps them for long enough."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from models.fast import normalization
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
@pytest.mark.parametrize("training", [True, False])
def test_one_replica_computes_what_keras_does(dtype, tolerance, training):
    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(3, 2, (4, 2, 3, 5)))
    weights = tf.constant(random.normal(size=inputs.shape))
    results = []
    for kind in (normalization.BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.5, dtype=dtype)
        layer.build(inputs.shape)
        layer.gamma.assign([0.5, 1, 2, 3, -1])
        layer.beta.assign([1, 2, 3, 4, 5])
        layer.moving_mean.assign([3, 2, 1, 0, 5])
        layer.moving_variance.assign([4, 0.5, 1, 3, 2])
        rows = tf.cast(inputs, layer.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            outputs = layer(rows, training=training)
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


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm_computes_what_keras_does(groups):
    keras.config.set_dtype_policy("float64")
    random = np.random.default_rng(0)
    # A mean far from 0: E[x^2] - E[x]^2 would cancel.
    inputs = tf.constant(random.normal(1e4, 1, (2, 5, 7, 6)))
    upstream = tf.constant(random.normal(size=(2, 5, 7, 6)))
    results = []
    for kind in (keras.layers.GroupNormalization, normalization.GroupNormalization):
        layer = kind(groups)
        layer.build((None, None, None, 6))
        layer.set_weights([np.arange(1.0, 7), np.arange(6.0)])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            total = tf.reduce_sum(outputs * upstream)
        sources = [inputs, *(v.value for v in layer.trainable_variables)]
        results.append([outputs, *tape.gradient(total, sources)])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_group_norm_computes_in_float32(policy):
    layer = normalization.GroupNormalization(2, dtype=policy)
    # In float16 the squares of these would be infinite.
    inputs = np.random.default_rng(0).normal(0, 1000, (2, 4, 4, 8))
    inputs = tf.cast(inputs, layer.compute_dtype)
    outputs = layer(inputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    exact = keras.layers.GroupNormalization(2)(tf.cast(inputs, tf.float32))
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), exact, rtol=1e-2)


@pytest.mark.parametrize(
    ("num_channels", "groups"),
    # 24 divides 48, but no number from 25 to 32 does; a group has two channels.
    [(256, 32), (64, 32), (48, 24), (16, 8), (6, 3), (7, 1), (1, 1)],
)
def test_groups_are_32_or_the_most_that_channels_can_be_shared_by(num_channels, groups):
    assert normalization.choose_groups(num_channels) == groups


def _build_norm_of_images(replicas, kind=normalization.BatchNormalization, **kwargs):
    """Builds a model whose batch norm sees the images, so that training moves nothing.

    A second norm, which is frozen, follows.
    """
    images = keras.Input((None, None, 3))
    features = keras.layers.Rescaling(1 / 255)(images)
    features = kind(synchronized=replicas > 1, name="norm", **kwargs)(features)
    frozen = kind(synchronized=replicas > 1, name="frozen", momentum=0.5)
    frozen.trainable = False
    logits = keras.layers.Conv2D(3, 1)(frozen(features))
    return keras.Model(images, logits)


def _statistics(model, name="norm"):
    norm = model.get_layer(name)
    return np.array([norm.moving_mean.numpy(), norm.moving_variance.numpy()])


def _expected_statistics(rig, num_steps, keep):
    """Returns what the moving statistics of `_build_norm_of_images` must be."""
    moving = np.array([[0.0] * 3, [1.0] * 3])
    for step in range(num_steps):
        ids = pipeline.step_ids(
            step,
            num_examples=len(rig.examples),
            global_batch_size=rig.batch_size,
            seed=rig.seed,
        )
        pixels = (rig.examples.images[ids] / 255.0).reshape(-1, 3)
        moving = keep(step) * moving + (1 - keep(step)) * np.array(
            [pixels.mean(axis=0), pixels.var(axis=0)]
        )
    return moving


@pytest.mark.parametrize(
    ("kind", "replicas", "policy"),
    [
        (normalization.BatchNormalization, 1, "float32"),  # The fused kernel.
        (normalization.BatchNormalization, 2, "float32"),
        (normalization.BatchNormalization, 1, "float64"),  # Keras' own path.
        (keras.layers.BatchNormalization, 1, "float32"),
        (keras.layers.BatchNormalization, 2, "float32"),
    ],
)
def test_momentum_rises_with_the_step_up_to_its_value(kind, replicas, policy):
    build = functools.partial(_build_norm_of_images, kind=kind, momentum=0.2)
    rig = helpers.Rig(
        helpers.make_store(), build=build, replicas=replicas, policy=policy
    )
    frozen = _statistics(rig.model, "frozen")
    # The limits of steps 0 to 3 are 1/10, 2/11 = 0.18, 3/12 = 0.25 and 4/13 = 0.31.
    kept = [1 / 10, 2 / 11, 0.2, 0.2]
    for num_steps in (1, 2, 4):
        rig.train(num_steps - int(rig.global_step.numpy()))
        np.testing.assert_allclose(
            _statistics(rig.model),
            _expected_statistics(rig, num_steps, keep=kept.__getitem__),
            rtol=1e-4,
        )
    np.testing.assert_array_equal(_statistics(rig.model, "frozen"), frozen)
    assert rig.model.get_layer("norm").momentum == 0.2  # A number again, to be saved.


def test_momentum_is_the_same_at_all_steps_without_warmup():
    build = functools.partial(_build_norm_of_images, momentum=0.2)
    rig = helpers.Rig(helpers.make_store(), build=build, average_warmup=False)
    rig.train(3)
    expected = _expected_statistics(rig, 3, keep=lambda step: 0.2)
    np.testing.assert_allclose(_statistics(rig.model), expected, rtol=1e-5)


def test_resumed_statistics_are_those_of_a_run_that_was_not_stopped(tmp_path):
    def make():
        return helpers.Rig(helpers.make_store(), optimizer="adam", ema_decay=0.99)

    def state(rig):
        return tf.train.Checkpoint(
            model=rig.model,
            optimizer=rig.optimizer,
            ema=rig.ema,
            global_step=rig.global_step,
        )

    through, stopped, resumed = make(), make(), make()
    through.train(6, steps_per_loop=6)
    stopped.train(3)
    path = state(stopped).write(str(tmp_path / "state"))
    state(resumed).read(path).assert_consumed()
    resumed.train(3, steps_per_loop=3)
    for actual, expected in zip(
        [*resumed.weights(), *(v.numpy() for v in resumed.ema.averages)],
        [*through.weights(), *(v.numpy() for v in through.ema.averages)],
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)


def test_training_adds_no_variable_to_a_checkpoint(tmp_path):
    rig = helpers.Rig(helpers.make_store(), replicas=2)

    def keys(name):
        path = tf.train.Checkpoint(model=rig.model).write(str(tmp_path / name))
        return tf.train.list_variables(path)

    before = keys("before")
    rig.train(1)
    assert keys("after") == before


def _build_slow_norm(replicas):
    """Builds a model whose batch norm keeps as much as MobileNetV2's."""
    return _build_norm_of_images(replicas, momentum=0.999)


def _train_short(**kwargs):
    """Trains from scratch for 40 steps.

    Returns:
      Accuracies: of the last step, as training counts it; of the whole set in inference
      mode; the same of the averaged weights.
    """
    rig = helpers.Rig(
        helpers.make_store(),
        build=_build_slow_norm,
        optimizer="adam",
        learning_rate=0.1,
        ema_decay=0.999,
        **kwargs,
    )

    def evaluate():
        logits = rig.model(rig.examples.images, training=False)
        return np.mean(np.argmax(logits, axis=-1) == rig.examples.labels)

    rig.train(39, steps_per_loop=39)
    rig.confusion.reset()
    rig.train(1)
    confusion = rig.confusion.counts()
    with rig.ema.applied():
        averaged = evaluate()
    return np.trace(confusion) / confusion.sum(), evaluate(), averaged


def test_a_short_run_from_scratch_evaluates_as_it_trains():
    trained, evaluated, averaged = _train_short()
    assert trained > 0.95
    assert evaluated > trained - 0.03
    assert averaged > trained - 0.03


def test_a_short_run_from_scratch_needs_warmup():
    """The control of the test above."""
    trained, evaluated, averaged = _train_short(average_warmup=False)
    assert trained > 0.95
    assert evaluated < trained - 0.1
    assert averaged < trained - 0.1
