"""Backbones of KerasHub's presets are encoders like others."""

import functools
import importlib
import json
import logging
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.sources import synthetic
from models import encoders, factory, layers, randomness, scaling
from models.encoders import mit
from models.fast import normalization
from tests import helpers, test_encoders
from trainer import errors, flags, load_run
from trainer.assembly import model as model_lib
from trainer.assembly import training
from trainer.run_folder import checkpoint_folders
from trainer.run_folder import encoder as encoder_file
from trainer.settings import modes
from trainer.steps import training as training_steps

SIZE = 64
_SCALE, _OFFSET = (0.02, 0.01, 0.03), (-1.0, -2.0, 0.5)
_STRIDES = {
    "mit": (4, 8),
    "resnet": (4, 8, 16, 32),
    "efficientnet": (2, 4, 8, 16, 32),
}


@pytest.fixture(scope="session", name="hub")
def _hub():
    return pytest.importorskip(
        "keras_hub", reason="needs KerasHub (the extra hub), and with it Keras 3.15"
    )


def _make_mit(hub, channels=3):
    return hub.models.MiTBackbone(
        num_layers=2,
        layerwise_depths=[1, 1],
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[8, 1],  # Of a map of stride 4: images in 32ths.
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[4, 8],
        max_drop_path_rate=0.5,
        image_shape=(SIZE, SIZE, channels),
    )


def _make_resnet(hub, channels=3, stride=2):
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 8, 8, 8],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, stride, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, channels),
    )


def _make_efficientnet(hub):
    """Its blocks are layers, of three kinds, and have batch norm and dropout within."""
    return hub.models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3, 5, 3, 3],
        stackwise_num_repeats=[1, 2, 1, 2, 1],
        stackwise_input_filters=[8, 8, 8, 8, 8],
        stackwise_output_filters=[8, 8, 8, 8, 8],
        stackwise_expansion_ratios=[1, 2, 2, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0, 0, 0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2, 2],
        stackwise_block_types=["fused", "fused", "unfused", "unfused", "cba"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        dropout=0.5,
    )


def _draw_weights(model):
    """Gives all weights values that are no special case."""
    random = np.random.default_rng(5)
    for weight in model.weights:
        value = weight.numpy()
        if weight.path.endswith(("variance", "gamma")):
            value = random.uniform(0.7, 1.3, value.shape)
        elif value.ndim == 1:
            value = random.normal(0, 0.3, value.shape)
        weight.assign(value)


