"""Images come to a network in its range and order, large enough for its strides."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import scaling
from tests import helpers

_CAFFE = scaling.Scaling(mean=(10.0, 20.0, 30.0), scale=(0.5,), is_bgr=True)


def _images(height, width, channels=3):
    count = height * width * channels
    return np.arange(count, dtype=np.float32).reshape(1, height, width, channels)


def _make(channels=3, multiple=1, kind=_CAFFE):
    return scaling.make_image_scaling(kind, scaling.Images(channels), multiple=multiple)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("size", [(8, 16), (5, 9), (1, 3), (2, 2), (3, 8)])
def test_images_are_mirrored_up_to_a_multiple(size, is_known):
    layer = _make(multiple=8, kind=scaling.Scaling(mean=(0.0,), scale=(1.0,)))
    images = keras.Input((*size, 3) if is_known else (None, None, 3))
    model = keras.Model(images, layer(images))
    margins = [(0, -side % 8) for side in size]

    padded = np.asarray(model(_images(*size)))

    # NumPy mirrors again and again where the margin is larger than the image, too.
    expected = np.pad(_images(*size), [(0, 0), *margins, (0, 0)], mode="reflect")
    np.testing.assert_array_equal(padded, expected)
    if is_known:
        assert model.output_shape[1:] == expected.shape[1:]


def test_mean_and_scale_are_those_of_the_colours_and_blue_is_first():
    images = np.array([[[[100, 200, 300]]]], np.float32)
    # (100 - 10) / 2 = 45, (200 - 20) / 2 = 90, (300 - 30) / 2 = 135.
    np.testing.assert_allclose(_make()(images), [[[[135, 90, 45]]]])


def test_more_channels_are_scaled_in_turn_and_one_by_the_mean():
    images = np.full((1, 1, 1, 5), 100, np.float32)
    np.testing.assert_allclose(_make(5)(images), [[[[45, 40, 35, 45, 40]]]])
    # (10 + 20 + 30) / 3 = 20.
    np.testing.assert_allclose(_make(1)(images[..., :1]), [[[[40]]]])


def test_a_layer_can_be_made_again_from_its_config():
    layer = _make(multiple=4)
    again = scaling.ImageScaling.from_config(layer.get_config())
    np.testing.assert_array_equal(again(_images(3, 3)), layer(_images(3, 3)))


def test_a_range_is_mapped_to_that_of_photos():
    images = np.array([[[[1000, 1500, 3000]]]], np.float32)
    layer = scaling.make_image_scaling(
        _CAFFE, scaling.Images(value_range=(1000, 3000)), multiple=1
    )
    # 0, 63.75 and 255 of 0..255: (0 - 10) / 2, (63.75 - 20) / 2, (255 - 30) / 2.
    np.testing.assert_allclose(layer(images), [[[[112.5, 21.875, -5]]]])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_values_beyond_a_range_count_as_its_ends(dtype):
    images = np.array([[[[900, 1500, 65535]]]], dtype)
    ends = np.array([[[[1000, 1500, 3000]]]], dtype)
    layer = scaling.make_image_scaling(
        _CAFFE, scaling.Images(value_range=(1000, 3000)), multiple=1
    )
    np.testing.assert_array_equal(layer(images), layer(ends))


@pytest.mark.parametrize("high", [255, 65535])
def test_of_a_whole_range_nothing_is_clipped(high):
    """So such a model has no op more."""
    layer = scaling.make_image_scaling(
        _CAFFE, scaling.Images(value_range=(0, high)), multiple=1
    )
    assert layer.clipped_range is None


@pytest.mark.parametrize("replicas", [1, 2])
def test_measured_channels_get_the_statistics_of_photos(replicas):
    """Of five channels with weights for photos, the last two are measured."""
    kind = scaling.Scaling(mean=(0.0,), scale=(1.0,))
    strategy = helpers.make_strategy(replicas)
    with strategy.scope():
        layer = scaling.make_image_scaling(
            kind, scaling.Images(5, (0, 510)), multiple=1
        )
        layer.build((None, None, None, 5))
        images = _images(4, 4, 5)
        # As long as nothing is measured, all channels are scaled alike.
        np.testing.assert_allclose(layer(images), images / 2, rtol=1e-6)
        layer.set_statistics(images.mean((0, 1, 2)), images.std((0, 1, 2)))
    outputs = strategy.run(lambda: layer(tf.constant(images)))

    for output in strategy.experimental_local_results(outputs):
        output = np.asarray(output)
        np.testing.assert_allclose(output[..., :3], images[..., :3] / 2, rtol=1e-6)
        measured = output[..., 3:]
        for actual, expected in (
            (measured.mean((0, 1, 2)), scaling.PHOTO_MEAN[:2]),
            (measured.std((0, 1, 2)), scaling.PHOTO_DEVIATION[:2]),
        ):
            np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_all_channels_are_measured_where_there_are_no_weights_for_them():
    layer = scaling.make_image_scaling(
        _CAFFE, scaling.Images(3, is_measured=True), multiple=1
    )
    layer.build((None, None, None, 3))
    layer.set_statistics([100, 100, 100], [50, 50, 50])

    # The mean becomes that of photos, then (mean - 10) / 2 and so on, blue first.
    red, green, blue = scaling.PHOTO_MEAN
    expected = [[[[(blue - 30) / 2, (green - 20) / 2, (red - 10) / 2]]]]
    np.testing.assert_allclose(layer(np.full((1, 1, 1, 3), 100.0)), expected, rtol=1e-5)


def test_checkpoints_of_photos_have_no_statistics():
    layer = _make()
    layer(_images(2, 2))
    assert layer.weights == []


def test_low_bits_reach_the_network_in_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = scaling.make_image_scaling(
        scaling.Scaling(mean=(0.0,), scale=(1.0,)),
        scaling.Images(1, (0, 65535)),
        multiple=1,
    )
    inputs = keras.Input((None, None, 1))
    encoder = keras.Model(inputs, layer(inputs))
    outer = keras.Input((None, None, 1))
    model = keras.Model(outer, encoder(outer))
    images = np.array([[[[40000], [40001]]]])

    for dtype in (np.uint16, np.float32):
        scaled = np.asarray(model(images.astype(dtype), training=True))
        np.testing.assert_allclose(scaled.ravel(), images.ravel() / 257, rtol=1e-6)
