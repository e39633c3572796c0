"""Images come to a network in its range and order, large enough for its strides."""

import keras
import numpy as np
import pytest

from models import scaling

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
