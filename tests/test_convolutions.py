"""The convolutions compute what Keras' do, and leave out what nobody asks for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.fast import convolutions, devices, normalization
from tests import helpers
from trainer.benchmarking import measuring


def _random(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def _fill(layers):
    """Gives the weights of all layers values that are no special case."""
    random = np.random.default_rng(1)
    for layer in layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        layer.set_weights([random.uniform(0.5, 2, shape) for shape in shapes])


@pytest.fixture
def float64():
    keras.config.set_dtype_policy("float64")


_CONVOLUTIONS = [
    (convolutions.Conv2D, {"filters": 6, "kernel_size": 3, "padding": "same"}),
    (convolutions.Conv2D, {"filters": 6, "kernel_size": 1, "use_bias": False}),
    (convolutions.Conv2D, {"filters": 4, "kernel_size": 3, "strides": 2}),
    (convolutions.Conv2D, {"filters": 6, "kernel_size": 3, "groups": 3}),
    (convolutions.DepthwiseConv2D, {"kernel_size": 3, "padding": "same"}),
    (convolutions.DepthwiseConv2D, {"kernel_size": 3, "strides": 2}),
    (convolutions.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}),
]


@pytest.mark.parametrize(("kind", "settings"), _CONVOLUTIONS)
@pytest.mark.parametrize("trainable", [False, True])
def test_folded_batch_norm_gives_what_the_two_layers_give(
    kind, settings, trainable, float64
):
    inputs = _random([2, 7, 8, 3])
    plain_kind = getattr(keras.layers, kind.__name__)
    pairs = []
    for conv, norm in (
        (kind(**settings), normalization.BatchNormalization()),
        (plain_kind(**settings), keras.layers.BatchNormalization()),
    ):
        norm(conv(inputs))
        _fill((conv, norm))
        norm.trainable = trainable
        pairs.append((conv, norm))
    (conv, norm), (plain_conv, plain_norm) = pairs
    conv.fold(norm)
    for training in (False, True):
        expected = plain_norm(plain_conv(inputs), training=training)
        features = conv(inputs, training=training)
        actual = norm(features, training=training)
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)
        assert np.array_equal(features, actual) == (not (training and trainable))
    names = [[w.path.split("/")[-1] for w in c.weights] for c in (conv, plain_conv)]
    assert names[0] == names[1]


def test_groups_are_convolved_on_two_replicas_of_a_cpu():
    strategy = helpers.make_strategy(2)
    inputs = tf.random.stateless_normal([2, 5, 6, 4], (1, 2))
    with strategy.scope():
        conv = convolutions.Conv2D(6, 3, groups=2)
        conv.build(inputs.shape)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = conv(inputs)
            total = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(total, conv.kernel.value)

    plain = keras.layers.Conv2D(6, 3, groups=2)
    plain.build(inputs.shape)
    plain.set_weights(conv.get_weights())
    with tf.GradientTape() as tape:
        expected = plain(inputs)
        total = tf.reduce_sum(expected**2)
    expected = (expected, tape.gradient(total, plain.kernel.value))
    for values, other in zip(strategy.run(step), expected, strict=True):
        for value in strategy.experimental_local_results(values):
            np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-4)


def test_convolution_of_several_maps_is_that_of_the_maps_joined(float64):
    maps = [_random([2, 5, 6, channels], channels) for channels in (1, 3, 2)]
    settings = {"filters": 4, "kernel_size": 3, "padding": "same"}
    conv, plain = convolutions.JoinedConv2D(**settings), keras.layers.Conv2D(**settings)
    results = []
    for layer, inputs in ((conv, maps), (plain, tf.concat(maps, -1))):
        layer(inputs)
        _fill([layer])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            total = tf.reduce_sum(outputs**2)
        values = [v.value for v in layer.trainable_variables]
        of_inputs, of_weights = tape.gradient(total, (inputs, values))
        if layer is conv:
            of_inputs = tf.concat(of_inputs, -1)
        results.append([outputs, of_inputs, *of_weights])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)
    shapes = [tuple(features.shape) for features in maps]
    assert tuple(conv.compute_output_shape(shapes)) == (2, 5, 6, 4)


def test_a_gpu_folds_nothing(monkeypatch):
    """Each small op that folds takes it longer than a pass over a feature map."""
    monkeypatch.setattr(devices, "is_on_cpu", lambda: False)
    inputs = _random([1, 4, 4, 2])
    conv, norm = convolutions.Conv2D(3, 1), normalization.BatchNormalization()
    norm(conv(inputs))
    _fill((conv, norm))
    conv.fold(norm)
    infer = tf.function(lambda: norm(conv(inputs, training=False), training=False))
    graph = infer.get_concrete_function().graph
    kinds = [op.type for op in graph.get_operations()]
    assert "FusedBatchNormV3" in kinds and "Rsqrt" not in kinds


def test_folding_follows_the_moving_statistics(float64):
    inputs = _random([1, 4, 4, 2])
    conv = convolutions.Conv2D(3, 1)
    norm = normalization.BatchNormalization()
    before = norm(conv(inputs))
    conv.fold(norm)
    norm.moving_mean.assign([1, 2, 3])
    expected = before - np.array([1, 2, 3]) / np.sqrt(1 + norm.epsilon)
    np.testing.assert_allclose(norm(conv(inputs)), expected, rtol=1e-12)


def test_a_folded_kernel_is_rounded_to_bfloat16_once():
    keras.config.set_dtype_policy("mixed_bfloat16")
    conv = convolutions.Conv2D(1, 1, use_bias=False)
    norm = normalization.BatchNormalization(epsilon=1e-9)
    norm(conv(tf.ones([1, 1, 1, 1])))
    conv.fold(norm)
    # 1.005 alone is rounded to 1.0078; times 0.998 it is 1.00299, nearest to 1.
    conv.kernel.assign([[[[1.005]]]])
    norm.gamma.assign([0.998])
    assert float(norm(conv(tf.ones([1, 1, 1, 1])))[0, 0, 0, 0]) == 1.0


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_gradients_in_bfloat16_are_those_of_keras_own_layer(strides, size, padding):
    keras.config.set_dtype_policy("mixed_bfloat16")
    settings = {"strides": strides, "padding": padding, "depth_multiplier": 2}
    inputs = tf.cast(_random([2, 9, 8, 3]), tf.bfloat16)
    results = []
    for kind in (convolutions.DepthwiseConv2D, keras.layers.DepthwiseConv2D):
        conv = kind(size, **settings)
        conv.build(inputs.shape)
        conv.kernel.assign(_random(conv.kernel.shape))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = conv(inputs)
            total = tf.reduce_sum(outputs * tf.cast(_random(outputs.shape), "bfloat16"))
        results.append([outputs, *tape.gradient(total, [inputs, conv.kernel.value])])
    for value, expected in zip(*results, strict=True):
        assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(
            tf.cast(value, tf.float32),
            tf.cast(expected, tf.float32),
            atol=0.02 * np.abs(tf.cast(expected, tf.float32)).max(),
        )


@pytest.mark.parametrize(
    ("size", "strides", "to_input", "to_kernel"),
    [
        (3, 1, tf.bfloat16, tf.bfloat16),
        (3, 2, tf.float32, tf.bfloat16),
        (5, 1, tf.bfloat16, tf.float32),
    ],
)
def test_slow_gradients_in_bfloat16_are_computed_in_float32(
    size, strides, to_input, to_kernel
):
    keras.config.set_dtype_policy("mixed_bfloat16")
    conv = convolutions.DepthwiseConv2D(size, strides=strides)
    conv.build((1, 8, 8, 3))

    @tf.function
    def differentiate(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(conv(inputs))
        return tape.gradient(total, [inputs, conv.kernel.value])

    graph = differentiate.get_concrete_function(
        tf.TensorSpec([1, 8, 8, 3], tf.bfloat16)
    ).graph
    kinds = {
        op.type: op.get_attr("T")
        for op in graph.get_operations()
        if "T" in op.node_def.attr
    }
    assert kinds["DepthwiseConv2dNativeBackpropInput"] == to_input
    assert kinds["DepthwiseConv2dNativeBackpropFilter"] == to_kernel


def _build_pair(filters, channels, **settings):
    """Returns our transposed convolution and Keras', of the same weights."""
    settings = {"kernel_size": 3, "strides": 2, "padding": "same", **settings}
    ours = convolutions.Conv2DTranspose(filters, **settings)
    theirs = keras.layers.Conv2DTranspose(filters, **settings)
    ours.build([(None, None, None, c) for c in channels])
    theirs.build((None, None, None, sum(channels)))
    _fill((ours,))
    theirs.set_weights(ours.get_weights())
    return ours, theirs


