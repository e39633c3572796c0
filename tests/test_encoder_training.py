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


def _prepare(*arguments):
    config = flags.read_config(
        [
            "--model_dir=x",
            "--mode=train",
            "--image_size=32",
            "--encoder_alpha=0.35",
            "--encoder_weights=none",
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
