"""Every decoder gives logits at the images' size, from any strides, on any replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import layers, registry
from models.fast import normalization
from tests import helpers

SIZE = 64
PYRAMIDS = {
    "from 2": (2, 4, 8, 16, 32),
    "from 4": (4, 8, 16, 32),
    "at output stride 16": (2, 4, 8, 16, 16),
}


@pytest.fixture(params=list(registry.DECODERS))
def decoder(request):
    """Returns the name of each decoder in turn."""
    if request.param == "tensorflow_examples":
        request.getfixturevalue("pix2pix")
    return request.param


def _build(decoder, strides, synchronized=False, is_known=True):
    """Builds a model from feature maps of 3 channels to logits of 4 classes."""
    sizes = [SIZE // stride if is_known else None for stride in strides]
    features = [keras.Input((size, size, 3)) for size in sizes]
    count = len(registry.DECODERS[decoder].default_filters(strides))
    filters = (8, 6, 4, 4)[:count]
    logits = registry.load_decoder(decoder)(
        features, strides, 4, filters=filters, synchronized=synchronized
    )
    return keras.Model(features, logits)


def _draw_features(strides, num_rows=4):
    random = np.random.default_rng(3)
    return [
        random.normal(size=(num_rows, SIZE // s, SIZE // s, 3)).astype(np.float32)
        for s in strides
    ]


@pytest.mark.parametrize("strides", PYRAMIDS.values(), ids=PYRAMIDS)
def test_logits_have_the_size_of_the_images(decoder, strides):
    assert _build(decoder, strides).output_shape == (None, SIZE, SIZE, 4)
    model = _build(decoder, strides, is_known=False)
    assert model(_draw_features(strides)).shape == (4, SIZE, SIZE, 4)


@pytest.mark.parametrize("strides", PYRAMIDS.values(), ids=PYRAMIDS)
def test_every_map_that_a_decoder_uses_has_a_say(decoder, strides):
    model = _build(decoder, strides)
    features = [tf.constant(f) for f in _draw_features(strides)]
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(model(features, training=True) ** 2)
    used = [g is not None and np.std(g) > 0 for g in tape.gradient(total, features)]
    least = 4 if decoder == "fpn" else 2
    assert used == [stride >= least for stride in strides]


def _train_once(strategy, model, features):
    def step(batch):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(list(batch), training=True) ** 2)
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    dataset = tf.data.Dataset.from_tensor_slices(tuple(features)).batch(4)
    (batch,) = strategy.experimental_distribute_dataset(dataset)
    gradients = [
        strategy.reduce("SUM", gradient, axis=None)
        for gradient in strategy.run(step, (batch,))
    ]
    return gradients + [v.numpy() for v in model.non_trainable_variables]


@pytest.mark.parametrize("strides", PYRAMIDS.values(), ids=PYRAMIDS)
def test_two_replicas_train_as_one(decoder, strides):
    keras.config.set_dtype_policy("float64")
    results, weights = [], None
    for replicas in (1, 2):
        strategy = helpers.make_strategy(replicas)
        with strategy.scope():
            model = _build(decoder, strides, synchronized=replicas > 1)
        weights = weights or model.get_weights()
        model.set_weights(weights)
        results.append(_train_once(strategy, model, _draw_features(strides)))
    assert len(results[0]) > 10
    for actual, expected in zip(*results, strict=True):
        tolerance = 1e-5 * np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_logits_are_exact_under_a_half_precision_policy(decoder):
    """Close to those of float32, and trainable."""
    strides = PYRAMIDS["from 4"]
    exact = _build(decoder, strides)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = _build(decoder, strides)
    model.set_weights(exact.get_weights())
    features = _draw_features(strides)
    with tf.GradientTape() as tape:
        logits = tf.cast(model(features), tf.float32)
        total = tf.reduce_sum(logits**2)
    values = [v.value for v in model.trainable_variables]
    assert all(np.isfinite(g).all() for g in tape.gradient(total, values))
    expected = np.asarray(exact(features))
    assert np.std(logits - expected) < 0.05 * np.std(expected)


@pytest.mark.parametrize("strides", PYRAMIDS.values(), ids=PYRAMIDS)
def test_another_number_of_filters_is_refused(decoder, strides):
    default = registry.DECODERS[decoder].default_filters(strides)
    maps = [keras.Input((4, 4, 3)) for _ in strides]
    with pytest.raises(ValueError, match=f"{len(default) + 1} filters for "):
        registry.load_decoder(decoder)(maps, strides, 4, filters=(*default, 8))


def test_default_filters_grow_with_the_depth_of_a_unet():
    default_filters = registry.DECODERS["pix2pix"].default_filters
    assert default_filters((2, 4, 8, 16, 32)) == (512, 256, 128, 64)
    assert default_filters((2, 4, 8, 16, 16)) == (256, 128, 64)


def test_fpn_sums_what_its_papers_say():
    """Its levels by hand, for maps of one pixel value each, where all is linear."""
    model = _build("fpn", (4, 8))
    random = np.random.default_rng(0)
    values = random.uniform(1, 2, (2, 3))
    for layer in model.layers:
        if isinstance(layer, normalization.BatchNormalization):
            continue
        layer.set_weights(
            [random.uniform(0.1, 0.2, w.shape) for w in layer.get_weights()]
        )
    features = [
        np.broadcast_to(value, (1, SIZE // s, SIZE // s, 3)).astype(np.float32)
        for value, s in zip(values, (4, 8), strict=True)
    ]

    def weights(name):
        return model.get_layer(name).get_weights()

    def lateral(index):
        kernel, bias = weights(f"level{index}_lateral")
        return values[index] @ kernel[0, 0] + bias

    def branch(index, level):
        (kernel,) = weights(f"level{index}_branch0_conv")
        return level @ kernel.sum(axis=(0, 1)) / np.sqrt(1 + 1e-3)

    merged = branch(1, lateral(1)) + branch(0, lateral(0) + lateral(1))
    kernel, bias = weights("logits")
    expected = merged @ kernel[0, 0] + bias

    # Away from the border, where convolutions see zeros.
    middle = model(features)[0, SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(middle, expected, rtol=1e-5)


def test_resize_is_bilinear_between_centres_of_pixels():
    ramp = np.array([0.0, 4.0], np.float32).reshape(1, 1, 2, 1)
    # Centres lie at 0.25, 0.75, 1.25, 1.75 of pixels centred at 0.5 and 1.5.
    expected = [[0, 1, 3, 4], [0, 1, 3, 4]]
    np.testing.assert_allclose(layers.Resize(2)(ramp)[0, ..., 0], expected)


def test_crop_keeps_logits_as_they_are_under_a_half_precision_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    logits = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
    cropped = layers.Crop()([logits, np.zeros((1, 5, 7, 3), np.float32)])
    np.testing.assert_array_equal(cropped, logits[:, :5, :7])