@pytest.mark.parametrize("channels", [(4,), (3, 5), (2, 1, 3)])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("height, width", [(3, 5), (8, 8), (8, 9)])
@pytest.mark.parametrize("filters", [3, 4, 5])
def test_joined_inputs_give_values_and_gradients_of_their_concatenation(
    channels, use_bias, height, width, filters, float64
):
    """Up to 4 filters, and from 65 positions on, other ops compute them."""
    ours, theirs = _build_pair(filters, channels, use_bias=use_bias)
    inputs = [_random([2, height, width, c], seed=c) for c in channels]
    weights = _random([2, 2 * height, 2 * width, filters])
    results = []
    for layer, join in ((ours, list), (theirs, lambda maps: tf.concat(maps, -1))):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(join(inputs))
            total = tf.reduce_sum(tf.sin(outputs) * weights)
        variables = [v.value for v in layer.trainable_variables]
        results.append([outputs, *tape.gradient(total, [*inputs, *variables])])
    assert len(results[0]) == 2 + len(channels) + use_bias
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "settings", [{"kernel_size": 2}, {"kernel_size": 5}, {"strides": 1}]
)
def test_few_channels_of_other_kernels_and_strides(settings, float64):
    ours, theirs = _build_pair(2, (3, 5), **settings)
    inputs = [_random([1, 4, 5, c], seed=c) for c in (3, 5)]
    expected = theirs(tf.concat(inputs, -1))
    np.testing.assert_allclose(ours(inputs), expected, rtol=1e-11, atol=1e-11)


