"""Mask files of every kind give the numbers, or the classes of colours, they hold."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from data import schema
from data.files import label_files, masks, palettes

# Neighbours differ, rows and columns too, and no value is the mean of two others.
LABEL = np.array([[0, 1, 3], [3, 0, 1], [1, 1, 0], [0, 3, 3]], np.uint8)

COLORS = (((255, 0, 0), 0), ((0, 255, 0), 1), ((9, 9, 9), palettes.IGNORED_VALUE))


def encode(image: Image.Image, kind: str = "PNG", **kwargs) -> bytes:
    file = io.BytesIO()
    if kind == "GIF":
        kwargs = {"optimize": False, **kwargs}  # It would renumber the palette.
    image.save(file, kind, **kwargs)
    return file.getvalue()


def make_palette_image(label=LABEL) -> Image.Image:
    image = Image.fromarray(label).convert("P")
    # Luminances in another order than the indexes: 200, 0, -, 100.
    image.putpalette([200, 200, 200, 0, 0, 0, 7, 7, 7, 100, 100, 100] + [0] * 756)
    image.putdata(label.ravel().tolist())
    return image


def make_gray_png(bits: int, rows: list[bytes], width: int) -> bytes:
    """Writes a PNG of a bit depth that Pillow does not write."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", _crc(body))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _crc(body: bytes) -> int:
    return zlib.crc32(body)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_gray_values_are_kept(kind):
    np.testing.assert_array_equal(
        masks.decode_mask(encode(Image.fromarray(LABEL), kind)), LABEL
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_indexes_of_a_palette_are_kept(kind):
    encoded = encode(make_palette_image(), kind)
    assert Image.open(io.BytesIO(encoded)).mode == "P"

    np.testing.assert_array_equal(masks.decode_mask(encoded), LABEL)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_indexes_of_a_small_palette_are_kept(bits):
    label = np.minimum(LABEL, 2**bits - 1)

    encoded = encode(make_palette_image(label), bits=bits)

    assert encoded[24] == bits
    np.testing.assert_array_equal(masks.decode_mask(encoded), label)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_values_of_16_bits_are_kept(kind):
    label = LABEL.astype(np.uint16) * 20000 + 7  # 60007 at most.

    values = masks.decode_mask(encode(Image.fromarray(label), kind))

    assert values.dtype == np.int32
    np.testing.assert_array_equal(values, label)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_one_bit_is_zero_or_one(kind):
    image = Image.fromarray(LABEL > 0)

    np.testing.assert_array_equal(masks.decode_mask(encode(image, kind)), LABEL > 0)


@pytest.mark.parametrize(
    "bits, row, expected",
    [(2, 0b00011011, [0, 1, 2, 3]), (4, 0b00011111, [1, 15]), (1, 0b01100000, [0, 1])],
)
def test_gray_values_of_few_bits_are_not_spread_over_256(bits, row, expected):
    encoded = make_gray_png(bits, [bytes([row])], len(expected))

    np.testing.assert_array_equal(masks.decode_mask(encoded), [expected])


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_equal_channels_are_read_as_gray(mode):
    image = Image.fromarray(LABEL).convert(mode)
    if mode != "RGB":
        image.putalpha(Image.fromarray(LABEL * 50))  # Transparency does not count.

    np.testing.assert_array_equal(masks.decode_mask(encode(image)), LABEL)


def test_lossless_webp_is_read_as_gray():
    encoded = encode(Image.fromarray(LABEL).convert("RGB"), "WEBP", lossless=True)

    np.testing.assert_array_equal(masks.decode_mask(encoded), LABEL)


def test_lossless_webp_with_notes_is_read_as_gray():
    image = Image.fromarray(LABEL).convert("RGB")
    encoded = encode(image, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\10")
    assert b"VP8X" in encoded

    np.testing.assert_array_equal(masks.decode_mask(encoded), LABEL)


def test_plain_png_is_the_kind_that_tensorflow_decodes_unchanged():
    encoded = encode(Image.fromarray(LABEL))

    assert masks.is_plain(encoded)
    np.testing.assert_array_equal(tf.io.decode_png(encoded, 1)[..., 0], LABEL)


@pytest.mark.parametrize(
    "image",
    [
        make_palette_image(),
        Image.fromarray(LABEL > 0),
        Image.fromarray(LABEL).convert("LA"),
        Image.fromarray(LABEL).convert("RGB"),
        Image.fromarray(LABEL.astype(np.uint16)),
    ],
    ids=lambda image: image.mode,
)
def test_other_pngs_are_not_plain(image):
    assert not masks.is_plain(encode(image))


def test_colors_without_their_classes_are_refused_with_the_remedy():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, :2] = 255, 0, 0
    pixels[1, 0] = 0, 0, 4

    with pytest.raises(
        schema.DataError,
        match=r"coloured \(2 pixels of \(255, 0, 0\), 1 pixels of \(0, 0, 4\)\); say "
        "what class each colour is with --label_colors=FILE",
    ):
        masks.decode_mask(encode(Image.fromarray(pixels)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_are_looked_up(mode):
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[9, 9, 9], [255, 0, 0]]], np.uint8)
    image = Image.fromarray(pixels)
    image = image.quantize(3) if mode == "P" else image.convert(mode)

    values = masks.decode_mask(encode(image), COLORS)

    np.testing.assert_array_equal(values, [[0, 1], [palettes.IGNORED_VALUE, 0]])


