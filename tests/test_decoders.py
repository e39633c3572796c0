"""Every decoder gives logits at the images' size, from any strides, on any replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import layers, randomness, registry
from models.decoders import segformer
from models.fast import normalization
from tests import helpers, shallow
from tests.matrix import round_trip

SIZE = 64
PYRAMIDS = {
    "from 1": (1, 2, 4, 8, 16),
    "from 2": (2, 4, 8, 16, 32),
    "from 4": (4, 8, 16, 32),
    "to 16": (2, 4, 8, 16),
    "at output stride 16": (2, 4, 8, 16, 16),
}


WITH_NORM = registry.decoders_with("norm")
WITH_DROPOUT = registry.decoders_with("dropout")


@pytest.fixture(params=list(registry.DECODERS))
def decoder(request):
    """Returns the name of each decoder in turn."""
    if request.param == "tensorflow_examples":
        request.getfixturevalue("pix2pix")
    return request.param


def _build(decoder, strides, synchronized=False, is_known=True, **options):
    """Builds a model from feature maps of 3 channels to logits of 4 classes."""
    sizes = [SIZE // stride if is_known else None for stride in strides]
    features = [keras.Input((size, size, 3)) for size in sizes]
    count = len(registry.DECODERS[decoder].default_filters(strides))
    filters = (8, 6, 4, 4)[:count]
    logits = registry.load_decoder(decoder)(
        features, strides, 4, filters=filters, synchronized=synchronized, **options
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


def _uses(decoder, strides):
    """Tells of each map whether a decoder uses it."""
    if decoder in ("fpn", "segformer"):
        return [stride >= 4 for stride in strides]
    if decoder == "deeplabv3plus":
        deepest = len(strides) - 1
        return [s == 4 or i == deepest for i, s in enumerate(strides)]
    if decoder in ("pix2pix", "tensorflow_examples"):
        return [stride >= 2 for stride in strides]
    return [True for _ in strides]


@pytest.mark.parametrize("strides", PYRAMIDS.values(), ids=PYRAMIDS)
def test_every_map_that_a_decoder_uses_and_every_weight_has_a_say(decoder, strides):
    model = _build(decoder, strides)
    features = [tf.constant(f) for f in _draw_features(strides)]
    values = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(model(features, training=True) ** 2)
    gradients, of_weights = tape.gradient(total, (features, values))
    used = [g is not None and np.std(g) > 0 for g in gradients]
    assert used == _uses(decoder, strides)
    idle = [
        variable.path
        for variable, gradient in zip(
            model.trainable_variables, of_weights, strict=True
        )
        # Batch norm takes away what SegFormer's first biases add.
        if not np.any(gradient) and not variable.path.endswith("_linear/bias")
    ]
    assert idle == []


def _train_once(strategy, model, features):
    """Returns the gradients of a batch, summed over replicas, and moved statistics."""
    num_rows = len(features[0])

    def step(counters, *batch):
        keyed = randomness.keyed_by_row(counters, global_batch_size=num_rows, seed=0)
        with keyed, tf.GradientTape() as tape:
            total = tf.reduce_sum(model(list(batch), training=True) ** 2)
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    counters = np.arange(num_rows, dtype=np.int64)
    dataset = tf.data.Dataset.from_tensor_slices((counters, *features)).batch(num_rows)
    (batch,) = strategy.experimental_distribute_dataset(dataset)
    gradients = [
        strategy.reduce("SUM", gradient, axis=None)
        for gradient in strategy.run(step, batch)
    ]
    return gradients + [v.numpy() for v in model.non_trainable_variables]


@pytest.mark.parametrize(
    ("pyramid", "norm"),
    [("from 2", "batch"), ("from 4", "group"), ("at output stride 16", "batch")],
)
def test_two_replicas_train_as_one(decoder, pyramid, norm):
    keras.config.set_dtype_policy("float64")
    options = {"norm": norm} if decoder in WITH_NORM else {}
    options |= {"dropout": 0.3} if decoder in WITH_DROPOUT else {}
    strides = PYRAMIDS[pyramid]
    results, weights = [], None
    for replicas in (1, 2):
        strategy = helpers.make_strategy(replicas)
        with strategy.scope():
            model = _build(decoder, strides, synchronized=replicas > 1, **options)
        weights = weights or model.get_weights()
        model.set_weights(weights)
        results.append(_train_once(strategy, model, _draw_features(strides)))
    assert len(results[0]) > 10
    for actual, expected in zip(*results, strict=True):
        tolerance = 1e-5 * np.abs(expected).max() + 1e-6
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("encoder", "output_stride"),
    [("mobilenet_v2", None), ("convnext_tiny", None), ("mobilenet_v2", 16)],
    ids=["from 2", "from 4", "at output stride 16"],
)
def test_a_run_folder_gives_the_model_back(
    decoder, encoder, output_stride, tmp_path, monkeypatch
):
    shallow.shorten(monkeypatch)
    shallow.shorten_convnext(monkeypatch)
    pair = round_trip.Pair(encoder, decoder, output_stride)
    with round_trip.cheaply():
        round_trip.check_folder(pair, tmp_path / "run")


@pytest.mark.parametrize("decoder", WITH_NORM)
def test_group_norm_takes_the_place_of_batch_norm(decoder):
    """And is trained under a half-precision policy."""
    strides = PYRAMIDS["from 4"]
    keras.config.set_dtype_policy("mixed_bfloat16")
    models = [_build(decoder, strides, norm=norm) for norm in ("batch", "group")]
    assert [bool(model.non_trainable_variables) for model in models] == [True, False]
    counts = [len(model.trainable_variables) for model in models]
    assert counts[0] == counts[1]
    features = _draw_features(strides)
    with tf.GradientTape() as tape:
        logits = tf.cast(models[1](features, training=True), tf.float32)
        total = tf.reduce_sum(logits**2)
    values = [v.value for v in models[1].trainable_variables]
    assert all(np.isfinite(g).all() for g in tape.gradient(total, values))
    # Of a row alone, in training, too.
    first = models[1]([f[:1] for f in features], training=True)
    np.testing.assert_allclose(tf.cast(first, tf.float32), logits[:1], atol=0.05)


@pytest.mark.parametrize("decoder", WITH_DROPOUT)
def test_dropout_drops_in_training_alone_and_changes_no_checkpoint(decoder, tmp_path):
    strides = (4, 8)
    model, dropping = (_build(decoder, strides, dropout=rate) for rate in (0.0, 0.5))
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "model"))
    tf.train.Checkpoint(model=dropping).read(path).assert_consumed()
    features = _draw_features(strides, num_rows=2)
    np.testing.assert_array_equal(dropping(features), model(features))
    counters = tf.range(2, dtype=tf.int64)
    with randomness.keyed_by_row(counters, global_batch_size=2, seed=0):
        logits = dropping(features, training=True)
    assert np.std(logits - model(features, training=True)) > 0.01 * np.std(logits)


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
    default_filters = registry.DECODERS["unet"].default_filters
    assert default_filters((4, 8, 16, 32)) == (256, 128, 64, 32)
    default_filters = registry.DECODERS["unetpp"].default_filters
    assert default_filters((2, 4, 8, 16, 16)) == (128, 64, 32)
    assert default_filters((4, 8, 16, 32)) == (256, 128, 64)


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


def _randomize(model):
    """Gives all weights values that are no special case, and keeps signals positive."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        weights = [random.uniform(0.1, 0.3, w.shape) for w in layer.get_weights()]
        layer.set_weights(weights)


