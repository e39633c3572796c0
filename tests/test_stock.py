"""Models of Keras' own layers compute what this package's do."""

import importlib

import keras
import numpy as np
import pytest

from models import registry, scaling, stock
from models.encoders import mit
from models.fast import convolutions, dense
from tests import helpers, shallow


def _randomize(model):
    """Gives a model weights that show: also those of norms, and all shifts."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance", "deviation")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif len(weight.shape) == 1:
            weight.assign(random.normal(0, 0.3, weight.shape))
        else:
            deviation = np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(random.normal(0, deviation, weight.shape))


def _assert_same(model):
    """Checks a stock model; returns it."""
    _randomize(model)
    made = stock.make_stock_model(model)
    random = np.random.default_rng(1)
    images = [
        random.uniform(0, 255, (2, *images.shape[1:])).astype(np.float32)
        for images in model.inputs
    ]
    images = images if len(images) > 1 else images[0]
    expected = model(images, training=False).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(
        made(images, training=False).numpy(),
        expected,
        rtol=1e-4,
        atol=1e-4 * np.abs(expected).max(),
    )
    return made


def _all_layers(model):
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)


@pytest.mark.parametrize("decoder", registry.DECODERS)
@pytest.mark.usefixtures("pix2pix")
def test_every_decoder_is_made_of_stock_layers(decoder):
    _assert_same(_make_decoder(decoder))


def test_group_norm_and_dropout_have_stock_layers():
    _assert_same(_make_decoder("unet", norm="group", dropout=0.5))


def _make_decoder(name, **options):
    """Makes a model from feature maps of 64x32 pixels to logits."""
    strides = (2, 4, 8, 16, 32)
    maps = [keras.Input((64 // stride, 32 // stride, 4)) for stride in strides]
    filters = [8 for _ in registry.default_filters(name, strides)]
    decode = registry.load_decoder(name)
    return keras.Model(maps, decode(maps, strides, 3, filters=filters, **options))


def test_a_whole_model_is_made_of_stock_layers(monkeypatch):
    shallow.shorten(monkeypatch)
    # An odd size, so that images are padded and logits cut.
    made = _assert_same(helpers.build_unet(image_size=(37, 45)))
    assert {type(layer).__module__.split(".")[0] for layer in _all_layers(made)} == {
        "keras"
    }


def test_images_are_clipped_to_their_range():
    inputs = keras.Input((6, 5, 4))
    scale = scaling.make_image_scaling(
        scaling.LIKE_PHOTOS, scaling.Images(4, (20, 200)), multiple=4
    )
    _assert_same(keras.Model(inputs, scale(inputs)))


@pytest.mark.parametrize("name", ["litert_int8", "onnx_file"])
def test_files_clip_images_to_their_range(name, tmp_path):
    pytest.importorskip("onnxruntime" if name == "onnx_file" else "ai_edge_litert")
    form = importlib.import_module(f"trainer.exporting.formats.{name}")
    images = keras.Input((8, 8, 3))
    scale = scaling.make_image_scaling(
        scaling.LIKE_PHOTOS, scaling.Images(value_range=(20, 200)), multiple=1
    )
    model = keras.Model(images, keras.layers.Conv2D(3, 3)(scale(images)))
    photos = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    made = stock.make_stock_model(model)
    form.write(helpers.network_to_export(made, photos), str(tmp_path))
    run = form.load(str(tmp_path))
    found = run(photos)["probabilities"]
    np.testing.assert_array_equal(found, run(photos.clip(20, 200))["probabilities"])
    expected = keras.ops.softmax(model(photos))
    assert np.abs(found - expected).mean() < 0.02


def test_a_dense_layer_has_a_stock_layer():
    inputs = keras.Input((6, 5, 4))
    made = _assert_same(
        keras.Model(inputs, dense.Dense(3, activation="gelu", name="dense")(inputs))
    )
    assert type(made.get_layer("dense")) is keras.layers.Dense


def test_a_grouped_convolution_is_split():
    inputs = keras.Input((6, 5, 4))
    grouped = convolutions.Conv2D(
        6, 3, groups=2, padding="same", activation="relu", name="grouped"
    )
    made = _assert_same(keras.Model(inputs, grouped(inputs)))
    assert all(getattr(layer, "groups", 1) == 1 for layer in made.layers)


def test_attention_is_made_of_stock_operations():
    inputs = [keras.Input((4, 3, 8)), keras.Input((2, 3, 8)), keras.Input((2, 3, 8))]
    scaled = [keras.layers.Rescaling(1 / 255)(maps) for maps in inputs]
    attend = mit.Attention(2, 0.1, stream="a", name="attend")
    _assert_same(keras.Model(inputs, attend(scaled)))


def test_a_layer_that_is_not_known_is_named():
    class Strange(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    inputs = keras.Input((4, 4, 3))
    with pytest.raises(ValueError, match="^Strange is no layer of Keras' own$"):
        stock.make_stock_model(keras.Model(inputs, Strange()(inputs)))
