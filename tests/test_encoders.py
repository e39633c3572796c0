"""Every encoder computes what Keras' own network does, on any number of replicas."""

import functools
import sys

import keras
import numpy as np
import pytest

from models import encoders, layers, registry, scaling
from models.encoders import applications, cloning
from models.fast import convolutions, normalization
from tests import helpers
from tests.matrix import round_trip

ENCODERS = list(registry.ENCODERS)
_LIKE_OTHERS = {
    "mobilenet_v3_large",
    "efficientnetv2_b1",
    "efficientnetv2_b2",
    "efficientnetv2_b3",
    "efficientnetv2_s",
    "resnet101",
    "resnet50_v2",
    "convnext_small",
    "densenet121",
}
"""Rows of nothing that others do not have: `--all-encoders` adds them."""
FAMILIES = [name for name in ENCODERS if name not in _LIKE_OTHERS]
SIZE = 32


def _draw_weights(model):
    """Gives all layers weights, statistics, scales and shifts that are no special case.

    Kernels keep their initial values, which keep the signal's size.
    """
    random = np.random.default_rng(5)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape
            layer.set_weights(
                [
                    random.uniform(0.7, 1.3, count),
                    random.normal(0, 0.3, count),
                    random.normal(0, 0.3, count),
                    random.uniform(0.7, 1.3, count),
                ]
            )
        elif getattr(layer, "gamma", None) is not None:  # Of ConvNeXt.
            gamma, *beta = layer.get_weights()
            beta = [random.normal(0, 0.3, gamma.shape) for _ in beta]
            layer.set_weights([random.uniform(0.7, 1.3, gamma.shape), *beta])
        elif getattr(layer, "bias", None) is not None:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, random.normal(0, 0.3, bias.shape)])


def _make_images(num_images=4, height=SIZE, width=SIZE, channels=3):
    shape = (num_images, height, width, channels)
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.float32)


_scale_as_imagenet = functools.partial(
    keras.applications.imagenet_utils.preprocess_input, mode="torch"
)


@functools.cache
def _reference(name):
    """Returns Keras' network, as its documentation has it, and `preprocess_input`."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float64")  # As all encoders here; see below.
    make = applications.APPLICATIONS[name].make
    network = make(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    _draw_weights(network)
    module = sys.modules[make.__module__]
    return network, getattr(module, "preprocess_input", _scale_as_imagenet)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module", autouse=True)
def _make_each_network_once():
    """Keeps Keras' networks, which take seconds to make: they are only read from."""
    with pytest.MonkeyPatch.context() as patch:
        helpers.remember_networks(patch)
        yield


@pytest.fixture(scope="module")
def build(folder):
    """Returns a function that builds an encoder for any size, of a file of weights.

    In float64: gradients through fifty batch norms of few pixels magnify rounding.
    """

    @functools.cache
    def build_from_file(name):
        path = folder / f"{name}.weights.h5"
        _reference(name)[0].save_weights(path)
        return encoders.build_encoder(name, (None, None), weights=str(path))

    return build_from_file


def pytest_generate_tests(metafunc):
    """Runs tests of a `name` for each encoder in turn, all tests of one together."""
    if "name" in metafunc.fixturenames:
        is_all = metafunc.config.getoption("--all-encoders")
        metafunc.parametrize("name", ENCODERS if is_all else FAMILIES, scope="module")


def test_what_settings_know_is_what_there_is():
    assert list(applications.APPLICATIONS) == ENCODERS
    for name, part in registry.ENCODERS.items():
        assert len(applications.APPLICATIONS[name].maps) == len(part.strides)