class _Formulas:
    """What a model's convolutions and norms compute, by its weights."""

    def __init__(self, model):
        self._model = model

    def weights(self, name):
        return self._model.get_layer(name).get_weights()

    def norm(self, name, features):
        """Applies norm and ReLU."""
        gamma, beta, mean, variance = self.weights(f"{name}_norm")
        scaled = gamma * (features - mean) / np.sqrt(variance + 1e-3) + beta
        return np.maximum(scaled, 0)

    def block(self, name, pixel):
        """Applies a block far from the border to a pixel of a map that is constant."""
        (kernel,) = self.weights(f"{name}_conv")
        return self.norm(name, pixel @ kernel.sum(axis=(0, 1)))

    def two(self, name, *pixels):
        first = self.block(f"{name}_first", np.concatenate(pixels))
        return self.block(f"{name}_second", first)

    def logits(self, pixel):
        kernel, bias = self.weights("logits")
        return pixel @ kernel[0, 0] + bias


def _constant_maps(strides):
    """Returns the pixels of maps of one pixel value each, and the maps."""
    pixels = np.random.default_rng(1).uniform(1, 2, (len(strides), 3))
    maps = [
        np.broadcast_to(pixel, (1, SIZE // s, SIZE // s, 3))
        for pixel, s in zip(pixels, strides, strict=True)
    ]
    return pixels, maps


def _middle(model, maps):
    return model(maps)[0, SIZE // 2, SIZE // 2]


def test_unet_joins_what_its_paper_says():
    """Its levels by hand, away from the border, where convolutions see zeros."""
    keras.config.set_dtype_policy("float64")
    model = _build("unet", (2, 4, 8, 8))
    _randomize(model)
    (finest, middle, *deepest), maps = _constant_maps((2, 4, 8, 8))
    of = _Formulas(model)
    at_4 = of.two("stride4", *deepest, middle)
    expected = of.logits(of.two("stride2", at_4, finest))
    np.testing.assert_allclose(_middle(model, maps), expected, rtol=1e-6)
    (kernel,) = of.weights("stride4_first_conv")
    assert kernel.shape == (3, 3, 3 + 3 + 3, 8)


def test_unetpp_joins_what_its_paper_says():
    """Its nodes by hand, as figure 1a of the paper has them."""
    keras.config.set_dtype_policy("float64")
    model = _build("unetpp", (2, 4, 8))
    _randomize(model)
    (x00, x10, x20), maps = _constant_maps((2, 4, 8))
    of = _Formulas(model)
    x01 = of.two("level0_node1", x00, x10)
    x11 = of.two("level1_node1", x10, x20)
    x02 = of.two("level0_node2", x00, x01, x11)
    np.testing.assert_allclose(_middle(model, maps), of.logits(x02), rtol=1e-6)


def _dense(formulas, name):
    """Returns the kernel of both parts of a separable convolution together."""
    (depthwise,) = formulas.weights(f"{name}_depthwise_conv")  # [3, 3, inputs, 1]
    (pointwise,) = formulas.weights(f"{name}_pointwise_conv")
    return depthwise * pointwise[0, 0]  # [3, 3, inputs, outputs]


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (32, (3, 6, 9))])
def test_branches_of_deeplab_are_atrous_convolutions_and_a_mean(stride, rates):
    keras.config.set_dtype_policy("float64")
    inputs = keras.Input((24, 20, 3))
    decode = registry.load_decoder("deeplabv3plus")
    whole = keras.Model(inputs, decode([inputs], [stride], 4, filters=(5,)))
    model = keras.Model(inputs, whole.get_layer("aspp_join").output)
    for layer in model.layers:
        if "_conv" in layer.name:  # The norms stay 1 / sqrt(1 + 1e-3).
            _randomize(keras.Sequential([layer]))
    features = np.random.default_rng(1).uniform(1, 2, (2, 24, 20, 3))
    of, scale = _Formulas(model), 1 / np.sqrt(1 + 1e-3)
    pixel, image = (of.weights(f"aspp_{n}_conv")[0][0, 0] for n in ("pixel", "image"))
    mean = np.mean(features, axis=(1, 2), keepdims=True)
    atrous = [
        tf.nn.atrous_conv2d(features, _dense(of, f"aspp_rate{i}"), rate, "SAME")
        for i, rate in enumerate(rates)
    ]
    expected = [
        features @ pixel * scale,
        *(branch * scale**2 for branch in atrous),
        np.broadcast_to(mean @ image * scale, (2, 24, 20, 5)),
    ]
    np.testing.assert_allclose(model(features), np.concatenate(expected, -1), rtol=1e-6)


def test_deeplab_refines_with_few_channels_of_the_map_of_stride_4():
    model = _build("deeplabv3plus", (2, 4, 8, 16))
    assert model.get_layer("low_level_conv").kernel.shape == (1, 1, 3, 48)
    assert model.get_layer("join").output.shape == (None, SIZE // 4, SIZE // 4, 48 + 8)


def test_segformer_computes_the_formula_of_its_paper():
    """To enlarge, join and fuse in this order is what the decoder does otherwise."""
    keras.config.set_dtype_policy("float64")
    strides = (4, 8, 16)
    model = _build("segformer", strides)
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    features = [f.astype(np.float64) for f in _draw_features(strides)]
    of = _Formulas(model)
    levels, kernels = [], []
    for index, feature in enumerate(features):
        kernel, bias = of.weights(f"level{index}_linear")
        level = feature @ kernel[0, 0] + bias
        levels.append(tf.image.resize(level, (SIZE // 4, SIZE // 4)))
        kernels.append(of.weights(f"level{index}_fuse")[0][0, 0])
    fused = np.concatenate(levels, axis=-1) @ np.concatenate(kernels)
    logits = of.logits(of.norm("fused", fused))
    expected = tf.image.resize(logits, (SIZE, SIZE))
    np.testing.assert_allclose(model(features), expected, rtol=1e-5, atol=1e-4)


def test_segformer_begins_as_if_its_second_layer_were_one():
    keras.utils.set_random_seed(0)
    maps = [keras.Input((SIZE // s, SIZE // s, 3)) for s in (4, 8, 16)]
    model = keras.Model(maps, segformer.decode(maps, (4, 8, 16), 4, filters=(64,)))
    kernels = [model.get_layer(f"level{i}_fuse").kernel.numpy() for i in range(3)]
    # Glorot's, uniform between -limit and limit, for 3 * 64 inputs and 64 outputs.
    limit = np.sqrt(6 / (3 * 64 + 64))
    assert 0.99 * limit < np.abs(kernels).max() <= limit
    assert not np.array_equal(kernels[0], kernels[1])


def test_the_mean_of_an_image_stays_within_the_range_of_half_precision():
    # The sum of 64 x 64 pixels of 100 is 409,600; float16 ends at 65,504.
    ramp = np.linspace(0, 200, 64, dtype=np.float16).reshape(1, 1, 64, 1)
    features = np.broadcast_to(ramp, (1, 64, 64, 2)).astype(np.float16)
    mean = layers.ImageMean(dtype="float16")(features)
    np.testing.assert_allclose(mean, np.full((1, 1, 1, 2), 100), rtol=1e-3)
    spread = layers.Spread(dtype="float16")([mean, features[:, :3, :5]])
    np.testing.assert_array_equal(spread, np.broadcast_to(mean, (1, 3, 5, 2)))
