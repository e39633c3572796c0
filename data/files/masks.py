"""Mask files: one number for each pixel, whatever kind of image holds them.

Numbers are taken as the file stores them: 8- and 16-bit gray, 1 to 4 bits, the indexes
of a palette. With `--label_colors` the colours that a viewer shows are looked up
instead.
"""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from data import schema
from data.files import blends, images, palettes, tiff

if TYPE_CHECKING:
    import PIL.Image

PLAIN_PNG_HEADER = (8, 0)
"""Bit depth and colour type, bytes 24 and 25, of the PNG files that TensorFlow decodes
unchanged. It makes luminance of a palette and cuts 16 bits to 8 without a word."""

MAX_VALUE = 65535
"""The greatest number that a mask may hold."""

_LOSSY = ("jpeg", "tiff_jpeg", "webp", "old-jpeg")
LOSSY_REMEDY = "export masks as PNG from where they were drawn"
_MAX_COLORS_SHOWN = 3

_MAX_FLAT_COLORS = 64
"""Masks of more colours are blended between classes, or are photos."""
_LEAST_PIXELS_OF_COLOR = 16
"""In a mask, on average; else a tiny photo would pass for one."""
_NUM_MAIN_COLORS = 32
"""They make up at least half of a mask, be it blended at its edges, and of hardly any
photo."""


def is_plain(encoded: bytes) -> bool:
    """Tells whether a file is a PNG with 8-bit gray pixels."""
    is_png = encoded[:8] == images.PNG_SIGNATURE
    return is_png and tuple(encoded[24:26]) == PLAIN_PNG_HEADER


def is_plain_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    """Tells the same in a graph, a bool scalar; not of files with EXIF notes."""
    kind = images.read_head(encoded)[24:26]
    is_gray = tf.reduce_all(kind == np.array(PLAIN_PNG_HEADER, np.uint8))
    return images.is_plain(encoded) & images.is_png(encoded) & is_gray


def decode_mask(
    encoded: bytes, label_colors: tuple[palettes.ColorValue, ...] = ()
) -> np.ndarray:
    """Decodes a mask file, without turning it.

    Args:
      encoded: the file.
      label_colors: colours and the value of each; empty if the file holds numbers.

    Returns:
      int32 [height, width], 0..65535; or, by colour, those of `label_colors`.

    Raises:
      schema.DataError: if the file is damaged, of a lossy format, or of a kind whose
        pixels are no labels.
    """
    image = images.open_image(encoded)
    if is_plain(encoded) and not label_colors:
        return images.decode_gray_png(encoded).astype(np.int32)
    _check_lossless(image, encoded)
    bits = _bits_per_channel(image, encoded)
    if image.mode in ("LA", "RGB", "RGBA") and bits > 8:
        raise schema.DataError(
            f"its colours have {bits} bits a channel; store masks as gray or palette "
            "PNG files",
            kind="mask_format",
        )
    if label_colors and image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        return look_up_colors(images.load_pixels(image, "RGB"), label_colors)
    if label_colors:
        raise schema.DataError(
            f"its pixels ({image.mode}) are no colours of 8 bits, which --label_colors "
            "needs",
            kind="mask_format",
        )
    pixels = _load_numbers(image, encoded)
    if image.mode == "L" and bits < 8:
        pixels = pixels // (255 // (2**bits - 1))  # Pillow spreads them over 0..255.
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        return check_values(pixels)
    if image.mode == "LA":
        return check_values(pixels[..., 0])
    if image.mode in ("RGB", "RGBA"):
        return gray_values(pixels)
    raise schema.DataError(
        f"its pixels ({image.mode}) are no labels; store masks as gray or palette PNG "
        "files",
        kind="mask_format",
    )


