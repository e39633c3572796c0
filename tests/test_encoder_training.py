"""How a trained encoder is trained, as settings say."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.sources import synthetic
from models import factory
from tests import helpers, shallow
from trainer import flags
from trainer.assembly import training
from trainer.steps import training as training_steps


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    shallow.shorten(monkeypatch)
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 4, "test": 2})
    # Traces the step ahead of it.
    monkeypatch.setattr(training_steps.TrainLoop, "prepare", lambda *args: None)


def _prepare(*arguments, weights="none"):
    config = flags.read_config(
        [
            "--model_dir=x",
            "--mode=train",
            "--image_size=32",
            "--encoder_alpha=0.35",
            f"--encoder_weights={weights}",
            "--nofreeze_encoder",
            "--decoder_filters=8,8,8,8",
            "--batch_size=2",
            "--optimizer=sgd",
            "--momentum=0",
            "--learning_rate=1",
            *arguments,
        ]
    ).config
    return training.prepare_training(
        config, helpers.make_strategy(1), tf.Variable(False, trainable=False)
    ).state


@pytest.mark.parametrize("multiplier", [1.0, 0.25])
def test_encoder_alone_has_a_multiple_of_the_learning_rate(multiplier):
    keras.utils.set_random_seed(0)
    state = _prepare(f"--encoder_lr_multiplier={multiplier}")
    variables = state.model.trainable_variables
    before = [variable.numpy() for variable in variables]

    state.optimizer.apply([tf.ones(v.shape) for v in variables], variables)

    encoder = {id(v) for v in factory.find_encoder(state.model).trainable_variables}
    assert 0 < len(encoder) < len(variables)
    for variable, value in zip(variables, before, strict=True):
        expected = value - (multiplier if id(variable) in encoder else 1)
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)


def _needed_for(encoder, num_maps):
    """Returns the places of the weights that the first maps depend on."""
    images = tf.random.stateless_uniform((1, 64, 64, 3), (1, 2), 0, 255)
    values = [weight.value for weight in encoder.weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        # In inference mode, the moving statistics count, too.
        maps = encoder(images, training=False)[:num_maps]
        total = tf.add_n([tf.reduce_sum(features) for features in maps])
    gradients = tape.gradient(total, values)
    return {index for index, value in enumerate(gradients) if value is not None}


@pytest.mark.parametrize("num_maps", [1, 3])
@pytest.mark.parametrize("encoder", ["mobilenet_v2", "mobilenet_v3_small"])
def test_exactly_the_layers_of_the_frozen_stages_stay(encoder, num_maps):
    keras.utils.set_random_seed(0)
    options = {"alpha": 0.35 if encoder == "mobilenet_v2" else 1.0}
    model = helpers.build_unet(
        size=64,
        encoder=encoder,
        encoder_options=options,
        freeze_encoder_stages=num_maps,
    )
    part = factory.find_encoder(model)
    frozen = _needed_for(part, num_maps)
    assert 0 < len(frozen) < len(part.weights)
    before = part.get_weights()
    images = tf.random.stateless_uniform((2, 64, 64, 3), (3, 4), 0, 255)

    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_sum(logits * tf.random.stateless_normal(logits.shape, (5, 6)))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.apply(gradients, variables)

    assert all(gradient is not None for gradient in gradients)
    moved = {
        index
        for index, (value, old) in enumerate(
            zip(part.get_weights(), before, strict=True)
        )
        if not np.array_equal(value, old)
    }
    assert moved == set(range(len(before))) - frozen


def test_number_of_frozen_stages_reaches_the_encoder(tmp_path):
    path = tmp_path / "encoder.weights.h5"
    shallow.write_weights(path)
    counts = [
        len(factory.find_encoder(state.model).trainable_variables)
        for state in (
            _prepare(f"--freeze_encoder_stages={n}", weights=path) for n in (0, 1, 4)
        )
    ]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3
