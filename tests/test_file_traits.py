"""What files hold that training does not see."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.files import file_traits
from tests import test_image_decoding, test_masks

LABEL = np.zeros((4, 6), np.uint8)
TWELVE_BITS = np.arange(24, dtype=np.uint16).reshape(4, 6, 1) * 178 + 1  # To 4095.


def add_band(num_colors):
    """Returns pixels of 12 bits with another band, that is all 65535."""
    colors = TWELVE_BITS.repeat(num_colors, -1)
    return np.dstack([colors, np.full((4, 6), 65535, np.uint16)])


def encode_png(pixels):
    return tf.io.encode_png(pixels).numpy()


@pytest.mark.parametrize("value_range", [(0, 65535), (0, 4095), (0, 255)])
@pytest.mark.parametrize(
    "encode, num_colors, num_channels",
    [
        (encode_png, 3, 3),
        (encode_png, 3, 4),
        (encode_png, 1, 1),
        (encode_png, 1, 2),
        (test_image_decoding.make_tiff, 3, 3),
    ],
    ids=["dropped alpha", "alpha", "gray", "gray and alpha", "dropped band"],
)
def test_alpha_and_what_is_dropped_say_nothing_of_the_range(
    encode, num_colors, num_channels, value_range
):
    image_format = schema.ImageFormat(num_channels, value_range)
    plain = encode_png(TWELVE_BITS.repeat(num_colors, -1))

    found = [
        file_traits.look(image, LABEL, image_format)
        for image in (encode(add_band(num_colors)), plain)
    ]

    assert [one.greatest_16_bit for one in found] == [4095, 4095]
    told = [file_traits.describe_range([one], image_format) for one in found]
    assert told[0] == told[1]
    assert bool(told[0]) == (value_range != (0, 4095))


def test_a_further_band_that_is_seen_counts():
    encoded = test_image_decoding.make_tiff(add_band(3))

    found = file_traits.look(encoded, LABEL, schema.ImageFormat(4, (0, 4095)))

    assert found.greatest_16_bit == 65535


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize(
    "orientation, size, expected",
    [(3, (4, 6), 3), (6, (4, 4), 6), (6, (4, 6), 1), (6, (6, 4), 1), (1, (4, 6), 1)],
)
def test_a_turn_is_open_where_the_sizes_agree_both_ways(
    orientation, size, expected, is_file
):
    """Outlines of a JSON file may be drawn on the photo as stored, as masks may."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    shape = (4, 4) if size == (4, 4) else (4, 6)
    image = test_masks.encode(
        Image.fromarray(np.zeros((*shape, 3), np.uint8)), exif=exif
    )
    label = np.zeros(size, np.uint8)

    found = file_traits.look(
        image, test_masks.encode(Image.fromarray(label)) if is_file else label
    )

    assert found.orientation == expected
