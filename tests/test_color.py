"""Tests of brightness, contrast and saturation, against hand-computed colours."""

import numpy as np
import pytest
import tensorflow as tf

from data.augmentation import color

# Luma: 0.299 * 100 + 0.587 * 50 + 0.114 * 200 = 29.9 + 29.35 + 22.8 = 82.05, and
# 0.299 * 20 + 0.587 * 40 + 0.114 * 60 = 5.98 + 23.48 + 6.84 = 36.3; mean 59.175.
TWO_PIXELS = np.array([[[[100, 50, 200], [20, 40, 60]]]], np.uint8)


def adjust(images, *, brightness=1.0, contrast=1.0, saturation=1.0, use_xla=False):
    """Adjusts images; a factor is one for all of them, or a list."""
    factors = {
        name: tf.constant(np.broadcast_to(value, len(images)), tf.float32)
        for name, value in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
        )
    }
    adjusted = tf.function(color.adjust, jit_compile=use_xla)(
        tf.constant(images), **factors
    )
    assert adjusted.dtype == tf.float32
    return adjusted.numpy()


def adjust_in_turn(image, brightness, contrast, saturation):
    """Adjusts one image step by step; clips once, at the end."""

    def luma(pixels):
        return (pixels @ [0.299, 0.587, 0.114])[:, :, np.newaxis]

    image = image.astype(np.float64) * brightness
    image = contrast * image + (1 - contrast) * luma(image).mean()
    image = saturation * image + (1 - saturation) * luma(image)
    return np.clip(image, 0, 255)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({"brightness": 0.5}, [[50, 25, 100], [10, 20, 30]]),
        # 1.5 * 200 = 300 is clipped.
        ({"brightness": 1.5}, [[150, 75, 255], [30, 60, 90]]),
        ({"brightness": 0.0}, [[0, 0, 0], [0, 0, 0]]),
        # Half of the pixel and half of the mean, 29.5875.
        (
            {"contrast": 0.5},
            [[79.5875, 54.5875, 129.5875], [39.5875, 49.5875, 59.5875]],
        ),
        ({"contrast": 0.0}, [[59.175] * 3, [59.175] * 3]),
        # Twice the pixel less the mean; 340.825 and -19.175 are clipped.
        ({"contrast": 2.0}, [[140.825, 40.825, 255], [0, 20.825, 60.825]]),
        ({"saturation": 0.0}, [[82.05] * 3, [36.3] * 3]),
        # Half of the pixel and half of its luma, 41.025 and 18.15.
        (
            {"saturation": 0.5},
            [[91.025, 66.025, 141.025], [28.15, 38.15, 48.15]],
        ),
        # The mean is that of the darker image: 0.5 * 59.175 = 29.5875.
        ({"brightness": 0.5, "contrast": 0.0}, [[29.5875] * 3, [29.5875] * 3]),
    ],
)
def test_colours_by_hand(factors, expected):
    adjusted = adjust(TWO_PIXELS, **factors)

    np.testing.assert_allclose(adjusted[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("use_xla", [False, True], ids=["plain", "xla"])
def test_each_image_has_factors_of_its_own(use_xla):
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (6, 4, 7, 3)).astype(np.uint8)
    factors = random.uniform(0, 2, (3, 6))

    adjusted = adjust(
        images,
        brightness=factors[0],
        contrast=factors[1],
        saturation=factors[2],
        use_xla=use_xla,
    )

    for row in range(6):
        expected = adjust_in_turn(images[row], *factors[:, row])
        np.testing.assert_allclose(adjusted[row], expected, atol=1e-3)
    assert (adjusted == 0).any() and (adjusted == 255).any()


def test_factors_of_one_change_no_bit():
    images = np.random.default_rng(3).integers(0, 256, (2, 4, 7, 3)).astype(np.uint8)

    np.testing.assert_array_equal(adjust(images), images)


def test_grey_stays_grey():
    images = np.repeat(np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1) * 20, 3, 3)

    adjusted = adjust(images, brightness=1.1, contrast=0.8, saturation=1.9)

    np.testing.assert_allclose(adjusted, adjusted[..., :1].repeat(3, 3), atol=1e-3)


def test_fractions_of_float_images_are_kept():
    images = TWO_PIXELS + np.float32(0.25)

    np.testing.assert_array_equal(adjust(images), images)
