"""Tests of the U-Net and its parts."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags as absl_flags

from models import encoders, registry
from models.decoders import pix2pix as pix2pix_lib
from models.encoders import applications
from models.fast import normalization
from tests import helpers, shallow
from tests.stand_ins import write_package
from trainer import flags
from trainer.benchmarking import plain

WEIGHTS = helpers.SHARED / "weights" / "mobilenet_v2_1.0_no_top.weights.h5"

FEATURES = (
    "block_1_expand_relu",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
    "block_16_project",
)
"""The layers whose outputs the TensorFlow tutorial on segmentation takes."""


def make_images(size=32, num_images=2):
    """Makes uint8 noise [num_images, size, size, 3]."""
    shape = (num_images, size, size, 3)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def build_small_encoder(size=32, weights="none"):
    return encoders.build_encoder(
        "mobilenet_v2", (size, size), weights=weights, options={"alpha": 0.35}
    ).model


def build_small_application(**kwargs):
    settings = {"input_shape": (32, 32, 3), "alpha": 0.35, "weights": None}
    return keras.applications.MobileNetV2(include_top=False, **{**settings, **kwargs})


@pytest.fixture
def replace_application(monkeypatch):
    """Replaces the function that makes Keras' network by what a test gives."""

    def replace(function):
        row = applications.APPLICATIONS["mobilenet_v2"]._replace(make=function)
        monkeypatch.setitem(applications.APPLICATIONS, "mobilenet_v2", row)

    return replace