def test_gray_mask_is_looked_up_by_the_colors_it_shows():
    image = Image.fromarray(np.array([[0, 255]], np.uint8))
    colors = (((255, 255, 255), 0), ((0, 0, 0), 1))

    np.testing.assert_array_equal(masks.decode_mask(encode(image), colors), [[1, 0]])


def test_unknown_colors_are_named_and_counted():
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[..., 0] = 255
    pixels[0, :3] = 254, 0, 0
    pixels[1, 0] = 0, 0, 255  # After all known ones.
    pixels[1, 1] = 0, 0, 0  # Before them.

    with pytest.raises(
        schema.DataError,
        match=r"--label_colors does not list all its colours \(3 pixels of \(254, 0, 0"
        r"\), 1 pixels of \(0, 0, 0\), 1 pixels of \(0, 0, 255\)\); add them",
    ):
        masks.decode_mask(encode(Image.fromarray(pixels)), COLORS)


def test_many_unknown_colors_are_counted():
    pixels = np.zeros((1, 9, 3), np.uint8)
    pixels[..., 2] = np.arange(9)

    with pytest.raises(schema.DataError, match=r"\(0, 0, 2\) and 6 more colours\)"):
        masks.decode_mask(encode(Image.fromarray(pixels)), COLORS)


@pytest.mark.parametrize("name", palettes.PALETTES)
def test_known_palettes_give_each_color_its_class(name):
    rows = palettes.PALETTES[name]
    info = label_files.read_label_colors(name)
    pixels = np.array([[color for _, color in rows]], np.uint8)

    values = masks.decode_mask(encode(Image.fromarray(pixels)), info.label_colors)[0]

    names = [*info.class_names, *(["void"] * 65536)]
    assert [names[value] for value in values] == [label for label, _ in rows]
    assert info.num_classes == {"voc": 21, "cityscapes": 19, "camvid": 31}[name]


@pytest.mark.parametrize(
    "kind, kwargs",
    [("JPEG", {}), ("WEBP", {"quality": 90}), ("TIFF", {"compression": "jpeg"})],
)
def test_lossy_masks_are_refused_with_the_remedy(kind, kwargs):
    image = Image.fromarray(np.zeros((16, 16, 3), np.uint8))

    with pytest.raises(schema.DataError, match="labels near every edge; export .* PNG"):
        masks.decode_mask(encode(image, kind, **kwargs))


def test_colors_of_16_bits_are_refused():
    color = bytearray(make_gray_png(16, [b"\0\1\0\1\0\1"], 1))
    color[25] = 2  # RGB
    color[29:33] = struct.pack(">I", _crc(bytes(color[12:29])))

    with pytest.raises(schema.DataError, match="colours have 16 bits a channel"):
        masks.decode_mask(bytes(color))


@pytest.mark.parametrize("mode", ["F", "CMYK"])
def test_pixels_that_are_no_labels_are_refused(mode):
    with pytest.raises(schema.DataError, match=rf"its pixels \({mode}\) are no labels"):
        masks.decode_mask(encode(Image.new(mode, (2, 2)), "TIFF"))


def encode_tiff(pixels, **kwargs) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **kwargs)
    return file.getvalue()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
def test_numbers_are_those_that_are_stored_where_zero_is_white(dtype, compression):
    label = LABEL.astype(dtype)
    encoded = encode_tiff(label, photometric="miniswhite", compression=compression)

    np.testing.assert_array_equal(masks.decode_mask(encoded), label)