@pytest.fixture(scope="module", name="presets")
def _presets(hub, tmp_path_factory):
    """Returns a folder of presets, and the backbones that they were written of."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("presets")
    backbones = {
        "mit": _make_mit(hub),
        "resnet": _make_resnet(hub),
        "efficientnet": _make_efficientnet(hub),
    }
    for name, backbone in backbones.items():
        _draw_weights(backbone)
        backbone.save_to_preset(str(folder / name))
    converter = hub.layers.MiTImageConverter(scale=list(_SCALE), offset=list(_OFFSET))
    converter.save_to_preset(str(folder / "mit"))
    hub.layers.ResNetImageConverter(scale=1 / 127.5).save_to_preset(
        str(folder / "resnet")
    )
    return folder, backbones


@pytest.fixture(scope="module", name="build")
def _build(presets):
    """Returns a function that builds an encoder of a preset, for any size.

    In float64, as in `test_encoders`.
    """

    @functools.cache
    def build(name, weights="imagenet", **kwargs):
        keras.config.set_dtype_policy("float64")
        return encoders.build_encoder(
            f"keras_hub:{presets[0] / name}", (None, None), weights=weights, **kwargs
        )

    return build


_SCALED = {
    "mit": lambda images: images * _SCALE + _OFFSET,
    "resnet": lambda images: images / 127.5,
    # There is no converter.
    "efficientnet": lambda images: (
        (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    ),
}


@pytest.mark.parametrize("name", _STRIDES)
def test_features_are_the_pyramid_of_the_backbone(name, presets, build):
    backbone = presets[1][name]
    images = test_encoders._make_images(2, SIZE, SIZE)
    network = keras.Model(backbone.inputs[0], list(backbone.pyramid_outputs.values()))
    expected = network(_SCALED[name](images).astype(np.float32))

    model, strides = build(name)

    assert strides == _STRIDES[name]
    for features, other, stride in zip(model(images), expected, strides, strict=True):
        assert features.shape[1:3] == (SIZE // stride, SIZE // stride)
        tolerance = 1e-4 * np.std(other)
        assert tolerance > 0
        np.testing.assert_allclose(features, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", _STRIDES)
def test_an_odd_size_is_mirrored_up_to_a_multiple(name, build):
    model, strides = build(name)
    images = test_encoders._make_images(1, 45, 70)
    padded = np.pad(images, [(0, 0), (0, 19), (0, 26), (0, 0)], mode="reflect")

    for features, other, stride in zip(
        model(images), model(padded), strides, strict=True
    ):
        assert features.shape[1:3] == (64 // stride, 96 // stride)
        np.testing.assert_array_equal(features, other)


def test_attention_is_that_of_the_formula_on_maps_of_any_shape():
    random = np.random.default_rng(0)
    queries = random.normal(size=(2, 3, 4, 6)).astype(np.float32)
    keys, values = random.normal(size=(2, 2, 1, 2, 6)).astype(np.float32)
    expected = np.zeros_like(queries)
    for image, row, column, head in np.ndindex(2, 3, 4, 2):
        part = np.s_[3 * head : 3 * head + 3]
        scores = keys[image, 0, :, part] @ queries[image, row, column, part]
        weights = np.exp(scores / np.sqrt(3))
        weights /= weights.sum()
        expected[image, row, column, part] = weights @ values[image, 0, :, part]

    attention = mit.Attention(2, 0.5, stream="attention")

    actual = attention([queries, keys, values])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_attention_does_not_overflow_in_float16():
    attention = mit.Attention(1, 0.0, stream="attention", dtype="mixed_float16")
    # A product of 115,200, which is 20,365 once it is scaled.
    large = tf.fill([1, 1, 2, 32], tf.constant(60, tf.float16))
    values = tf.ones([1, 1, 2, 32], tf.float16)
    np.testing.assert_array_equal(attention([large, large, values]), values)


def _train_once(strategy, encoder, images):
    """Returns the gradients of a batch, summed over replicas, and moved statistics."""
    model = encoder.model
    random = np.random.default_rng(2)
    upstream = [
        random.normal(size=(len(images), *(side // s for side in images.shape[1:3]), 1))
        for s in encoder.strides
    ]

    def step(batch):
        counters, rows, *weights = batch
        keyed = randomness.keyed_by_row(counters, global_batch_size=len(images), seed=0)
        with keyed, tf.GradientTape() as tape:
            features = model(rows, training=True)
            total = sum(
                tf.reduce_sum(f * tf.cast(w, f.dtype)) / w.shape[1]
                for f, w in zip(features, weights, strict=True)
            )
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    counters = np.arange(len(images), dtype=np.int64)
    dataset = tf.data.Dataset.from_tensor_slices((counters, images, *upstream))
    (batch,) = strategy.experimental_distribute_dataset(dataset.batch(len(images)))
    gradients = [
        strategy.reduce("SUM", gradient, axis=None)
        for gradient in strategy.run(step, (batch,))
    ]
    return gradients, [v.numpy() for v in model.non_trainable_variables]


@pytest.mark.parametrize("name", _STRIDES)
def test_two_replicas_train_as_one(name, presets, build):
    """What is dropped, too, and the statistics of batch norm."""
    single = build(name)
    strategy = helpers.make_strategy(2)
    with strategy.scope():
        double = build(name, synchronized=True)
    images = test_encoders._make_images()

    expected = _train_once(helpers.make_strategy(1), single, images)
    actual = _train_once(strategy, double, images)

    norms = test_encoders._layers_of(double.model, normalization.BatchNormalization)
    assert (name == "mit") == (not norms)
    for kind, others in zip(actual, expected, strict=True):
        for value, other in zip(kind, others, strict=True):
            tolerance = 1e-8 * np.abs(other).max() + 1e-8
            np.testing.assert_allclose(value, other, rtol=0, atol=tolerance)
    drops = test_encoders._layers_of(double.model, layers.RowDropout)
    assert len({drop.stream for drop in drops}) == len(drops)
    rates = {round(drop.rate, 3) for drop in drops}
    expected = {
        # Stochastic depth of the two blocks, and KerasHub's dropout.
        "mit": {0, 0.5, 0.1},
        "resnet": set(),
        # Of the blocks 2 and 5 of 7, which alone have a sum.
        "efficientnet": {0.143, 0.357},
    }
    assert rates == expected[name]


def test_a_frozen_encoder_is_in_inference_mode(build):
    images = test_encoders._make_images(2)
    for name in ("mit", "efficientnet"):
        model, _ = build(name)
        model.trainable = False
        try:
            pairs = zip(model(images, training=True), model(images), strict=True)
        finally:
            model.trainable = True
        for features, other in pairs:
            np.testing.assert_array_equal(features, other)


@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_an_encoder_is_built_of_its_architecture_alone(name, presets, build):
    opened = encoders.open_preset(f"keras_hub:{presets[0] / name}", "none")
    saved = json.loads(json.dumps(opened.architecture))
    model = build(name).model
    keras.config.set_dtype_policy("float64")  # As it was built.

    again, strides = encoders.build_encoder(
        "keras_hub:gone", (None, None), preset=encoders.Preset(saved)
    )

    assert strides == _STRIDES[name]
    again.set_weights(model.get_weights())
    images = test_encoders._make_images(1)
    for features, other in zip(again(images), model(images), strict=True):
        np.testing.assert_array_equal(features, other)


def test_stages_stay_frozen_in_a_model_of_default_filters(presets):
    model = helpers.build_unet(
        encoder=f"keras_hub:{presets[0] / 'mit'}",
        encoder_options={},
        encoder_weights="imagenet",
        freeze_encoder_stages=1,
        decoder="unetpp",
        decoder_filters=None,
    )
    encoder = factory.find_encoder(model)
    trained = {w.path.split("/")[0] for w in encoder.trainable_variables}
    assert {name.partition("_")[0] for name in trained} == {
        "patch",
        "hierarchical",
        "norm",
    }
    assert not any(name.endswith(("_0.proj", "_0.norm")) for name in trained)
    assert not any("encoder_0_" in name for name in trained)


def test_other_channels_than_three_adapt_the_first_kernel(build):
    for name in ("mit", "resnet"):
        three, four = build(name).model, build(name, images=scaling.Images(4)).model
        kernels = [
            next(w for w in model.weights if w.path.endswith("kernel")).numpy()
            for model in (three, four)
        ]
        expected = kernels[0][:, :, [0, 1, 2, 0]] * 0.75
        np.testing.assert_allclose(kernels[1], expected, rtol=1e-6)


def test_weights_may_be_random_or_of_a_file(build, presets, tmp_path):
    path = str(tmp_path / "other.weights.h5")
    backbone = presets[1]["resnet"]
    own = backbone.get_weights()
    try:
        backbone.set_weights([value + 1 for value in own])
        backbone.save_weights(path)
    finally:
        backbone.set_weights(own)

    preset, random, other = (
        build("resnet", weights).model.get_weights()
        for weights in ("imagenet", "none", path)
    )

    assert not np.allclose(random[0], preset[0])
    for value, changed in zip(preset, other, strict=True):
        np.testing.assert_allclose(changed, value + 1, rtol=1e-6)


def test_the_encoder_of_a_segmentation_preset_is_taken(hub, tmp_path):
    backbone = hub.models.SegFormerBackbone(
        image_encoder=_make_mit(hub), projection_filters=8
    )
    _draw_weights(backbone)
    backbone.save_to_preset(str(tmp_path))

    model, strides = encoders.build_encoder(f"keras_hub:{tmp_path}", (SIZE, SIZE))

    assert strides == _STRIDES["mit"]
    kernel = model.get_layer("patch_and_embed_0.proj").kernel
    original = backbone.image_encoder.get_layer("patch_and_embed_0").proj.kernel
    np.testing.assert_array_equal(kernel, original)


def _read(preset, *arguments, model_dir="x"):
    return flags.read_config(
        [
            f"--model_dir={model_dir}",
            f"--encoder=keras_hub:{preset}",
            "--decoder=segformer",
            "--decoder_filters=8",
            "--nofreeze_encoder",
            "--image_size=40,72",
            "--train_epochs=0",
            "--train_steps=2",
            "--batch_size=4",
            *arguments,
        ]
    ).config


def _run(config):
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)


@pytest.fixture(scope="module", name="finished")
def _finished(presets, tmp_path_factory):
    """Returns the folder of a run, and the preset, which is gone."""
    folder = tmp_path_factory.mktemp("runs")
    preset = shutil.copytree(presets[0] / "mit", folder / "preset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "NUM_EXAMPLES", {"train": 8, "test": 4})
        _run(_read(preset, "--mode=train", model_dir=folder / "run"))
    shutil.rmtree(preset)
    return folder / "run", preset


def test_a_run_needs_the_preset_no_longer(finished, monkeypatch):
    folder, preset = finished
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 8, "test": 4})
    photo = np.random.default_rng(0).integers(0, 256, (51, 67, 3), np.uint8)
    before = load_run(folder)

    _run(_read(preset, "--mode=train", "--train_steps=3", model_dir=folder))

    (last,) = checkpoint_folders.find(str(folder), "last")[:1]
    assert last.name == "step-00000003"
    after = load_run(folder)
    again = load_run(folder, checkpoint="step-00000002")
    probabilities = [
        trained.predict(photo, probabilities=True) for trained in (before, again, after)
    ]
    assert probabilities[0].shape[:2] == (51, 67)
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    assert not np.array_equal(probabilities[0], probabilities[2])


def test_a_new_run_begins_with_the_weights_of_one_whose_preset_is_gone(
    finished, monkeypatch
):
    folder, preset = finished
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 8, "test": 4})
    monkeypatch.setattr(training_steps.TrainLoop, "prepare", lambda *args: None)
    config = _read(preset, f"--init_checkpoint={folder}", "--mode=train")

    setup = training.prepare_training(
        config, helpers.make_strategy(1), tf.Variable(False, trainable=False)
    )

    assert setup.architecture == encoder_file.read(str(folder))
    for value, other in zip(
        setup.state.model.get_weights(),
        load_run(folder).model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "encoder.json cannot be read .*No such file.*; take it from a copy"),
        ("{", "encoder.json cannot be read .*; take it from a copy"),
        ('{"format_version": 9}', "has the format version 9, and this segloop knows 1"),
    ],
)
def test_a_run_without_its_architecture_is_refused(finished, tmp_path, text, message):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / "encoder.json").unlink()
    if text:
        (folder / "encoder.json").write_text(text)
    with pytest.raises(errors.CheckpointError, match=message):
        load_run(folder)


def _fail(config):
    with pytest.raises(errors.ConfigError) as caught:
        _run(config)
    return str(caught.value)


def test_a_preset_that_is_not_there_is_named(hub, tmp_path):
    config = _read("mit_b0_ade20k_51", model_dir=tmp_path)
    assert (
        "--encoder=keras_hub:mit_b0_ade20k_51: KerasHub "
        f"{hub.__version__} knows no such preset (did you mean mit_b0_ade20k_512 or "
    ) in _fail(config)
    message = _fail(_read(tmp_path / "none", model_dir=tmp_path))
    assert "there is no such folder; name a preset, such as mit_b0" in message
    message = _fail(_read(tmp_path, model_dir=tmp_path))
    assert "this folder is no preset that can be read (Preset " in message


def test_a_download_that_fails_is_told_in_a_sentence(hub, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr(hub.models.Backbone, "from_preset", fail)
    message = _fail(_read("mit_b0_ade20k_512", model_dir=tmp_path))
    assert message.startswith("--encoder=keras_hub:mit_b0_ade20k_512: the preset could")
    assert "(no route); fetch it on a machine with a network" in message


def test_weights_that_do_not_fit_are_told_in_a_sentence(presets, tmp_path):
    preset = shutil.copytree(presets[0] / "resnet", tmp_path / "preset")
    config = json.loads((preset / "config.json").read_text())
    config["config"]["stackwise_num_filters"] = [64, 8, 8, 16]
    (preset / "config.json").write_text(json.dumps(config))
    message = _fail(_read(preset, model_dir=tmp_path / "run"))
    assert "this folder is no preset that can be read (" in message
    path = presets[0] / "mit" / "model.weights.h5"
    config = _read(
        presets[0] / "resnet", f"--encoder_weights={path}", model_dir=tmp_path
    )
    assert _fail(config).startswith(
        f"--encoder_weights={path}: this file does not hold the encoder's weights"
    )


def test_what_serves_as_no_encoder_is_refused(hub, tmp_path):
    vit = hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=16,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        mlp_dim=4,
    )
    backbones = {
        "vit": (vit, "a ViTBackbone has no feature maps of several sizes.*MiT, Seg"),
        "thirds": (
            _make_resnet(hub, stride=3),
            "of images of 256x256 pixels it makes a map of 22x22, which is no size",
        ),
        "gray": (
            _make_resnet(hub, channels=1),
            "its first layer takes 1 channels, and the images have 3; use "
            "--image_channels=1, or",
        ),
    }
    for name, (backbone, message) in backbones.items():
        backbone.save_to_preset(str(tmp_path / name))
        with pytest.raises(encoders.PresetError, match=message):
            encoders.build_encoder(f"keras_hub:{tmp_path / name}", (32, 32))


def test_layers_with_weights_of_their_own_are_refused(hub, tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Shift(keras.layers.Layer):
        def build(self, input_shape):
            self.shift = self.add_weight(shape=input_shape[-1:])

        def call(self, inputs):
            return inputs + self.shift

    @keras.saving.register_keras_serializable("tests")
    class Shifted(hub.models.FeaturePyramidBackbone):
        def __init__(self, **kwargs):
            images = keras.Input((None, None, 3))
            features = keras.layers.Conv2D(4, 3, strides=2, padding="same")(images)
            maps = Shift()(features)
            super().__init__(images, maps, **kwargs)
            self.pyramid_outputs = {"P1": maps}

    Shifted().save_to_preset(str(tmp_path))
    with pytest.raises(encoders.PresetError, match=r"layers \(.*\) that are not made"):
        encoders.build_encoder(f"keras_hub:{tmp_path}", (32, 32))


def test_settings_that_follow_from_the_strides_are_checked(presets, tmp_path):
    preset = presets[0] / "mit"
    config = _read(preset, "--freeze_encoder_stages=2", model_dir=tmp_path)
    assert "has 2 feature maps, so that this is --freeze_encoder" in _fail(config)
    config = _read(preset, "--decoder_filters=8,8", model_dir=tmp_path)
    assert "takes 1 number, such as --decoder_filters=256" in _fail(config)


def test_what_is_assumed_of_the_images_is_said_where_weights_count(
    presets, tmp_path, caplog
):
    preset = shutil.copytree(presets[0] / "mit", tmp_path / "preset")
    caplog.set_level(logging.WARNING)
    model_lib.open_preset(_read(preset).model)
    (preset / "image_converter.json").unlink()
    model_lib.open_preset(_read(preset, "--encoder_weights=none").model)
    assert not caplog.records
    model_lib.open_preset(_read(preset).model)
    (record,) = caplog.records
    assert "there is no image_converter.json in this preset" in record.getMessage()


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    message = _fail(_read("mit_b0_ade20k_512", model_dir=tmp_path))
    assert "keras_hub is not installed; `pip install '.[hub]'` in a clone" in message


def test_an_option_of_other_encoders_is_refused():
    with pytest.raises(errors.ConfigError, match="--encoder_alpha=0.5: .* only with"):
        _read("mit_b0_ade20k_512", "--encoder_alpha=0.5")
    with pytest.raises(errors.ConfigError, match="--encoder=keras_hub:: use one of"):
        _read("")


def test_models_compute_in_bfloat16(presets, build):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, _ = encoders.build_encoder(f"keras_hub:{presets[0] / 'mit'}", (None, None))
    images = test_encoders._make_images(1)
    for features, other in zip(model(images), build("mit")[0](images), strict=True):
        assert features.dtype == tf.bfloat16
        difference = tf.cast(features, tf.float64) - other
        assert np.std(difference) < 0.02 * np.std(other)
