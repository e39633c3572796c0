"""Dropout draws for each replica, and goes on after a resume."""

import keras
import numpy as np
import tensorflow as tf

from models import layers
from tests import helpers


def _masks(replicas, steps, rate=0.5):
    """Returns what dropout leaves of ones, [steps, replicas, 64]."""
    keras.utils.set_random_seed(1)
    strategy = helpers.make_strategy(replicas)
    with strategy.scope():
        layer = layers.ReplicaDropout(rate)
    draw = tf.function(
        lambda: strategy.run(lambda: layer(tf.ones([64]), training=True))
    )
    return np.array(
        [[v.numpy() for v in strategy.experimental_local_results(draw())]
         for _ in range(steps)]
    )  # fmt: skip


def test_masks_differ_between_replicas_and_steps():
    masks = _masks(2, 2).reshape(4, 64)
    assert len(np.unique(masks, axis=0)) == 4


def test_a_seed_gives_the_same_masks_again():
    np.testing.assert_array_equal(_masks(2, 3), _masks(2, 3))


def test_what_is_left_is_scaled_to_keep_the_mean():
    masks = _masks(1, 100, rate=0.75)
    assert set(np.unique(masks)) == {0.0, 4.0}
    np.testing.assert_allclose(masks.mean(), 1.0, atol=0.1)


def test_nothing_is_dropped_in_inference():
    inputs = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(layers.ReplicaDropout(0.5)(inputs), inputs)