def test_features_are_those_of_keras_own_network(name, build):
    network, preprocess = _reference(name)
    rows = applications.APPLICATIONS[name].maps
    outputs = [applications.find_map(network, layer) for layer in rows]
    expected = keras.Model(network.input, outputs)(preprocess(_make_images()))

    model, strides = build(name)

    features = model(_make_images())
    assert strides == registry.ENCODERS[name].strides
    own = applications.make_network(name, (None, None), options={})
    # In one order: `--against=fit` hands the weights of one to the other.
    sizes = [[w.shape.num_elements() for w in each.weights] for each in (model, own)]
    assert sizes[0] == sizes[1]
    for feature, other, stride in zip(features, expected, strides, strict=True):
        assert feature.shape[1:3] == (SIZE // stride, SIZE // stride)
        tolerance = 1e-4 * np.std(other)
        assert tolerance > 0
        np.testing.assert_allclose(feature, other, rtol=0, atol=tolerance)


def test_biases_are_added_by_layers_of_this_package(name, build):
    """Keras' own have wrong gradients in bfloat16 on CPUs; see `models.fast.biases`."""
    model, _ = build(name)
    layers_of_keras = {
        type(layer)
        for layer in model._flatten_layers()
        if getattr(layer, "bias", None) is not None
        and type(layer).__module__.startswith("keras.")
    }
    assert layers_of_keras == set()


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


def test_a_run_trains_alike_on_two_replicas_and_gives_its_model_back(name, tmp_path):
    # This decoder uses every map.
    with round_trip.cheaply():
        round_trip.check(round_trip.Pair(name, "unet"), tmp_path / "run")


def _small_network(body, channels=3, size=8):
    """Makes a Keras network behind the scaling of images, and its copy."""
    images = keras.Input((size, size, channels))
    make = functools.partial(
        scaling.make_image_scaling, scaling.Scaling((127.5,), (1 / 127.5,)), multiple=2
    )
    network = keras.Model(images, body(make(scaling.Images(channels))(images)))
    _draw_weights(network)

    def clone(num_channels=channels, **kwargs):
        return cloning.clone_network(
            network,
            keras.Input((size, size, num_channels)),
            make(scaling.Images(num_channels)),
            **kwargs,
        )

    return network, clone


def _assert_copy_is_equal(network, copy):
    cloning.copy_weights(copy.pairs, (0, 1, 2))
    images = _make_images(2, 8, 8)
    actual, expected = (
        keras.tree.flatten(model(images)) for model in (copy.model, network)
    )
    for value, other in zip(actual, expected, strict=True):
        assert np.std(other) > 0
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5)


def _layers_of(model, kind):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_convolution_of_a_group_a_channel_becomes_a_depthwise_one(multiplier):
    def body(features):
        features = keras.layers.Conv2D(4, 1)(features)
        return keras.layers.Conv2D(
            4 * multiplier, 3, strides=2, groups=4, name="grouped"
        )(features)

    network, clone = _small_network(body)
    copy = clone()

    assert isinstance(copy.model.get_layer("grouped"), convolutions.DepthwiseConv2D)
    _assert_copy_is_equal(network, copy)


def test_nested_networks_and_bare_operations_are_copied():
    def body(features):
        block = keras.Sequential([keras.layers.Conv2D(4, 1), keras.layers.ReLU()])
        inner = keras.Input((None, None, 4))
        norm = keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 3)(inner))
        return keras.Model(inner, norm)(block(features) * 0.5 + 1.0)

    network, clone = _small_network(body)
    copy = clone(synchronized=True, bn_momentum=0.5)

    _assert_copy_is_equal(network, copy)
    (norm,) = _layers_of(copy.model, normalization.BatchNormalization)
    assert (norm.synchronized, norm.momentum, norm.is_folded) == (True, 0.5, True)
    assert len(_layers_of(copy.model, convolutions.Conv2D)) == 2
    originals = {id(layer) for layer in network._flatten_layers()}
    assert not originals & {id(layer) for layer in copy.model._flatten_layers()}


_CONV = functools.partial(keras.layers.Conv2D, 3, 1)
_NORM = functools.partial(keras.layers.BatchNormalization, name="norm")


def _norm_twice(features):
    shared, convolution = _NORM(), _CONV()
    return shared(convolution(shared(convolution(features))))


def _with_skip(features):
    features = _CONV()(features)
    return keras.layers.Add()([_NORM()(features), features])


@pytest.mark.parametrize(
    ("body", "is_folded"),
    [
        (lambda x: _NORM()(_CONV()(x)), True),
        (lambda x: _NORM()(keras.layers.DepthwiseConv2D(3)(x)), True),
        (lambda x: _NORM()(_CONV(activation="relu")(x)), False),
        (lambda x: _NORM()(keras.layers.ReLU()(_CONV()(x))), False),
        (_with_skip, False),
        (lambda x: [y := _CONV()(x), _NORM()(y)], False),  # Itself a feature map.
        (_norm_twice, False),
    ],
)
def test_a_norm_is_folded_where_nothing_else_reads_the_convolution(body, is_folded):
    network, clone = _small_network(body)
    copy = clone()

    _assert_copy_is_equal(network, copy)
    assert copy.model.get_layer("norm").is_folded == is_folded


