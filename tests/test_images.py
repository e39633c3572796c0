"""Images of every kind become RGB of 8 bits; headers are read before pixels."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.files import image_decoding, images
from tests import test_masks

PIXELS = np.random.default_rng(5).integers(0, 256, (6, 9, 3), np.uint8)


def encode(image, kind="PNG", **kwargs):
    return test_masks.encode(image, kind, **kwargs)


def make_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_jpeg_and_png_are_decoded_by_tensorflow(kind):
    encoded = encode(Image.fromarray(PIXELS), kind)

    np.testing.assert_array_equal(
        image_decoding.decode_image(encoded), tf.io.decode_image(encoded, channels=3)
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_files_give_their_pixels(kind):
    kwargs = {"lossless": True} if kind == "WEBP" else {}

    decoded = image_decoding.decode_image(
        encode(Image.fromarray(PIXELS), kind, **kwargs)
    )

    np.testing.assert_array_equal(decoded, PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF"])
def test_gray_becomes_three_equal_channels(kind):
    encoded = encode(Image.fromarray(PIXELS[..., 0]), kind)

    decoded = image_decoding.decode_image(encoded)

    assert decoded.shape == (6, 9, 3)
    np.testing.assert_array_equal(decoded, decoded[..., :1].repeat(3, -1))
    if kind != "JPEG":
        np.testing.assert_array_equal(decoded[..., 0], PIXELS[..., 0])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_becomes_its_colors(kind):
    image = Image.fromarray(PIXELS).quantize(8)

    np.testing.assert_array_equal(
        image_decoding.decode_image(encode(image, kind)),
        np.asarray(image.convert("RGB")),
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_is_ignored(kind):
    image = Image.fromarray(PIXELS)
    image.putalpha(Image.fromarray(PIXELS[..., 1]))

    np.testing.assert_array_equal(
        image_decoding.decode_image(encode(image, kind)), PIXELS
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind):
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)

    decoded = image_decoding.decode_image(encode(Image.fromarray(values), kind))

    expected = np.array([[0, 0, 1], [128, 254, 255]])
    np.testing.assert_array_equal(decoded, expected[..., None].repeat(3, -1))


@pytest.mark.parametrize("kind, tolerance", [("TIFF", 0), ("JPEG", 40)])
def test_cmyk_becomes_rgb(kind, tolerance):
    smooth = np.asarray(Image.fromarray(PIXELS[:2, :3]).resize((60, 40)))
    image = Image.fromarray(smooth).convert("CMYK")

    decoded = image_decoding.decode_image(encode(image, kind))

    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decoded - expected).max() <= tolerance


def test_first_picture_of_an_animation_is_taken():
    first, second = (Image.fromarray(p).quantize(8) for p in (PIXELS, 255 - PIXELS))
    encoded = encode(first, "GIF", save_all=True, append_images=[second])

    np.testing.assert_array_equal(
        image_decoding.decode_image(encoded), np.asarray(first.convert("RGB"))
    )


def test_first_picture_of_several_in_a_jpeg_file_is_taken():
    image = Image.fromarray(PIXELS)
    encoded = encode(image, "MPO", save_all=True, append_images=[image.rotate(180)])
    assert images.read_header(encoded).format == "JPEG"

    np.testing.assert_array_equal(
        image_decoding.decode_image(encoded),
        image_decoding.decode_image(encode(image, "JPEG")),
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_header_tells_how_the_file_is_stored_and_shown(kind, orientation):
    kwargs = {"exif": make_exif(orientation)}
    if kind == "TIFF":
        kwargs = {"tiffinfo": {0x0112: orientation}}
    encoded = encode(Image.fromarray(PIXELS), kind, **kwargs)

    header = images.read_header(encoded)

    assert header == images.Header(kind, "RGB", (6, 9), orientation)
    assert header.shown_size == ((9, 6) if orientation in (6, 8) else (6, 9))
    if kind in ("PNG", "TIFF"):  # As stored, whatever the orientation.
        np.testing.assert_array_equal(image_decoding.decode_image(encoded), PIXELS)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0nonsense", make_exif(99).tobytes()])
def test_orientation_that_is_none_counts_for_nothing(exif):
    encoded = encode(Image.fromarray(PIXELS), "JPEG", exif=exif)

    assert images.read_header(encoded).orientation == 1


@pytest.mark.parametrize(
    "orientation, expected",
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),  # mirrored
        (3, [[6, 5, 4], [3, 2, 1]]),  # half a turn
        (4, [[4, 5, 6], [1, 2, 3]]),  # upside down
        (5, [[1, 4], [2, 5], [3, 6]]),  # along the main diagonal
        (6, [[4, 1], [5, 2], [6, 3]]),  # a quarter clockwise
        (7, [[6, 3], [5, 2], [4, 1]]),  # along the other diagonal
        (8, [[3, 6], [2, 5], [1, 4]]),  # a quarter counterclockwise
    ],
)
def test_turn_is_that_of_viewers(orientation, expected):
    pixels = np.array([[1, 2, 3], [4, 5, 6]])

    np.testing.assert_array_equal(images.turn(pixels, orientation), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_is_that_of_pillow(orientation):
    from PIL import ImageOps

    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation

    np.testing.assert_array_equal(
        images.turn(PIXELS, orientation), np.asarray(ImageOps.exif_transpose(image))
    )


def test_header_of_too_many_pixels_is_refused_unread():
    encoded = test_masks.make_gray_png(8, [b"\0"] * 10, 11)

    with pytest.raises(
        schema.DataError, match="announces 10x11 pixels, more than the 0.000109 mega"
    ):
        images.open_image(encoded, 109)
    assert images.open_image(encoded, 110).size == (11, 10)


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_decompression_bomb_is_refused(side):
    bomb = bytearray(test_masks.make_gray_png(8, [b"\0"], 1))
    bomb[16:24] = side.to_bytes(4, "big") * 2
    bomb[29:33] = test_masks._crc(bytes(bomb[12:29])).to_bytes(4, "big")

    with pytest.raises(schema.DataError, match="more than the 100 megapixels allowed"):
        image_decoding.decode_image(bytes(bomb))


def test_limit_itself_is_allowed():
    encoded = test_masks.make_gray_png(8, [b"\0"], 1)

    assert images.MAX_PIXELS == 10_000 * 10_000
    assert images.open_image(encoded).size == (1, 1)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"%PDF-1"])
def test_files_of_other_kinds_are_refused(content):
    with pytest.raises(
        schema.DataError, match=r"no JPEG, PNG, .* or TIFF file, or its"
    ):
        image_decoding.decode_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_refused(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image = Image.fromarray(noise)
    encoded = encode(image.quantize(64) if kind == "GIF" else image, kind)

    with pytest.raises(schema.DataError, match="cannot be decoded|header is damaged"):
        image_decoding.decode_image(encoded[: len(encoded) // 2])


@pytest.mark.parametrize(
    "pixels, message",
    [
        (
            np.array([[0, 70000]], np.int32),
            "reach from 0 to 70000; store images with 8",
        ),
        (np.array([[0, 1]], np.float32), "its pixels are floats; store images with 8"),
    ],
)
def test_pixels_of_other_kinds_are_refused(pixels, message):
    with pytest.raises(schema.DataError, match=message):
        image_decoding.decode_image(encode(Image.fromarray(pixels), "TIFF"))
