"""Gradients of biases are whole sums, in bfloat16 on CPUs too."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import encoders, registry
from models.fast import convolutions, dense, devices
from tests import shallow
from trainer.benchmarking import measuring

_LAYERS = {
    "convolution": lambda: convolutions.Conv2D(3, 1),
    "depthwise": lambda: convolutions.DepthwiseConv2D(1),
    "transposed": lambda: convolutions.Conv2DTranspose(3, 1, padding="same"),
    "dense": lambda: dense.Dense(3),
}


def _bias_sums(function, *specs):
    """Lists the types in which TensorFlow's own kernel sums gradients of biases."""
    ops = measuring.executed_ops(function, *specs)
    return [op.get_attr("T") for op in ops if op.type == "BiasAddGrad"]


def _differentiate(layer, features, upstream):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.cast(layer(features), tf.float32) * upstream)
    return tape.gradient(total, layer.bias.value)


@pytest.mark.parametrize("kind", _LAYERS)
def test_the_gradient_of_a_bias_is_the_sum_over_all_positions(kind):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = _LAYERS[kind]()
    random = np.random.default_rng(0)
    features = tf.cast(random.normal(size=(4, 64, 64, 3)), tf.bfloat16)
    # Each is exact in bfloat16; all 16,384 of a channel come to 4,000 to 6,000.
    upstream = random.integers(-1, 2, (4, 64, 64, 3)) + np.float32([0.25, 0.5, 0.75])
    features = [features] if kind == "transposed" else features
    layer(features)

    gradient = _differentiate(layer, features, upstream.astype(np.float32))

    assert gradient.dtype == tf.float32
    expected = upstream.sum((0, 1, 2))
    np.testing.assert_allclose(gradient, expected, rtol=0.004)


@pytest.mark.parametrize(
    ("policy", "is_on_cpu", "kernels"),
    [
        ("float32", True, [tf.float32]),
        ("mixed_float16", True, [tf.float16]),
        ("mixed_bfloat16", True, []),
        ("mixed_bfloat16", False, [tf.bfloat16]),
    ],
)
def test_other_types_and_devices_have_tensorflows_own_sum(
    policy, is_on_cpu, kernels, monkeypatch
):
    monkeypatch.setattr(devices, "is_on_cpu", lambda: is_on_cpu)
    keras.config.set_dtype_policy(policy)
    layer = dense.Dense(3)
    spec = tf.TensorSpec([1, 4, 4, 3], layer.compute_dtype)
    layer.build(spec.shape)
    assert _bias_sums(lambda x: _differentiate(layer, x, 2.0), spec) == kernels


@pytest.mark.parametrize("kind", ["convolution", "dense"])
@pytest.mark.parametrize("reason", ["frozen", "inference"])
def test_a_bias_that_is_not_trained_can_be_joined_with_the_op_before(kind, reason):
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = _LAYERS[kind]()
    layer.build((1, 4, 4, 3))
    layer.trainable = reason != "frozen"
    training = reason != "inference"
    spec = tf.TensorSpec([1, 4, 4, 3], tf.bfloat16)
    ops = measuring.executed_ops(lambda x: layer(x, training=training), spec)
    assert "IdentityN" not in {op.type for op in ops}


@pytest.mark.parametrize("decoder", registry.DECODERS)
@pytest.mark.usefixtures("pix2pix")
def test_every_decoder_has_the_whole_gradients_of_its_biases(decoder):
    keras.config.set_dtype_policy("mixed_bfloat16")
    strides = (4, 8, 16, 32)
    maps = [keras.Input((64 // stride, 64 // stride, 4)) for stride in strides]
    filters = [4 for _ in registry.default_filters(decoder, strides)]
    logits = registry.load_decoder(decoder)(maps, strides, 3, filters=filters)
    model = keras.Model(maps, logits)
    random = np.random.default_rng(0)
    features = [
        tf.constant(random.normal(size=(16, *each.shape[1:])), tf.bfloat16)
        for each in maps
    ]
    upstream = random.normal(0.2, 1, (16, 64, 64, 3)).astype(np.float32)
    names = [v.path for v in model.trainable_variables]
    (place,) = (i for i, name in enumerate(names) if name.endswith("logits/bias"))

    @tf.function
    def differentiate(*features):
        values = [v.value for v in model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            logits = tf.cast(model(features, training=True), tf.float32)
            total = tf.reduce_sum(logits * upstream)
        return tape.gradient(total, values)

    # Whatever enlarges logits, each adds its bias to every pixel.
    gradient = differentiate(*features)[place]
    np.testing.assert_allclose(gradient, upstream.sum((0, 1, 2)), rtol=0.01)
    specs = [tf.TensorSpec(each.shape, each.dtype) for each in features]
    assert _bias_sums(differentiate.python_function, *specs) == []


def test_a_trained_encoder_has_the_whole_gradients_of_its_biases(monkeypatch):
    shallow.shorten_convnext(monkeypatch)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, _ = encoders.build_encoder("convnext_tiny", (64, 64), weights="none")

    def differentiate(images):
        values = [v.value for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            maps = model(images, training=True)
            total = tf.add_n([tf.reduce_sum(tf.cast(m, tf.float32)) for m in maps])
        return tape.gradient(total, values)

    assert _bias_sums(differentiate, tf.TensorSpec([1, 64, 64, 3])) == []