def _load_numbers(image: "PIL.Image.Image", encoded: bytes) -> np.ndarray:
    """Decodes the pixels of a mask as they are stored, which Pillow does not always do.

    Of TIFF files it inverts gray of up to 8 bits where 0 is white, takes signed numbers
    of 8 bits for unsigned ones, and divides colours by alpha if they are multiplied by
    it.
    """
    pixels = images.load_pixels(image)
    layout = tiff.read_layout(encoded)
    if layout is None:
        return pixels
    if layout.is_inverted and image.mode in ("1", "L"):
        pixels = ~pixels
    if layout.is_signed and pixels.dtype == np.uint8:
        pixels = pixels.view(np.int8)
    # By an alpha of 255 nothing is divided.
    if layout.is_premultiplied and image.mode == "RGBA" and pixels[..., 3].min() < 255:
        pixels = tiff.load_bands(encoded)
    return pixels


def check_values(pixels: np.ndarray) -> np.ndarray:
    """Returns integers as int32.

    Raises:
      schema.DataError: if one is not in 0..65535.
    """
    if pixels.min() < 0 or pixels.max() > MAX_VALUE:
        raise schema.DataError(
            f"its values reach from {pixels.min()} to {pixels.max()}; masks hold 0 to "
            f"{MAX_VALUE}",
            kind="values_out_of_range",
        )
    return pixels.astype(np.int32)


def gray_values(pixels: np.ndarray) -> np.ndarray:
    """Returns the values of pixels, [height, width, 1, 3 or 4], that are gray.

    Raises:
      schema.DataError: if the channels, transparency aside, are not all the same, or
        nobody knows what they are.
    """
    if pixels.shape[-1] not in (1, 3, 4):
        raise schema.DataError(
            f"it has {pixels.shape[-1]} channels; a mask has 1, or it has 3, or 4 with "
            "transparency, of gray or of colours",
            kind="mask_format",
        )
    channels = pixels[..., :3]
    is_colored = (channels[..., 1:] != channels[..., :1]).any(-1)
    if is_colored.any():
        raise _refuse_colors(channels, is_colored)
    return check_values(channels[..., 0])


def look_up_colors(
    pixels: np.ndarray, label_colors: tuple[palettes.ColorValue, ...]
) -> np.ndarray:
    """Maps colours, uint8 [height, width, 3], to the values they stand for.

    Raises:
      schema.DataError: if a pixel has another colour than those.
    """
    table = np.array(
        sorted((encode_colors(color), value) for color, value in label_colors)
    )
    codes = encode_colors(pixels)
    index = np.searchsorted(table[:, 0], codes).clip(max=len(table) - 1)
    is_unknown = table[index, 0] != codes
    if is_unknown.any():
        raise _refuse_unknown_colors(pixels, is_unknown)
    return table[index, 1].astype(np.int32)


