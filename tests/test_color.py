"""Tests of the changes of colour, against hand-computed colours."""

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.augmentation import color, registry

# Luma: 0.299 * 100 + 0.587 * 50 + 0.114 * 200 = 29.9 + 29.35 + 22.8 = 82.05, and
# 0.299 * 20 + 0.587 * 40 + 0.114 * 60 = 5.98 + 23.48 + 6.84 = 36.3; mean 59.175.
TWO_PIXELS = np.array([[[[100, 50, 200], [20, 40, 60]]]], np.uint8)


def adjust(images, *, use_xla=False, image_format=schema.RGB, **numbers):
    """Changes colours by given numbers; one is for all images, or a list.

    They are factors of brightness, contrast and saturation, and degrees of hue.
    """

    def change(images):
        means, composed = color.channel_means(images), None
        for name in ("brightness", "contrast", "saturation", "hue"):
            if name not in numbers:
                continue
            # The strength is the greatest, so that draws of 0 to 1 span 0 to 2 as a
            # factor, and -/+ 180 degrees.
            is_hue = name == "hue"
            (made,) = registry.make(
                {f"random_{name}": 180.0 if is_hue else 1.0}, image_format
            ).values()
            number = np.broadcast_to(numbers[name], len(images))
            draws = number / 360 + 0.5 if is_hue else number / 2
            step = made.map_colors(tf.constant(draws[:, None], tf.float32), means)
            means = color.transform_means(step, means)
            composed = color.compose(step, composed) if composed else step
        return color.apply(images, composed, image_format.value_range)

    adjusted = tf.function(change, jit_compile=use_xla)(tf.constant(images))
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

    adjusted = adjust(images, brightness=1.0, contrast=1.0, saturation=1.0)

    np.testing.assert_array_equal(adjusted, images)


def test_grey_stays_grey():
    images = np.repeat(np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1) * 20, 3, 3)

    adjusted = adjust(images, brightness=1.1, contrast=0.8, saturation=1.9, hue=50.0)

    np.testing.assert_allclose(adjusted, adjusted[..., :1].repeat(3, 3), atol=1e-3)


def test_fractions_of_float_images_are_kept():
    images = TWO_PIXELS + np.float32(0.25)

    np.testing.assert_array_equal(adjust(images, brightness=1.0), images)


def test_a_turn_of_hue_by_hand():
    """Of red of 100, with Y = 29.9, I = 59.59 and Q = 21.15.

    A half turn keeps Y and reverses I and Q, and so 2 Y less the colour comes out:
    2 * 29.9 - 100 = -40.2, clipped, and 2 * 29.9 - 0 = 59.8 twice.
    """
    image = np.array([[[[100, 0, 0], [50, 50, 50]]]], np.uint8)

    adjusted = adjust(image, hue=180.0)

    np.testing.assert_allclose(adjusted[0, 0], [[0, 59.8, 59.8], [50] * 3], atol=0.02)


def test_turns_of_hue_keep_luma_and_add_up():
    images = np.random.default_rng(5).integers(90, 160, (1, 4, 5, 3)).astype(np.uint8)

    quarter = adjust(images, hue=40.0)
    whole = adjust(quarter, hue=-40.0)

    np.testing.assert_allclose(whole, images, atol=1e-3)
    assert np.abs(quarter - images).max() > 10
    luma = [pixels @ np.array(schema.LUMA_WEIGHTS) for pixels in (quarter, images)]
    np.testing.assert_allclose(*luma, atol=0.01)


def test_one_channel_is_changed_from_black_and_about_its_mean():
    """Values 1000 and 3000 of 1000..5000: twice as far from 1000; half from 2000."""
    kind = schema.ImageFormat(1, (1000, 5000))
    images = np.array([[[[1000], [3000]]]], np.uint16)

    for numbers, expected in (
        ({"brightness": 2.0}, [1000, 5000]),
        ({"contrast": 0.5}, [1500, 2500]),
        ({"contrast": 1.75, "brightness": 1.5}, [1000, 5000]),  # 375, 5125 clipped.
    ):
        adjusted = adjust(images, image_format=kind, **numbers)
        np.testing.assert_allclose(adjusted[0, 0, :, 0], expected, atol=1e-2)


def test_the_mean_of_many_channels_counts_all_alike():
    kind = schema.ImageFormat(4, (0, 255))
    images = np.array([[[[10, 20, 30, 140]]]], np.uint8)

    adjusted = adjust(images, image_format=kind, contrast=0.0)

    np.testing.assert_allclose(adjusted[0, 0, 0], [50] * 4, atol=1e-4)


@pytest.mark.parametrize("name", ["random_saturation", "random_hue"])
def test_colours_of_what_is_not_rgb_are_not_changed(name):
    message = rf"^--{name}=0\.5: it is for images of 3 channels, .* have 4 \("
    with pytest.raises(ValueError, match=message):
        registry.make({name: 0.5}, schema.ImageFormat(4, (0, 255)))
