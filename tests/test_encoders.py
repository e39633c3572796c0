"""Every encoder computes what Keras' own network does, on any number of replicas."""

import functools
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import convolutions, encoders, layers, normalization, registry, scaling
from models.encoders import applications, cloning
from tests import helpers

ENCODERS = list(registry.ENCODERS)
SIZE = 64


def _draw_weights(model):
    """Gives all layers weights, statistics, scales and shifts that are no special case.

    Kernels keep their initial values, which keep the signal's size.
    """
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.axis and layer.get_weights()[0].shape
            layer.set_weights(
                [
                    random.uniform(0.7, 1.3, count),
                    random.normal(0, 0.3, count),
                    random.normal(0, 0.3, count),
                    random.uniform(0.7, 1.3, count),
                ]
            )
        elif getattr(layer, "bias", None) is not None:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, random.normal(0, 0.3, bias.shape)])


def _make_images(num_images=4, height=SIZE, width=SIZE, channels=3):
    shape = (num_images, height, width, channels)
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.float32)


@functools.cache
def _reference(name):
    """Returns Keras' network as its documentation has it, and its `preprocess_input`."""
    keras.utils.set_random_seed(0)
    make = applications.APPLICATIONS[name].make
    network = make(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    _draw_weights(network)
    return network, sys.modules[make.__module__].preprocess_input


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def build(folder):
    """Returns a function that builds an encoder for any size, of a file of weights."""

    @functools.cache
    def build_from_file(name):
        path = folder / f"{name}.weights.h5"
        _reference(name)[0].save_weights(path)
        return encoders.build_encoder(name, (None, None), weights=str(path))

    return build_from_file


def test_what_settings_know_is_what_there_is():
    assert list(applications.APPLICATIONS) == ENCODERS
    for name, part in registry.ENCODERS.items():
        assert len(applications.APPLICATIONS[name].maps) == len(part.strides)


@pytest.mark.parametrize("name", ENCODERS)
def test_features_are_those_of_keras_own_network(name, build):
    network, preprocess = _reference(name)
    rows = applications.APPLICATIONS[name].maps
    outputs = [applications.find_map(network, layer) for layer in rows]
    expected = keras.Model(network.inputs, outputs)(preprocess(_make_images()))

    model, strides = build(name)

    features = model(_make_images())
    assert strides == registry.ENCODERS[name].strides
    for feature, other, stride in zip(features, expected, strides, strict=True):
        assert feature.shape[1:3] == (SIZE // stride, SIZE // stride)
        tolerance = 1e-4 * np.std(other)
        assert tolerance > 0
        np.testing.assert_allclose(feature, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_odd_size_is_mirrored_up_to_a_multiple(name, build):
    model, strides = build(name)
    images = _make_images(1, 45, 70)
    multiple = max(strides)
    margins = [(-size) % multiple for size in (45, 70)]
    padded = np.pad(
        images, [(0, 0), (0, margins[0]), (0, margins[1]), (0, 0)], mode="reflect"
    )

    for feature, expected in zip(model(images), model(padded), strict=True):
        np.testing.assert_array_equal(feature, expected)


def _train_once(strategy, encoder, images):
    """Returns the gradients of a batch, summed over replicas, and moved statistics."""
    model = encoder.model
    random = np.random.default_rng(2)
    upstream = [
        random.normal(size=(len(images), *(SIZE // s for _ in "hw"), 1))
        for s in encoder.strides
    ]

    def step(batch):
        rows, *weights = batch
        with tf.GradientTape() as tape:
            features = model(rows, training=True)
            total = sum(
                tf.reduce_sum(f * tf.cast(w, f.dtype)) / w.shape[1]
                for f, w in zip(features, weights, strict=True)
            )
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    dataset = tf.data.Dataset.from_tensor_slices((images, *upstream))
    (batch,) = strategy.experimental_distribute_dataset(dataset.batch(len(images)))
    gradients = [
        strategy.reduce("SUM", gradient, axis=None)
        for gradient in strategy.run(step, (batch,))
    ]
    return gradients, [v.numpy() for v in model.non_trainable_variables]


@pytest.mark.parametrize("name", ENCODERS)
def test_two_replicas_train_as_one_from_the_same_checkpoint(name, build, tmp_path):
    single = build(name)
    path = tf.train.Checkpoint(model=single.model).write(str(tmp_path / "model"))
    strategy = helpers.make_strategy(2)
    with strategy.scope():
        double = encoders.build_encoder(
            name, (SIZE, SIZE), weights="none", synchronized=True
        )
        checkpoint = tf.train.Checkpoint(model=double.model)
        checkpoint.read(path).assert_consumed()

    expected = _train_once(helpers.make_strategy(1), single, _make_images())
    actual = _train_once(strategy, double, _make_images())

    for kind, others in zip(actual, expected, strict=True):
        assert len(kind) > 50
        for value, other in zip(kind, others, strict=True):
            scale = np.sqrt(np.mean(np.square(other)))
            np.testing.assert_allclose(value, other, rtol=0, atol=2e-2 * scale + 1e-4)