def test_numbers_of_4_bits_are_those_that_are_stored_where_zero_is_white():
    encoded = bytearray(encode_tiff(np.uint8([[0x01, 0x2F]]), photometric="miniswhite"))
    for tag, before, after in ((256, 2, 4), (258, 8, 4)):  # Width, bits.
        place = encoded.index(struct.pack("<H", tag))
        assert encoded[place + 8] == before
        encoded[place + 8] = after

    np.testing.assert_array_equal(masks.decode_mask(bytes(encoded)), [[0, 1, 2, 15]])


def test_colours_are_those_that_are_shown_where_zero_is_white():
    encoded = encode_tiff(np.uint8([[0, 255]]), photometric="miniswhite")
    colors = (((255, 255, 255), 4), ((0, 0, 0), 5))

    np.testing.assert_array_equal(masks.decode_mask(encoded, colors), [[4, 5]])


def test_negative_numbers_of_8_bits_are_refused():
    assert masks.decode_mask(encode_tiff(np.int8([[0, 127]]))).tolist() == [[0, 127]]

    with pytest.raises(schema.DataError, match="values reach from -1 to 2; masks hold"):
        masks.decode_mask(encode_tiff(np.int8([[2, -1]])))


@pytest.mark.parametrize("alpha", [255, 250, 100])
def test_numbers_are_those_that_are_stored_where_alpha_multiplies(alpha):
    label = LABEL * 30
    pixels = np.dstack([label] * 3 + [np.full_like(label, alpha)])
    encoded = encode_tiff(pixels, photometric="rgb", extrasamples=["assocalpha"])

    np.testing.assert_array_equal(masks.decode_mask(encoded), label)


def make_bmp(bits: int, grays, rows: list[int], *, is_packed=False, is_old=False):
    """Writes a BMP of 4x2 pixels, with a gray palette, that Pillow does not write.

    Args:
      bits: of each pixel.
      grays: the palette.
      rows: the pixels from the bottom up, each row filled to 4 bytes.
      is_packed: whether they are compressed by runs of 4 bits.
      is_old: whether it is of OS/2 1.x.
    """
    palette = b"".join(bytes([gray] * 3 + [0] * (not is_old)) for gray in grays)
    head = struct.pack("<IHHHH", 12, 4, 2, 1, bits)
    if not is_old:
        kind = 2 if is_packed else 0
        head = struct.pack("<IiiHHI", 40, 4, 2, 1, bits, kind)
        head += struct.pack("<IiiII", len(rows), 0, 0, len(grays), 0)
    start = 14 + len(head) + len(palette)
    name = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    return name + head + palette + bytes(rows)


BYTES, NIBBLES = [0, 1, 1, 0, 1, 1, 0, 0], [0x01, 0x10, 0, 0, 0x11, 0, 0, 0]
RUNS = [0, 4, 0x01, 0x10, 0, 0, 0, 4, 0x11, 0, 0, 1]


@pytest.mark.parametrize(
    "encoded, message",
    [
        (make_bmp(8, (0, 255), BYTES), "8 bits a pixel .* misreads as 1 bit a pixel"),
        (make_bmp(4, (0, 255), NIBBLES), "4 bits a pixel .* misreads as 1 bit a"),
        (make_bmp(4, range(16), NIBBLES), "4 bits a pixel .* misreads as 8 bits"),
        (make_bmp(4, range(16), NIBBLES, is_old=True), "4 bits a pixel .* as 8 bits"),
        (make_bmp(1, (0, 255), [0x60, 0, 0, 0, 0xC0, 0, 0, 0]), ""),
        (make_bmp(8, range(3), BYTES), ""),
        (make_bmp(8, (0, 7), BYTES), ""),
        (make_bmp(8, range(256), BYTES, is_old=True), ""),
        (make_bmp(4, range(16), RUNS, is_packed=True), ""),
    ],
    ids=["8 as 1", "4 as 1", "4 as 8", "OS/2", "1", "8", "colours", "bytes", "runs"],
)
def test_bmp_that_pillow_misreads_is_refused(encoded, message):
    if message:
        with pytest.raises(schema.DataError, match=f"{message}.*; write it as PNG"):
            masks.decode_mask(encoded)
    else:
        values = masks.decode_mask(encoded)
        np.testing.assert_array_equal(values, [[1, 1, 0, 0], [0, 1, 1, 0]])


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_values_of_many_bits_are_refused_with_those_that_there_are(dtype):
    encoded = encode_tiff(np.zeros((4, 5), dtype))

    with pytest.raises(
        schema.DataError,
        match="of 64 (signed|float) bits; store masks with 8 or 16 bits$",
    ):
        masks.decode_mask(encoded)


