"""An encoder that is trained from a later step on.

What it is held against is written out by hand: Keras' own optimizers, one for the
decoder, and one for the encoder that begins at the switch.
"""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from models import factory
from models.fast import convolutions, normalization
from tests import helpers
from trainer.optimizing import late_starts, optimization, schedules
from trainer.settings import config

_START = 3


def _build(replicas=1, freeze_encoder=False):
    """Builds an encoder of two stages, the first one frozen for good, and a decoder."""
    norms = {"synchronized": replicas > 1}
    inputs = keras.Input((32, 32, 3))
    features, maps = keras.layers.Rescaling(1 / 127.5, -1)(inputs), []
    for _ in range(2):
        convolution = convolutions.Conv2D(
            8, 3, strides=2, padding="same", use_bias=False
        )
        norm = normalization.BatchNormalization(momentum=0.99, **norms)
        convolution.fold(norm)
        features = keras.layers.ReLU()(norm(convolution(features)))
        maps.append(features)
    encoder = keras.Model(inputs, maps, name="encoder")
    encoder.trainable = not freeze_encoder
    for layer in keras.Model(inputs, maps[0]).layers:
        layer.trainable = False
    images = keras.Input((32, 32, 3))
    fine, coarse = encoder(images)
    features = keras.layers.UpSampling2D(2)(coarse)
    features = keras.layers.Concatenate()([features, fine])
    features = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(features)
    features = normalization.BatchNormalization(momentum=0.9, **norms)(features)
    features = keras.layers.UpSampling2D(2)(keras.layers.ReLU()(features))
    logits = keras.layers.Conv2D(3, 3, padding="same")(features)
    logits = keras.layers.Activation("linear", dtype="float32")(logits)
    return keras.Model(images, logits)


def _make_rig(**kwargs):
    settings = {
        "build": _build,
        "encoder_start": _START,
        "optimizer": "adam",
        "learning_rate": 0.01,
    }
    return helpers.Rig(helpers.make_store(), **{**settings, **kwargs})