def find_batch_norms(model):
    """Lists all batch-norm layers, those of nested models and blocks included."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def assert_weights_equal(encoder, application):
    """Compares layers by name; the application has a few more at its end."""
    for layer in encoder.layers[2:]:  # Without the input and its scaling.
        other = application.get_layer(layer.name)
        for weight, expected in zip(
            layer.get_weights(), other.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, expected)


def test_tutorials_setting_has_the_tutorials_parameters():
    model = helpers.build_unet(
        size=128,
        encoder_alpha=1.0,
        freeze_encoder=True,
        decoder_filters=(512, 256, 128, 64),
        decoder_dropout=0.0,
    )

    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert (model.count_params(), trainable) == (6_504_227, 4_660_323)


@pytest.mark.cross_section
@pytest.mark.parametrize("freeze", [True, False])
def test_the_model_computes_what_keras_own_layers_do(freeze):
    keras.config.set_dtype_policy("float64")
    model = helpers.build_unet(freeze_encoder=freeze)
    reference = plain.build_keras_unet(
        encoder="mobilenet_v2",
        encoder_options={"alpha": 0.35},
        freeze_encoder=freeze,
        decoder_filters=(16, 8, 8, 8),
        image_size=(32, 32),
        num_classes=3,
    )
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 0.3, w.shape) for w in model.get_weights()])
    reference.set_weights(model.get_weights())
    images = tf.constant(random.uniform(0, 255, (4, 32, 32, 3)))
    upstream = tf.constant(random.normal(size=(4, 32, 32, 3)))
    results = []
    for each in (model, reference):
        inference = each(images, training=False)
        with tf.GradientTape() as tape:
            training = tf.cast(each(images, training=True), tf.float64)
            total = tf.reduce_sum(training * upstream)
        gradients = tape.gradient(total, [v.value for v in each.trainable_variables])
        moved = [v.numpy() for v in each.non_trainable_variables]
        results.append([inference, training, *gradients, *moved])
    assert len(results[0]) > 10
    for actual, expected in zip(*results, strict=True):
        # Some gradients are sums that come to nothing, but for rounding.
        tolerance = 1e-5 * np.abs(expected).max() + 1e-9
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_features_have_strides_2_to_32():
    encoder = build_small_encoder(size=64)

    sizes = [output.shape[1:3] for output in encoder.outputs]
    assert sizes == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]


def test_features_are_those_of_keras_for_inputs_from_minus_1_to_1():
    encoder = build_small_encoder()
    application = build_small_application()
    for layer in encoder.layers[2:]:  # Without the input and its scaling.
        application.get_layer(layer.name).set_weights(layer.get_weights())
    outputs = [application.get_layer(name).output for name in FEATURES]
    reference = keras.Model(application.inputs, outputs)
    images = make_images().astype(np.float32)

    features = encoder(images)

    expected = reference(images / 127.5 - 1)
    for feature, other in zip(features, expected, strict=True):
        np.testing.assert_allclose(feature, other, rtol=1e-4, atol=1e-5)


# 16 filters times 0.56 are 8.96, which Keras cuts to 8 before it rounds.
@pytest.mark.parametrize("alpha", [0.35, 0.5, 0.56, 0.75, 1.0, 1.4])
def test_layers_are_those_of_keras(alpha):
    encoder = encoders.build_encoder(
        "mobilenet_v2", (64, 96), weights="none", options={"alpha": alpha}
    ).model
    application = build_small_application(input_shape=(64, 96, 3), alpha=alpha)
    expected = keras.Model(
        application.inputs, [application.get_layer(name).output for name in FEATURES]
    ).layers

    layers = encoder.layers[2:]  # Without the input and its scaling.
    assert [layer.name for layer in layers] == [layer.name for layer in expected[1:]]
    for layer, other in zip(layers, expected[1:], strict=True):
        assert layer.get_config() == other.get_config()
        assert layer.output.shape == other.output.shape


def test_bytes_and_floats_give_the_same_logits():
    model = helpers.build_unet()
    images = make_images()

    np.testing.assert_array_equal(model(images), model(images.astype(np.float32)))


def test_logits_have_the_size_of_the_image():
    model = helpers.build_unet(num_classes=5, image_size=(32, 64))

    assert model.output_shape == (None, 32, 64, 5)


@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_logits_of_an_odd_size_are_those_of_the_mirrored_image(
    decoder, pix2pix, monkeypatch, tmp_path
):
    """Both of one checkpoint."""
    shallow.shorten(monkeypatch)
    keras.utils.set_random_seed(0)
    odd = helpers.build_unet(image_size=(45, 70), num_classes=5, decoder=decoder)
    even = helpers.build_unet(image_size=(64, 96), num_classes=5, decoder=decoder)
    path = tf.train.Checkpoint(model=odd).write(str(tmp_path / "model"))
    tf.train.Checkpoint(model=even).read(path).assert_consumed()
    images = np.random.default_rng(1).integers(0, 256, (2, 45, 70, 3), np.uint8)
    mirrored = np.pad(images, [(0, 0), (0, 19), (0, 26), (0, 0)], mode="reflect")

    for training in (False, True):
        logits = odd(images, training=training)
        assert logits.shape == (2, 45, 70, 5)
        expected = even(mirrored, training=training)[:, :45, :70]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_serves_all_sizes(tmp_path):
    """Its keys are those of the runs before there were other encoders."""
    model = helpers.build_unet(size=32)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "model"))
    for size in ((45, 70), (None, None)):
        other = helpers.build_unet(image_size=size)
        tf.train.Checkpoint(model=other).read(path).assert_consumed()
    np.testing.assert_allclose(  # The last one takes any size.
        other(make_images()), model(make_images()), rtol=1e-4, atol=1e-5
    )
    keys = [key for key, _ in tf.train.list_variables(path)]
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert f"model/_operations/1/_operations/2/_kernel{value}" in keys  # Conv1.
    for index in range(2, 6):
        assert f"model/_operations/{index}/_conv/kernel{value}" in keys
    assert f"model/_operations/6/bias{value}" in keys
    # 51 convolutions, 50 norms, 4 blocks, kernel and bias of the logits, the graph.
    assert len(keys) == 51 + 50 * 4 + 4 * 5 + 2 + 1


def test_frozen_encoder_does_not_notice_training():
    model = helpers.build_unet(freeze_encoder=True)
    encoder, images = model.get_layer("mobilenet_v2"), make_images()
    before = encoder.get_weights()

    in_training, in_inference = encoder(images, training=True), encoder(images)

    for feature, other in zip(in_training, in_inference, strict=True):
        np.testing.assert_array_equal(feature, other)
    for weight, other in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_free_encoder_notices_training():
    model = helpers.build_unet(freeze_encoder=False)
    encoder, images = model.get_layer("mobilenet_v2"), make_images()

    in_training, in_inference = encoder(images, training=True), encoder(images)

    assert not np.allclose(in_training[0], in_inference[0])


def test_freezing_leaves_the_decoder_to_train():
    frozen = helpers.build_unet(freeze_encoder=True)

    # Kernel, scale and offset of four blocks; kernel and bias of the logits.
    assert len(frozen.trainable_variables) == 4 * 3 + 2


NORMS = {
    "pix2pix": 4,  # One a block.
    "tensorflow_examples": 4,
    "fpn": 3 + 2 + 1 + 1,  # For each doubling to stride 4, and one there.
    "unet": 2 * 4,
    "unetpp": 2 * (4 + 3 + 2 + 1),
    # Five branches, three of them in two parts, and what joins them; then the finer map
    # and two more in two parts.
    "deeplabv3plus": 5 + 3 + 1 + 1 + 2 * 2,
    "segformer": 1,
}
"""Batch norms in each decoder, with maps of the strides 2 to 32."""


@pytest.mark.parametrize("synchronized", [True, False])
@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_all_batch_norms_are_synchronized_or_none(
    decoder, synchronized, pix2pix, monkeypatch
):
    shallow.shorten(monkeypatch)
    model = helpers.build_unet(decoder=decoder, synchronized_batch_norm=synchronized)

    norms = find_batch_norms(model)
    encoder = find_batch_norms(model.get_layer("mobilenet_v2"))
    assert len(norms) == len(encoder) + NORMS[decoder]
    assert {norm.synchronized for norm in norms} == {synchronized}


@pytest.mark.parametrize("decoder", registry.DECODERS)
def test_the_momentum_of_all_trained_batch_norms_can_be_limited(
    decoder, pix2pix, monkeypatch
):
    shallow.shorten(monkeypatch)
    model = helpers.build_unet(decoder=decoder, freeze_encoder=True)
    encoder = model.get_layer("mobilenet_v2")
    frozen = {id(norm) for norm in find_batch_norms(encoder)}
    with normalization.limited_momentum([(model, tf.constant(0.25, tf.float64))]):
        limited = [
            float(norm.momentum)
            for norm in find_batch_norms(model)
            if id(norm) not in frozen
        ]
        assert {norm.momentum for norm in find_batch_norms(encoder)} == {0.999}
    assert set(limited) == {0.25}
    assert len(limited) == NORMS[decoder]
    assert {norm.momentum for norm in find_batch_norms(model)} == {0.999, 0.99}


def test_a_decoder_is_given_its_options(monkeypatch):
    shallow.shorten(monkeypatch)
    model = helpers.build_unet(decoder="segformer", decoder_options={"norm": "group"})

    encoder = find_batch_norms(model.get_layer("mobilenet_v2"))
    assert len(find_batch_norms(model)) == len(encoder)


def test_an_option_that_a_decoder_does_not_take_is_refused():
    with pytest.raises(ValueError, match="^tensorflow_examples does not take norm; it"):
        helpers.build_unet(
            decoder="tensorflow_examples", decoder_options={"norm": "group"}
        )


@pytest.mark.parametrize("momentum, expected", [(0.9, 0.9), (None, 0.999)])
def test_momentum_is_that_of_keras_unless_given(momentum, expected):
    model = helpers.build_unet(encoder_bn_momentum=momentum)

    norms = find_batch_norms(model.get_layer("mobilenet_v2"))
    assert {norm.momentum for norm in norms} == {expected}


def test_number_of_filters_must_be_that_of_the_blocks():
    with pytest.raises(ValueError, match="3 filters for 4 blocks from stride 32 to 2"):
        helpers.build_unet(decoder_filters=(16, 8, 8))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32_under_each_policy(policy):
    keras.config.set_dtype_policy(policy)
    model = helpers.build_unet()

    assert keras.backend.standardize_dtype(model(make_images()).dtype) == "float32"


def test_images_are_scaled_in_float32_under_a_half_precision_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = helpers.build_unet()
    encoder = model.get_layer("mobilenet_v2")

    assert encoder.get_layer("scaling").compute_dtype == "float32"


def test_weights_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        encoders.WeightsError,
        match=r"no such file; name a \.weights\.h5 file, imagenet or none",
    ):
        build_small_encoder(weights=str(tmp_path / "lost.weights.h5"))


def test_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "words.weights.h5"
    path.write_text("These are words.")

    with pytest.raises(encoders.WeightsError, match="does not hold the encoder's weig"):
        build_small_encoder(weights=str(path))


def test_weights_of_another_alpha_are_refused(tmp_path):
    path = tmp_path / "wide.weights.h5"
    build_small_application(alpha=0.5).save_weights(path)

    with pytest.raises(
        encoders.WeightsError,
        match=r"not hold the encoder's weights \(A total of 74 .*or of another alpha\?",
    ) as raised:
        build_small_encoder(weights=str(path))
    assert len(str(raised.value)) < 300  # Keras would print all weights of a layer.


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "tiny.weights.h5"
    helpers.build_tiny().save_weights(path)

    with pytest.raises(encoders.WeightsError, match="of another architecture"):
        build_small_encoder(weights=str(path))


def test_weights_file_of_keras_is_loaded(tmp_path):
    path = tmp_path / "small.weights.h5"
    application = build_small_application()
    application.save_weights(path)

    encoder = build_small_encoder(size=64, weights=str(path))

    assert_weights_equal(encoder, application)


def test_weights_file_of_older_keras_is_loaded(tmp_path):
    path = tmp_path / "small_no_top.h5"  # Of this kind are the files for download.
    application = build_small_application()
    application.save(path)

    encoder = build_small_encoder(size=64, weights=str(path))

    assert_weights_equal(encoder, application)


def test_alpha_without_imagenet_weights_is_refused():
    with pytest.raises(encoders.WeightsError, match="alpha"):
        encoders.build_encoder("mobilenet_v2", (96, 96), options={"alpha": 0.4})


def test_failed_download_of_imagenet_weights_is_explained(replace_application):
    def fail(**kwargs):
        raise Exception("URL fetch failure")

    replace_application(fail)

    with pytest.raises(
        encoders.WeightsError,
        match=r"could not be downloaded \(URL fetch failure\); .*, or use none",
    ):
        build_small_encoder(weights="imagenet")


@pytest.mark.parametrize("size, expected", [(96, (96, 96, 3)), (64, None)])
def test_imagenet_weights_are_those_of_the_image_size_if_there_are_any(
    replace_application, size, expected
):
    calls, made = [], []

    def record(**kwargs):
        calls.append(kwargs)
        made.append(keras.applications.MobileNetV2(**{**kwargs, "weights": None}))
        return made[-1]

    replace_application(record)
    encoder = build_small_encoder(size=size, weights="imagenet")

    assert [(c["weights"], c["input_shape"]) for c in calls] == [("imagenet", expected)]
    assert_weights_equal(encoder, made[0])


@helpers.needs_weights
def test_shared_weights_are_loaded():
    encoder = encoders.build_encoder(
        "mobilenet_v2", (32, 32), weights=str(WEIGHTS)
    ).model

    application = keras.applications.MobileNetV2(include_top=False, weights=None)
    application.load_weights(WEIGHTS)
    assert_weights_equal(encoder, application)


def test_block_starts_with_a_narrow_normal_kernel_and_no_bias():
    keras.utils.set_random_seed(0)
    block = pix2pix_lib.UpsampleBlock(64)
    block.build([(None, 4, 4, 64)])

    kernel, scale, offset, mean, variance = block.get_weights()
    assert kernel.shape == (3, 3, 64, 64)
    # 36864 draws: the standard error of their deviation is 0.02 / sqrt(2 * 36864).
    assert abs(kernel.std() - 0.02) < 4 * 0.02 / np.sqrt(2 * 36864)
    assert abs(kernel.mean()) < 4 * 0.02 / np.sqrt(36864)
    for weight, start in ((scale, 1), (offset, 0), (mean, 0), (variance, 1)):
        np.testing.assert_array_equal(weight, np.full(64, start))


@pytest.mark.parametrize("training", [True, False])
def test_block_computes_what_that_of_tensorflow_examples_does(training, pix2pix):
    block, reference = pix2pix_lib.UpsampleBlock(4), pix2pix.upsample(4, 3)
    features = np.random.default_rng(2).normal(size=(2, 3, 5, 6)).astype(np.float32)
    reference.build(features.shape)
    block.build([features.shape])
    reference.set_weights(
        [weight + 0.1 * i for i, weight in enumerate(reference.get_weights())]
    )
    block.set_weights(reference.get_weights())

    output = block([features], training=training)

    assert output.shape == (2, 6, 10, 4)
    np.testing.assert_allclose(
        output, reference(features, training=training), rtol=1e-5, atol=1e-6
    )


def test_block_can_be_made_again_from_its_config():
    block = pix2pix_lib.UpsampleBlock(4, synchronized=True, name="up")

    again = pix2pix_lib.UpsampleBlock.from_config(block.get_config())

    assert again.get_config() == block.get_config()
    assert tuple(again.compute_output_shape([(2, 3, 5, 4), (2, 3, 5, 2)])) == (
        2,
        6,
        10,
        4,
    )


def test_decoder_of_a_missing_package_is_refused_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_examples", None)

    with pytest.raises(
        ImportError,
        match=r"tensorflow_examples is not installed.*'\.\[examples\]'.*pix2pix",
    ):
        helpers.build_unet(decoder="tensorflow_examples")


def test_a_package_that_cannot_be_imported_is_not_called_missing(
    forgetting, tmp_path, monkeypatch
):
    write_package(tmp_path, "import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        ImportError, match=r"cannot be imported \(No module .*mend that"
    ):
        helpers.build_unet(decoder="tensorflow_examples")


def test_a_block_of_another_keras_is_refused(pix2pix, monkeypatch):
    monkeypatch.setattr(pix2pix, "upsample", lambda filters, size: object())

    with pytest.raises(ImportError, match="another Keras.*TF_USE_LEGACY_KERAS"):
        helpers.build_unet(decoder="tensorflow_examples")


def test_decoder_of_tensorflow_examples_has_the_same_parameters(pix2pix):
    own = helpers.build_unet(decoder="pix2pix")

    other = helpers.build_unet(decoder="tensorflow_examples")

    assert other.count_params() == own.count_params()
    assert any(isinstance(layer, keras.Sequential) for layer in other.layers)


@pytest.mark.parametrize("synchronized", [False, True])
def test_decoder_of_tensorflow_examples_computes_what_ours_does(pix2pix, synchronized):
    models = [
        helpers.build_unet(decoder=name, synchronized_batch_norm=synchronized)
        for name in ("pix2pix", "tensorflow_examples")
    ]
    models[1].set_weights(models[0].get_weights())
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 32, 32, 3)).astype(np.float32)

    own, other = (model(images, training=True) for model in models)

    np.testing.assert_allclose(own, other, atol=5e-6)


def test_flags_of_tensorflow_examples_do_not_meet_ours(request):
    given = flags.read_config(
        ["--model_dir=x", "--batch_size=7", "--decoder=tensorflow_examples"]
    )

    request.getfixturevalue("pix2pix")  # Its import defines a --batch_size, too.

    assert absl_flags.FLAGS["batch_size"].default == 1
    assert given.config.train.batch_size == 7
