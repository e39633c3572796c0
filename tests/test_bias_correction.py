"""Biases in 8 bits take back what the rounding of weights adds on average."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.exporting import bias_correction, lite_layers
from trainer.exporting.formats import litert_int8

_VISITS = [
    # Three rows, padded on both sides: the first weight never meets the last row.
    ((3, 3, 3, 1, 1), False, [[1, 1, 0], [1, 1, 1], [0, 1, 1]]),
    # Padded below alone: outputs 0 and 1 begin at rows 0 and 2.
    ((4, 2, 3, 2, 1), False, [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]),
    # Without padding.
    ((4, 2, 3, 1, 1), False, [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]),
    ((3, 3, 3, 1, 2), False, [[1, 0, 0], [1, 1, 1], [0, 0, 1]]),
    # Rows 0 and 1 begin at outputs 0 and 2, and the last weight of row 1 falls off.
    ((2, 4, 3, 2, 1), True, [[1, 1], [1, 1], [1, 0]]),
]


@pytest.mark.parametrize(("numbers", "is_transposed", "counts"), _VISITS)
def test_weights_at_the_rim_meet_fewer_features(numbers, is_transposed, counts):
    found = bias_correction.count_visits(*numbers, is_transposed=is_transposed)
    np.testing.assert_allclose(found, np.array(counts) / numbers[1])


def _draw(*shape):
    """Draws what is not 0 on average."""
    return np.random.default_rng(0).normal(0.5, 1.0, shape)


def _convolve(features, errors, strides, padding, dilations):
    kernel = errors.transpose(1, 2, 3, 0)  # [height, width, channels, outputs]
    return tf.nn.conv2d(features, kernel, strides, padding, dilations=dilations)


def _convolve_depthwise(features, errors, strides, padding, dilations):
    num_channels = features.shape[-1]
    # Outputs 0 and 1 are those of channel 0.
    kernel = errors.reshape(num_channels, -1, *errors.shape[1:3])
    return tf.nn.depthwise_conv2d(
        features,
        kernel.transpose(2, 3, 0, 1),
        [1, *strides, 1],
        padding,
        dilations=dilations,
    )


def _convolve_transposed(features, errors, strides, padding, dilations):
    del dilations
    size = [a * b for a, b in zip(features.shape[1:3], strides, strict=True)]
    return tf.nn.conv2d_transpose(
        features,
        errors.transpose(1, 2, 0, 3),
        [len(features), *size, len(errors)],
        strides,
        padding,
    )


def _multiply(features, errors, strides, padding, dilations):
    del strides, padding, dilations
    return tf.matmul(features, errors[:, 0, 0].T)


_LAYERS = [
    ("CONV_2D", _convolve, (5, 3, 3, 4), (1, 1), "SAME", (1, 1)),
    ("CONV_2D", _convolve, (5, 3, 2, 4), (2, 2), "SAME", (1, 1)),
    ("CONV_2D", _convolve, (5, 3, 3, 4), (2, 1), "VALID", (1, 1)),
    ("CONV_2D", _convolve, (5, 3, 3, 4), (1, 1), "SAME", (2, 3)),
    ("CONV_2D", _convolve, (6, 3, 3, 2), (1, 1), "SAME", (1, 1)),  # Two groups.
    ("DEPTHWISE_CONV_2D", _convolve_depthwise, (4, 3, 3, 1), (2, 2), "SAME", (1, 1)),
    ("DEPTHWISE_CONV_2D", _convolve_depthwise, (8, 3, 3, 1), (1, 1), "SAME", (1, 1)),
    ("TRANSPOSE_CONV", _convolve_transposed, (5, 3, 4, 4), (2, 2), "SAME", (1, 1)),
    ("FULLY_CONNECTED", _multiply, (5, 1, 1, 4), (1, 1), "", (1, 1)),
]


@pytest.mark.parametrize(
    ("kind", "compute", "shape", "strides", "padding", "dilations"), _LAYERS
)
def test_the_shift_is_what_errors_of_weights_add(
    kind, compute, shape, strides, padding, dilations
):
    features, errors = _draw(6, 7, 8, 4), _draw(*shape)
    outputs = compute(features, errors, strides, padding, dilations).numpy()
    layer = lite_layers.Layer(
        kind=kind,
        features=0,
        weights=errors,
        strides=strides,
        dilations=dilations,
        output_size=outputs.shape[1:3],
        bias=None,
        bias_scale=None,
    )
    mean = features.mean(axis=0, keepdims=True)
    shift = bias_correction.expect_shift(layer, errors, mean)
    np.testing.assert_allclose(shift, outputs.mean(axis=(0, 1, 2)))


def _make_model(shape, are_equal):
    """Returns a model to be exported, whose weights add up where rounding drops them.

    Of the 127 steps to the largest weight of a channel, all others have 0.4.

    Args:
      shape: of the images.
      are_equal: whether two layers have the same biases, of zeros.
    """
    images = keras.Input(shape)
    features = keras.layers.Rescaling(1 / 255)(images)
    for layer in (
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2DTranspose(3, 5),
    ):
        features = layer(features)
        kernel, bias = (np.zeros_like(array) for array in layer.get_weights())
        channels = kernel if layer.name.count("transpose") else kernel.swapaxes(2, 3)
        channels[:] = 0.4 / 127  # [height, width, outputs, channels]
        channels[:, :, 1:] *= -1
        channels[0, 0, :, 0] = 1.0
        if not (are_equal and len(bias) == 16):
            bias[:] = np.arange(len(bias)) / 100
        layer.set_weights([kernel, bias])
    return keras.Model(images, features)


@pytest.mark.parametrize("are_equal", [False, True])
def test_a_file_in_8_bits_is_right_on_the_mean(
    tmp_path, monkeypatch, caplog, are_equal
):
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("ai_edge_litert is not installed; pip install '.[export]' has it")
    correct, seen = bias_correction.correct, []

    def record(content, original, photos):
        seen.extend([content, original, photos])
        return correct(content, original, photos)

    monkeypatch.setattr(bias_correction, "correct", record)
    photos = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    model = _make_model(photos.shape[1:], are_equal)
    subject = helpers.network_to_export(model, photos)
    litert_int8.write(subject, str(tmp_path))
    before, original, given = seen
    after = (tmp_path / "model.tflite").read_bytes()
    np.testing.assert_array_equal(given, photos)
    with caplog.at_level("INFO", logger="absl"):
        assert correct(before, original, photos) == after
    assert "Corrected the biases of 3 of 3 layers in 8 bits" in caplog.text
    # Nothing else has changed than 35 biases, of four bytes each.
    separated = lite_layers.separate_biases(before)
    assert (separated == before) == (not are_equal)
    assert len(separated) == len(after)
    assert sum(a != b for a, b in zip(separated, after, strict=True)) <= 4 * 35
    expected = tf.nn.softmax(subject.model(photos)).numpy().mean(axis=(0, 1, 2))
    errors = []
    for content in (before, after):
        (tmp_path / "model.tflite").write_bytes(content)
        found = litert_int8.load(str(tmp_path))(photos)["probabilities"]
        errors.append(np.abs(found.mean(axis=(0, 1, 2)) - expected).max())
    assert errors[1] < errors[0] / 2


def test_a_file_of_other_layers_stays_as_it_is(monkeypatch, caplog):
    layer = lite_layers.Layer(
        "CONV_2D", 0, _draw(2, 1, 1, 3), (1, 1), (1, 1), (4, 4), 1, 1
    )
    layers = {b"rounded": [layer], b"original": [layer, layer]}
    monkeypatch.setattr(lite_layers, "read", layers.get)
    monkeypatch.setattr(lite_layers, "separate_biases", lambda content: content)
    corrected = bias_correction.correct(b"rounded", b"original", np.zeros([1, 4, 4, 3]))
    assert corrected == b"rounded"
    assert "not corrected: the converter has merged layers" in caplog.text