def find_colors(pixels: np.ndarray) -> tuple[list[palettes.Color], np.ndarray]:
    """Returns the colours of some pixels, [..., 3], the most frequent first.

    Returns:
      The colours, and the number of pixels of each, int64 [num_colors].
    """
    codes, counts = np.unique(encode_colors(pixels), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return list(map(decode_color, codes[order].tolist())), counts[order]


def is_photo(counts: np.ndarray) -> bool:
    """Tells by the numbers of pixels of its colours whether an image is a photo."""
    return (
        counts.size > _MAX_FLAT_COLORS
        and counts[:_NUM_MAIN_COLORS].sum() < counts.sum() / 2
    )


def is_drawing(counts: np.ndarray) -> bool:
    """Tells by the numbers of pixels of its colours whether an image has few."""
    return counts.size <= min(_MAX_FLAT_COLORS, counts.sum() / _LEAST_PIXELS_OF_COLOR)


def _refuse_colors(pixels: np.ndarray, is_colored: np.ndarray) -> schema.DataError:
    """Says what to do about a coloured mask, [height, width, 3]."""
    found, counts = find_colors(pixels)
    shown = _describe_colors(pixels[is_colored])
    is_blended = blends.count(encode_colors(pixels)).find_solid() is not None
    if len(found) > _MAX_FLAT_COLORS or is_blended:
        if is_photo(counts):
            return schema.DataError(
                f"its {len(found)} colours are those of a photo; name the masks in its "
                "place",
                kind="mask_is_photo",
            )
        return schema.DataError(
            f"it is coloured, and blended: {len(found)} colours ({shown}), as "
            "smoothing and resizing make them; export it without smoothing, and resize "
            "by nearest neighbour",
            kind="interpolated_mask",
        )
    known = palettes.find_by_colors(found)
    if known:
        names = " or ".join(f"--label_colors={name}" for name in known)
        remedy = (
            f"all its colours are listed by {names}; if your classes are others, say "
            "what class each colour is with --label_colors=FILE"
        )
    else:
        remedy = (
            "say what class each colour is with --label_colors=FILE or "
            "--label_colors=voc, cityscapes or camvid"
        )
    return schema.DataError(f"it is coloured ({shown}); {remedy}", kind="coloured_mask")


def _refuse_unknown_colors(
    pixels: np.ndarray, is_unknown: np.ndarray
) -> schema.DataError:
    """Says what to do about colours, [height, width, 3], that have no class."""
    shown = _describe_colors(pixels[is_unknown])
    found, _ = find_colors(pixels[is_unknown])
    if len(found) > _MAX_FLAT_COLORS and is_unknown.mean() < 0.5:
        return schema.DataError(
            f"--label_colors does not list {len(found)} of its colours ({shown}), "
            f"which are {is_unknown.mean():.0%} of its pixels: blends, as smoothing "
            "and resizing make them; export it without smoothing, and resize by "
            "nearest neighbour",
            kind="interpolated_mask",
        )
    return schema.DataError(
        f"--label_colors does not list all its colours ({shown}); add them there, "
        "named `ignore` if they are no class",
        kind="unlisted_color",
    )


def encode_colors(colors: np.typing.ArrayLike) -> np.ndarray:
    """Returns one number, int64 [...], for each colour, [..., 3], of up to 16 bits."""
    red, green, blue = np.moveaxis(np.asarray(colors, np.int64), -1, 0)
    return red << 32 | green << 16 | blue


def decode_color(code: int) -> palettes.Color:
    """Returns the colour of a number of `encode_colors`."""
    low = 2**16 - 1
    return code >> 32, code >> 16 & low, code & low


def _describe_colors(pixels: np.ndarray) -> str:
    """Names the most frequent of some pixels' colours, [num_pixels, 3], with counts."""
    colors, counts = find_colors(pixels)
    shown = [
        f"{count} pixels of {color}"
        for color, count in zip(colors[:_MAX_COLORS_SHOWN], counts, strict=False)
    ]
    rest = len(colors) - len(shown)
    return ", ".join(shown) + (f" and {rest} more colours" if rest else "")


def _bits_per_channel(image: "PIL.Image.Image", encoded: bytes) -> int:
    if image.format == "PNG":
        return encoded[24]
    if image.format == "TIFF":
        return image.tag_v2.get(258, (1,))[0]  # BitsPerSample
    return 8


def _check_lossless(image: "PIL.Image.Image", encoded: bytes) -> None:
    """Refuses masks whose labels a lossy compression has blurred."""
    is_lossy = (
        image.format in ("JPEG", "MPO")
        or image.info.get("compression") in _LOSSY
        or (image.format == "WEBP" and not _is_lossless_webp(encoded))
    )
    if is_lossy:
        raise schema.DataError(
            "its compression (JPEG, or lossy WebP) changes labels near every edge; "
            f"{LOSSY_REMEDY}",
            kind="lossy_mask",
        )


def _is_lossless_webp(encoded: bytes) -> bool:
    """Tells whether the first picture in a WebP file is in the lossless format.

    The file is a list of chunks (RFC 9649): VP8L holds a lossless picture, VP8 a lossy
    one; those of an animation lie inside ANMF chunks, 16 bytes after their start.
    """
    place = 12
    while place + 8 <= len(encoded):
        name = encoded[place : place + 4]
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        size = int.from_bytes(encoded[place + 4 : place + 8], "little")
        place += 8 + (16 if name == b"ANMF" else size + size % 2)
    return False
