"""Files of all kinds come to the channels and bits that are asked for."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from data import schema
from data.files import decoding, graph_decoding, image_decoding, images, tiff
from tests import test_masks

_RANDOM = np.random.default_rng(8)
_COLORS = _RANDOM.integers(0, 256, (6, 9, 3), np.uint8)
_ALPHA = _RANDOM.integers(0, 256, (6, 9, 1), np.uint8)
_GRAY = _COLORS[..., :1]
_RGBA = np.concatenate([_COLORS, _ALPHA], axis=-1)
_OPAQUE = np.full_like(_ALPHA, 255)
_WIDE = _RANDOM.integers(0, 65536, (6, 9, 8), np.uint16)
_LUMA = np.rint(_COLORS @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]


def make_tiff(pixels, **kwargs) -> bytes:
    """Writes a TIFF file of bands that are no colours."""
    file = io.BytesIO()
    settings = {"photometric": "minisblack", "planarconfig": "contig", **kwargs}
    tifffile.imwrite(file, pixels, **settings)
    return file.getvalue()


def _set_compression(encoded, number):
    none = struct.pack("<HHIHH", 259, 3, 1, 1, 0)
    assert none in encoded
    return encoded.replace(none, struct.pack("<HHIHH", 259, 3, 1, number, 0))


def _decode(encoded, num_channels=3, value_range=(0, 255)):
    return image_decoding.decode_image(
        encoded, schema.ImageFormat(num_channels, value_range)
    )


def _stack(*channels):
    return np.concatenate(channels, axis=-1)


@pytest.mark.parametrize(
    ("pixels", "num_channels", "expected"),
    [
        (_GRAY, 1, _GRAY),
        (_GRAY, 2, _stack(_GRAY, _OPAQUE)),
        (_GRAY, 4, _stack(_GRAY, _GRAY, _GRAY, _OPAQUE)),
        (_stack(_GRAY, _ALPHA), 1, _GRAY),
        (_stack(_GRAY, _ALPHA), 2, _stack(_GRAY, _ALPHA)),
        (_stack(_GRAY, _ALPHA), 4, _stack(_GRAY, _GRAY, _GRAY, _ALPHA)),
        (_COLORS, 1, _LUMA),
        (_COLORS, 2, _stack(_LUMA, _OPAQUE)),
        (_COLORS, 4, _stack(_COLORS, _OPAQUE)),
        (_RGBA, 1, _LUMA),
        (_RGBA, 2, _stack(_LUMA, _ALPHA)),
        (_RGBA, 4, _RGBA),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_channels_are_those_asked_for(kind, pixels, num_channels, expected):
    encoded = test_masks.encode(Image.fromarray(pixels.squeeze()), kind)

    np.testing.assert_array_equal(_decode(encoded, num_channels), expected)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_zero_is_shown_white_where_the_file_says_so(dtype):
    greatest = 1 if dtype is bool else np.iinfo(dtype).max
    stored = np.array([[[0], [greatest]], [[greatest], [0]]], dtype)
    encoded = make_tiff(stored[..., 0], photometric="miniswhite")

    np.testing.assert_array_equal(_decode(encoded, 1), np.where(stored, 0, 255))
    if dtype is np.uint16:
        wide = _decode(encoded, 3, (0, 65535))
        np.testing.assert_array_equal(wide, (65535 - stored).repeat(3, -1))


def test_a_palette_may_have_a_transparent_color():
    image = Image.fromarray(np.uint8([[0, 1]])).convert("P")
    image.putpalette([9, 8, 7, 200, 100, 50])
    encoded = test_masks.encode(image, transparency=1)

    assert _decode(encoded, 4).tolist() == [[[9, 8, 7, 255], [200, 100, 50, 0]]]


def test_gray_and_colors_may_have_a_transparent_one():
    gray = test_masks.encode(Image.fromarray(np.uint8([[3, 5]])), transparency=5)
    pixels = np.uint8([[[1, 2, 3], [4, 5, 6]]])
    colored = test_masks.encode(Image.fromarray(pixels), transparency=(1, 2, 3))

    assert _decode(gray, 2).tolist() == [[[3, 255], [5, 0]]]
    assert _decode(colored, 4).tolist() == [[[1, 2, 3, 0], [4, 5, 6, 255]]]


@pytest.mark.parametrize("num_bands", [1, 3, 4])
def test_16_bits_of_png_are_kept_or_cut(num_bands):
    pixels = _WIDE[..., :num_bands]
    encoded = tf.io.encode_png(pixels).numpy()

    kept = _decode(encoded, num_bands, (0, 65535))

    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(kept, pixels)
    np.testing.assert_array_equal(_decode(encoded, num_bands), pixels >> 8)


@pytest.mark.cross_section
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"planarconfig": "separate"},
        {"tile": (16, 16)},
        {"tile": (16, 16), "planarconfig": "separate", "compression": "zlib"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "predictor": True, "planarconfig": "separate"},
        {"compression": "deflate"},
        {"compression": "lzma"},
        {"byteorder": ">"},
        {"byteorder": ">", "compression": "zlib", "predictor": True},
        {"bigtiff": True},
        {"bigtiff": True, "byteorder": ">", "tile": (16, 16)},
        {"rowsperstrip": 2},
        {"photometric": "rgb", "extrasamples": ["unspecified"] * 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_of_tiff_are_taken_as_they_are(settings, dtype):
    pixels = _WIDE.astype(dtype)  # [height, width, bands]
    is_planar = settings.get("planarconfig") == "separate"
    encoded = make_tiff(np.moveaxis(pixels, -1, 0) if is_planar else pixels, **settings)

    decoded = _decode(encoded, 8, (0, np.iinfo(dtype).max))

    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, pixels)
    header = images.read_header(encoded)
    assert (header.size, header.num_bands) == ((6, 9), 8)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_tiles_of_tiff_are_put_together(planarconfig):
    """Of 2 x 3 tiles, those at the right and below reach over the edge."""
    pixels = _RANDOM.integers(0, 65536, (20, 35, 5), np.uint16)
    stored = np.moveaxis(pixels, -1, 0) if planarconfig == "separate" else pixels
    encoded = make_tiff(
        stored, tile=(16, 16), planarconfig=planarconfig, compression="zlib"
    )

    np.testing.assert_array_equal(_decode(encoded, 5, (0, 65535)), pixels)


def test_packbits_of_tiff_are_unpacked():
    # 3 bytes as they are, 5 times a 7, and two bytes of no meaning: 8 bytes for 8.
    packed = np.uint8([2, 1, 2, 3, 256 - 4, 7, 128, 128]).reshape(1, 1, 8)
    encoded = _set_compression(make_tiff(packed), 32773)

    assert _decode(encoded, 8).tolist() == [[[1, 2, 3, 7, 7, 7, 7, 7]]]


@pytest.mark.parametrize("num_bands", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_few_bands_that_are_stored_one_after_the_other_are_all_taken(num_bands, dtype):
    """Pillow reads the first of them, and takes it for gray."""
    pixels = _WIDE[..., :num_bands].astype(dtype)
    encoded = make_tiff(
        np.moveaxis(pixels, -1, 0),
        planarconfig="separate",
        tile=(16, 16),
        compression="zlib",
    )
    value_range = (0, np.iinfo(dtype).max)

    np.testing.assert_array_equal(_decode(encoded, num_bands, value_range), pixels)
    if num_bands in (3, 4):
        colors = _decode(encoded, 3, value_range)
        np.testing.assert_array_equal(colors, pixels[..., :3])


def test_lzw_of_tiff_is_read_where_pillow_does():
    def encode(pixels):
        return test_masks.encode(
            Image.fromarray(pixels), "TIFF", compression="tiff_lzw"
        )

    wide = _decode(encode(_WIDE[..., 0]), 1, (0, 65535))

    np.testing.assert_array_equal(wide, _WIDE[..., :1])
    np.testing.assert_array_equal(_decode(encode(_RGBA), 4), _RGBA)
    np.testing.assert_array_equal(_decode(encode(_COLORS)), _COLORS)


@pytest.mark.parametrize("num_bands", [1, 3, 5])
def test_of_several_pages_of_tiff_the_first_is_taken(num_bands):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in (_WIDE, _WIDE[::-1, :5], _WIDE[..., ::-1]):
            photometric = "rgb" if num_bands == 3 else "minisblack"
            writer.write(
                page[..., :num_bands].squeeze(),
                photometric=photometric,
                planarconfig="contig" if num_bands > 1 else None,
            )

    decoded = _decode(file.getvalue(), num_bands, (0, 65535))

    np.testing.assert_array_equal(decoded, _WIDE[..., :num_bands])


@pytest.mark.parametrize("tag", [256, 257])  # Width and height.
@pytest.mark.parametrize(
    ("kind", "number"),
    [(4, 0), (10, 5)],
    ids=["no pixels", "a fraction, which is two numbers"],
)
def test_a_tiff_whose_size_is_none_is_damaged(tag, kind, number):
    encoded = make_tiff(np.zeros((4, 5), np.uint8))
    entries = (struct.pack("<HHI", tag, usual, 1) for usual in (3, 4))
    place = max(map(encoded.find, entries))
    entry = struct.pack("<HHII", tag, kind, 1, number)
    damaged = encoded[:place] + entry + encoded[place + len(entry) :]
    assert tiff.read_layout(encoded).size == (4, 5)
    with pytest.raises(schema.DataError, match="its header is damaged"):
        images.read_header(damaged)


def test_16_bits_of_colored_and_gray_tiff_are_kept():
    colored = make_tiff(_WIDE[..., :3], photometric="rgb")
    gray = test_masks.encode(Image.fromarray(_WIDE[..., 0]), "TIFF")

    np.testing.assert_array_equal(_decode(colored, 3, (0, 4095)), _WIDE[..., :3])
    np.testing.assert_array_equal(_decode(gray, 1, (0, 4095)), _WIDE[..., :1])


def test_alpha_that_is_missing_is_the_greatest_value_of_the_range():
    """Not of the bits: predictions would warn of a value that no file has."""
    colors = _WIDE[..., :3].astype(np.uint16)
    decoded = _decode(make_tiff(colors, photometric="rgb"), 4, (0, 4095))
    np.testing.assert_array_equal(decoded[..., :3], colors)
    assert np.unique(decoded[..., 3]) == [4095]


def test_four_bands_that_are_no_alpha_are_taken_as_they_are():
    encoded = make_tiff(_RGBA, photometric="rgb", extrasamples=["unspecified"])

    np.testing.assert_array_equal(_decode(encoded, 4), _RGBA)
    np.testing.assert_array_equal(_decode(encoded, 3), _COLORS)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("num_bands", [2, 4])
def test_alpha_and_what_it_lies_beside_are_taken_as_they_are(
    num_bands, alpha, planarconfig, compression
):
    """Also where Pillow would divide by alpha, or lose it."""
    pixels = _stack(_GRAY, _ALPHA) if num_bands == 2 else _RGBA
    encoded = make_tiff(
        np.moveaxis(pixels, -1, 0) if planarconfig == "separate" else pixels,
        photometric="minisblack" if num_bands == 2 else "rgb",
        extrasamples=[alpha],
        planarconfig=planarconfig,
        compression=compression,
    )

    np.testing.assert_array_equal(_decode(encoded, num_bands), pixels)
    assert _decode(encoded).shape == (6, 9, 3)
    if alpha == "unassalpha":
        colors = np.broadcast_to(pixels[..., : num_bands - 1], (6, 9, 3))
        np.testing.assert_array_equal(_decode(encoded), colors)


def test_16_bits_of_planar_bands_without_compression_come_to_colors():
    encoded = make_tiff(
        np.moveaxis(_WIDE[..., :4], -1, 0),
        photometric="rgb",
        extrasamples=["unspecified"],
        planarconfig="separate",
    )

    np.testing.assert_array_equal(_decode(encoded), _WIDE[..., :3] >> 8)


@pytest.mark.parametrize(
    ("encoded", "num_channels", "value_range", "message"),
    [
        (make_tiff(_WIDE), 3, (0, 65535), "8 bands, and --image_channels=3; say .*=8,"),
        (make_tiff(_WIDE), 9, (0, 65535), "8 bands, and --image_channels=9; say .*=8,"),
        (test_masks.encode(Image.fromarray(_COLORS)), 8, (0, 255), "has 3 bands, and"),
        (
            test_masks.encode(Image.fromarray(_COLORS)),
            3,
            (0, 4095),
            "has 8 bits, and --image_range=0,4095 is of 16; .* say --image_range=0,255",
        ),
        (make_tiff(_WIDE.astype(np.float32)), 8, (0, 9999), "of 32 float bits; store"),
        (make_tiff(_WIDE.astype(np.int16)), 8, (0, 9999), "of 16 signed bits; store"),
        (make_tiff(_WIDE)[:300], 8, (0, 65535), "cannot be decoded"),
        *(
            (
                _set_compression(make_tiff(_WIDE, **settings), number),
                8,
                (0, 65535),
                f"^it is compressed by {name}, which only .* imagecodecs`, or write "
                "the file with deflate$",
            )
            for number, name in ((5, "LZW"), (7, "JPEG"), (50000, "ZSTD"))
            for settings in ({}, {"tile": (16, 16)})
        ),
        (
            make_tiff(_WIDE, compression="zlib")[:-8] + bytes(8),
            8,
            (0, 65535),
            "^it cannot be decoded",
        ),
    ],
)
def test_what_does_not_fit_is_refused(encoded, num_channels, value_range, message):
    with pytest.raises(schema.DataError, match=message):
        _decode(encoded, num_channels, value_range)


def test_many_bands_are_turned_as_viewers_do():
    encoded = make_tiff(_WIDE, extratags=[(274, "H", 1, 6, True)])
    label = _RANDOM.integers(0, 3, (9, 6), np.uint8)  # As the image is shown.

    pixels, values = decoding.decode_pair(
        encoded,
        test_masks.encode(Image.fromarray(label)),
        image_format=schema.ImageFormat(8, (0, 65535)),
    )

    np.testing.assert_array_equal(pixels, images.turn(_WIDE, 6))
    np.testing.assert_array_equal(values, label)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_pixels_come_to_the_channels_in_a_graph_too(num_channels):
    image_format = schema.ImageFormat(num_channels)
    expected = _LUMA if num_channels == 1 else _COLORS

    @tf.function
    def decode(image, label):
        return graph_decoding.decode_pair_in_graph(image, label, (), image_format)

    pixels, _, is_valid = decode(tf.constant(_COLORS), tf.zeros([6, 9], tf.uint8))

    assert is_valid
    np.testing.assert_array_equal(pixels, expected)