def _assert_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def _keras_optimizer(name, learning_rate, weight_decay):
    kind = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "lion": keras.optimizers.Lion,
    }[name]
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    optimizer = kind(learning_rate, weight_decay=weight_decay or None, **momentum)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _train_by_hand(model, batches, name, *, weight_decay, clipnorm):
    """Trains as the loop is to do; returns the norms of the gradients."""
    encoder = factory.find_encoder(model)
    late = encoder.trainable_variables
    early = [v for v in model.trainable_variables if all(v is not w for w in late)]
    own_trainable = [(layer, layer.trainable) for layer in encoder.layers]
    own_momenta = {
        layer: (layer in encoder.layers, layer.momentum)
        for layer in (*encoder.layers, *model.layers)
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    optimizers = [_keras_optimizer(name, rate, weight_decay) for rate in (0.01, 0.005)]
    norms = []
    for step, batch in enumerate(batches):
        is_late = step >= _START
        encoder.trainable = is_late
        for layer, is_trained in own_trainable:
            layer.trainable = is_late and is_trained
        for layer, (is_of_encoder, momentum) in own_momenta.items():
            t = max(step - _START, 0) if is_of_encoder else step
            layer.momentum = min(momentum, (1 + t) / (10 + t))
        groups = [early, late] if is_late else [early]
        variables = [v for group in groups for v in group]
        with tf.GradientTape() as tape:
            logits = model(tf.cast(batch["image"], tf.float32), training=True)
            losses = keras.losses.sparse_categorical_crossentropy(
                batch["label"], logits, from_logits=True
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [v.value for v in variables])
        gradients, norm = tf.clip_by_global_norm(gradients, clipnorm)
        norms.append(float(norm))
        for group, optimizer in zip(groups, optimizers, strict=False):
            of_group = [
                g
                for g, v in zip(gradients, variables, strict=True)
                if any(v is w for w in group)
            ]
            optimizer.apply(of_group, group)
    return norms


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion"])
def test_a_late_encoder_is_that_of_two_runs_by_hand(name):
    weight_decay = 0.0 if name == "adam" else 0.5
    decay = {"weight_decay": weight_decay} if weight_decay else {}
    rig = _make_rig(
        optimizer=name,
        optimizer_settings=decay,
        global_clipnorm=0.05,
        encoder_lr_multiplier=0.5,
    )
    model = _build()
    model.set_weights(rig.model.get_weights())
    dataset = pipeline.make_train_dataset(
        rig.examples, global_batch_size=rig.batch_size, seed=rig.seed
    )
    expected = _train_by_hand(
        model, dataset.take(6), name, weight_decay=weight_decay, clipnorm=0.05
    )

    norms = []
    for _ in range(6):
        rig.train(1)
        norms.append(float(rig.result.gradient_norm))

    np.testing.assert_allclose(norms, expected, rtol=1e-3)
    for ours, theirs in zip(rig.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5)
    assert int(rig.optimizer.iterations.numpy()) == 6


def _steps_of_encoder(rig):
    """Returns how many updates the encoder has had."""
    encoder = factory.find_encoder(rig.model)
    return int(rig.optimizer.updates_of(encoder.trainable_variables[0]).numpy())


@pytest.mark.parametrize(("replicas", "num_parts"), [(1, 1), (2, 2)])
def test_until_the_switch_a_step_is_that_of_a_frozen_encoder(replicas, num_parts):
    kwargs = {
        "replicas": replicas,
        "num_parts": num_parts,
        "optimizer": "adamw",
        "optimizer_settings": {"weight_decay": 0.5},
        "ema_decay": 0.9,
        "global_clipnorm": 0.05,
    }
    late = _make_rig(**kwargs)
    frozen = _make_rig(
        **kwargs, encoder_start=0, build=lambda replicas: _build(replicas, True)
    )
    encoder = factory.find_encoder(late.model)
    before = encoder.get_weights()
    assert len(encoder.trainable_variables) == 3  # Of the second stage.

    assert late.train(3, steps_per_loop=3) == frozen.train(3, steps_per_loop=3)

    _assert_equal(encoder.get_weights(), before)
    _assert_equal(late.model.get_weights(), frozen.model.get_weights())
    _assert_equal(
        [average.numpy() for average in late.ema.averages],
        [average.numpy() for average in frozen.ema.averages],
    )
    assert float(late.result.gradient_norm) == float(frozen.result.gradient_norm)
    assert _steps_of_encoder(late) == 0
    # Not forgotten after the trace of the frozen step.
    assert len(encoder.trainable_variables) == 3


def _count_traces(rig):
    return [
        phase.loop.run.experimental_get_tracing_count() for phase in rig.loop.phases
    ]


def test_a_device_loop_ends_at_the_switch():
    rig = _make_rig()
    iterator = rig.batches()
    rig.loop.prepare(iterator, _START)
    assert _count_traces(rig) == [0, 1]
    for end in (_START, 8):
        rig.loop.run(iterator, tf.constant(8 - int(rig.global_step.numpy())))
        assert int(rig.global_step.numpy()) == end
    assert _steps_of_encoder(rig) == 8 - _START
    assert _count_traces(rig) == [1, 1]


def test_until_the_switch_the_graph_is_that_of_a_frozen_encoder():
    def count_ops(phase, rig):
        traced = phase.loop.run.get_concrete_function(rig.batches(), tf.constant(1))
        graph = traced.graph.as_graph_def()
        return Counter(node.op for f in graph.library.function for node in f.node_def)

    late = _make_rig()
    frozen = _make_rig(encoder_start=0, build=lambda replicas: _build(replicas, True))
    before, after = (count_ops(phase, late) for phase in late.loop.phases)
    assert before == count_ops(*frozen.loop.phases, frozen)
    # A kernel, a batch norm of a batch, and three variables more are trained then.
    kinds = ("Conv2DBackpropFilter", "FusedBatchNormV3", "ResourceApplyAdam")
    assert [after[kind] - before[kind] for kind in kinds] == [1, 1, 3]


@pytest.mark.parametrize(
    "settings",
    [{"num_parts": 2}, {"policy": "mixed_float16"}],
)
def test_replicas_train_as_one_device(settings):
    one, two = (
        _make_rig(replicas=n, optimizer="sgd", flip=True, **settings) for n in (1, 2)
    )
    for steps in (_START, 3):
        rtol = 2e-3 if "policy" in settings else 2e-5
        np.testing.assert_allclose(
            two.train(steps, steps_per_loop=steps),
            one.train(steps, steps_per_loop=steps),
            rtol=rtol,
        )
    assert [_steps_of_encoder(rig) for rig in (one, two)] == [3, 3]


def test_an_update_that_float16_skips_is_no_step_of_the_encoder():
    rig = _make_rig(policy="mixed_float16")
    rig.train(_START)
    scale = float(rig.loss_scale.scale.numpy())
    rig.loss_scale.scale.assign(2.0**120)
    rig.train(1)
    assert (_steps_of_encoder(rig), int(rig.global_step.numpy())) == (0, _START + 1)
    rig.loss_scale.scale.assign(scale)
    rig.train(1)
    assert _steps_of_encoder(rig) == 1
    assert int(rig.optimizer.iterations.numpy()) == _START + 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Returns a folder of checkpoints of a run, by step, and what it ends with."""
    folder = tmp_path_factory.mktemp("undisturbed")
    rig = _make_rig(ema_decay=0.9)
    for step in range(1, _START + 2):
        rig.train(1)
        tf.train.Checkpoint(**rig.state.to_save()).write(str(folder / f"{step}"))
    rig.train(1)
    return folder, rig.weights()


@pytest.mark.parametrize("step", [_START - 1, _START, _START + 1])
def test_a_run_goes_on_from_a_checkpoint_before_and_after_the_switch(step, undisturbed):
    folder, expected = undisturbed
    rig = _make_rig(ema_decay=0.9)
    tf.train.Checkpoint(**rig.state.to_save()).read(
        f"{folder}/{step}"
    ).assert_consumed()
    rig.train(_START + 2 - step)
    _assert_equal(rig.weights(), expected)


def test_every_optimizer_can_start_variables_late():
    for name in config.fields_by_name()["optimizer"].metadata["choices"]:
        schedule = schedules.WarmupSchedule(0.1, decay="constant", num_steps=10)
        optimizer = optimization.build_optimizer(name, schedule)
        assert isinstance(optimizer, late_starts.LateStart)