def test_output_shape_is_that_of_the_concatenation():
    ours, theirs = _build_pair(6, (3, 5))
    shapes = [(2, 4, 8, 3), (2, 4, 8, 5)]
    assert tuple(ours.compute_output_shape(shapes)) == (2, 8, 16, 6)
    assert tuple(theirs.compute_output_shape((2, 4, 8, 8))) == (2, 8, 16, 6)


def _gradient_convolutions(names_to_watch):
    """Lists the channels of the convolutions that a gradient graph needs."""
    layer, _ = _build_pair(6, (3, 5))

    def gradients(features, skip):
        tensors = {"features": features, "skip": skip}
        watched = [tensors[name] for name in names_to_watch]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            total = tf.reduce_sum(tf.square(layer([features, skip])))
        return tape.gradient(total, [*watched, layer.kernel.value])

    spec = [tf.TensorSpec([1, 4, 4, c]) for c in (3, 5)]
    ops = measuring.executed_ops(gradients, *spec)
    return sorted(op.outputs[0].shape[-1] for op in ops if op.type == "Conv2D")


def test_an_input_whose_gradient_nobody_needs_costs_no_convolution():
    assert _gradient_convolutions(["features", "skip"]) == [3, 5]
    assert _gradient_convolutions(["features"]) == [3]
    assert _gradient_convolutions([]) == []


@pytest.mark.parametrize("is_on_cpu", [True, False])
def test_a_doubling_on_a_gpu_is_tensorflows_own(monkeypatch, is_on_cpu):
    monkeypatch.setattr(devices, "is_on_cpu", lambda: is_on_cpu)
    conv = convolutions.Conv2DTranspose(3, 3, strides=2, padding="same")
    conv.build([(1, 4, 4, 8)])

    @tf.function
    def differentiate(inputs):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(conv([inputs]))
        return tape.gradient(total, conv.kernel.value)

    spec = tf.TensorSpec([1, 4, 4, 8])
    ops = differentiate.get_concrete_function(spec).graph.get_operations()
    kinds = {op.type for op in ops}
    assert ("DepthToSpace" in kinds) == is_on_cpu
    assert ("ExtractImagePatches" in kinds) == is_on_cpu
    assert ("Conv2DBackpropFilter" in kinds) == (not is_on_cpu)