def test_masks_of_many_bands_are_refused():
    pixels = np.zeros((4, 5, 7), np.uint8)
    encoded = encode_tiff(pixels, photometric="minisblack", planarconfig="contig")

    with pytest.raises(
        schema.DataError, match="which only an image can be, with --image_channels=7$"
    ):
        masks.decode_mask(encoded)


def test_16_bits_have_no_colors():
    image = Image.fromarray(LABEL.astype(np.uint16))

    with pytest.raises(
        schema.DataError, match="no colours of 8 bits, which --label_co"
    ):
        masks.decode_mask(encode(image), COLORS)


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_that_no_mask_holds_are_refused(value):
    image = Image.fromarray(np.array([[3, value]], np.int32))

    with pytest.raises(schema.DataError, match=f"{value}.*; masks hold 0 to 65535"):
        masks.decode_mask(encode(image, "TIFF"))


def test_truncated_mask_is_refused():
    encoded = encode(make_palette_image(np.tile(LABEL, (20, 20))))

    with pytest.raises(schema.DataError, match="it cannot be decoded"):
        masks.decode_mask(encoded[:-60])


def test_damaged_checksum_is_refused_as_in_a_graph():
    """Pillow passes over it."""
    encoded = bytearray(encode(Image.fromarray(LABEL)))
    encoded[encoded.index(b"IEND") - 5] ^= 1  # The last byte of the pixels' checksum.

    with pytest.raises(schema.DataError, match="cannot be decoded") as caught:
        masks.decode_mask(bytes(encoded))
    assert caught.value.kind == "damaged_file"


def test_colours_of_known_palettes_are_told():
    pixels = np.array([[[128, 0, 0], [0, 128, 0], [64, 0, 0]]], np.uint8)

    with pytest.raises(schema.DataError) as caught:
        masks.decode_mask(encode(Image.fromarray(pixels)))

    assert caught.value.kind == "coloured_mask"
    assert "colours are listed by --label_colors=voc; if your" in str(caught.value)


def turn_a_little(label) -> bytes:
    """Blends the colours of 1, 2 and 3 at all edges."""
    colors = np.array([[0, 0, 0], [250, 30, 0], [0, 60, 200]], np.uint8)
    large = np.kron(colors[label % 3], np.ones((12, 12, 1), np.uint8))
    image = Image.fromarray(large).rotate(7, Image.Resampling.BICUBIC)
    return encode(image)


def test_blended_colours_are_told():
    with pytest.raises(schema.DataError, match="blended: .* nearest neigh") as caught:
        masks.decode_mask(turn_a_little(LABEL))
    assert caught.value.kind == "interpolated_mask"


def test_blends_of_listed_colours_are_told():
    colors = (((0, 0, 0), 0), ((250, 30, 0), 1), ((0, 60, 200), 2))

    with pytest.raises(schema.DataError, match=r"of its colours .*: blends") as caught:
        masks.decode_mask(turn_a_little(LABEL), colors)
    assert caught.value.kind == "interpolated_mask"


def test_photo_is_told():
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)

    with pytest.raises(schema.DataError, match="600 colours are those of a photo"):
        masks.decode_mask(encode(Image.fromarray(noise)))


def test_colours_are_found_the_most_frequent_first():
    pixels = np.array([[[1, 2, 3], [255, 0, 7], [255, 0, 7]]], np.uint8)

    colors, counts = masks.find_colors(pixels)

    assert colors == [(255, 0, 7), (1, 2, 3)]
    np.testing.assert_array_equal(counts, [2, 1])


def test_luminance_is_that_of_pillow():
    colors = [color for rows in palettes.PALETTES.values() for _, color in rows]
    image = Image.fromarray(np.array([colors], np.uint8)).convert("L")

    expected = np.asarray(image)[0].tolist()

    assert [palettes.luminance(color) for color in colors] == expected


def test_palettes_are_found_by_colours_and_grays():
    assert palettes.find_by_colors([(128, 0, 0), (64, 0, 0)]) == ("voc",)
    assert palettes.find_by_colors([(128, 0, 0), (0, 0, 0)]) == ("voc", "camvid")
    assert palettes.find_by_colors([(128, 0, 1)]) == ()
    # (128, 64, 128) is 90 and (244, 35, 232) is 120.
    assert palettes.find_by_grays([90, 120]) == ("cityscapes",)