def test_dropout_of_a_network_keeps_its_rate_and_gets_masks_of_its_own():
    def body(features):
        drop = keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1), name="drop")
        return keras.layers.Dropout(0.25, name="other")(drop(features))

    _, clone = _small_network(body)
    model = clone().model

    drop, other = _layers_of(model, layers.RowDropout)
    assert (drop.name, drop.rate, drop.noise_shape) == ("drop", 0.5, (None, 1, 1, 1))
    assert (other.name, other.rate, other.noise_shape) == ("other", 0.25, None)
    assert drop.stream != other.stream


def test_drop_connect_is_that_of_keras_unless_it_is_given():
    rates = {}
    for given in ({}, {"drop_connect": 0.1}, {"drop_connect": 0.0}):
        model, _ = encoders.build_encoder(
            "efficientnetv2_b0", (None, None), weights="none", options=given
        )
        drops = _layers_of(model, layers.RowDropout)
        rates[given.get("drop_connect")] = [drop.rate for drop in drops]
        assert {drop.noise_shape for drop in drops} == {(None, 1, 1, 1)}
    own = applications.make_network("efficientnetv2_b0", (None, None), options={})
    assert rates[None] == [d.rate for d in _layers_of(own, keras.layers.Dropout)]
    assert len(rates[None]) > 10 and 0.19 < max(rates[None]) <= 0.2
    np.testing.assert_allclose(rates[0.1], np.divide(rates[None], 2))
    assert not any(rates[0.0])


@pytest.mark.parametrize(
    ("encoder", "first"),
    [
        # Where the places of stride 32 lie: a depthwise convolution begins with its
        # second place, a 1x1 convolution with its first.
        ("mobilenet_v2", 1),
        ("resnet50", 0),
    ],
)
def test_dilated_maps_are_those_of_stride_32_at_more_places(encoder, first):
    keras.config.set_dtype_policy("float64")
    models = []
    for options in ({}, {"output_stride": 16}):
        model, strides = encoders.build_encoder(
            encoder, (None, None), weights="none", options=options
        )
        models.append(model)
    assert strides == (2, 4, 8, 16, 16)
    _draw_weights(models[0])
    models[1].set_weights(models[0].get_weights())
    images = _make_images(2, 96, 64)
    coarse, fine = (model(images) for model in models)

    for one, other in zip(coarse[:-1], fine[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert fine[-1].shape[1:3] == (6, 4)
    np.testing.assert_allclose(
        fine[-1][:, first::2, first::2], coarse[-1], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("encoder", ["mobilenet_v3_small", "efficientnetv2_b0"])
def test_the_last_stage_loses_its_stride(encoder):
    model, strides = encoders.build_encoder(
        encoder, (64, 64), weights="none", options={"output_stride": 16}
    )
    assert strides[-1] == 16
    assert [m.shape[1] for m in model.outputs] == [32, 16, 8, 4, 4]
    rates = {c.dilation_rate for c in _layers_of(model, convolutions.DepthwiseConv2D)}
    assert rates == {(1, 1), (2, 2)}


def test_one_channel_is_taken_as_grey_and_more_as_colours_in_turn():
    network, clone = _small_network(lambda x: _CONV(name="first")(x))
    kernel, bias = network.get_layer("first").get_weights()
    for channels in (1, 2, 4):
        copy = clone(num_channels=channels)
        cloning.copy_weights(copy.pairs, (2, 1, 0))  # The network's first is blue.

        adapted, same = copy.model.get_layer("first").get_weights()

        if channels == 1:
            expected = kernel.sum(axis=2, keepdims=True)
        else:
            expected = kernel[:, :, [2, 1, 0, 2][:channels]] * 3 / channels
        np.testing.assert_allclose(adapted, expected, rtol=1e-6)
        np.testing.assert_array_equal(same, bias)


def test_an_encoder_of_four_channels_is_built_of_a_file_for_three(build, folder):
    name = "mobilenet_v2"
    build(name)
    path = str(folder / f"{name}.weights.h5")

    four = encoders.build_encoder(
        name, (SIZE, SIZE), images=scaling.Images(4), weights=path
    )

    assert four.model.input_shape == (None, SIZE, SIZE, 4)
    first = four.model.get_layer("Conv1").kernel
    original = _reference(name)[0].get_layer("Conv1").kernel
    np.testing.assert_allclose(
        first, original.numpy()[:, :, [0, 1, 2, 0]] * 0.75, rtol=1e-6
    )


def test_options_that_an_encoder_does_not_take_are_refused():
    with pytest.raises(
        ValueError, match="resnet50 does not take alpha; it takes output_stride"
    ):
        encoders.build_encoder("resnet50", (32, 32), options={"alpha": 0.5})
