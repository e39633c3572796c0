"""Mask files: one number for each pixel, whatever kind of image holds them.

Numbers are taken as the file stores them: 8- and 16-bit gray, 1 to 4 bits, the indexes
of a palette. With `--label_colors` the colours that a viewer shows are looked up
instead.
"""

import numpy as np

from data import images, palettes, schema

PLAIN_PNG_HEADER = (8, 0)
"""Bit depth and colour type, bytes 24 and 25, of the PNG files that TensorFlow decodes
unchanged. It makes luminance of a palette and cuts 16 bits to 8 without a word."""

_MAX_VALUE = 65535
_LOSSY = ("jpeg", "tiff_jpeg", "webp", "old-jpeg")
_MAX_COLORS_SHOWN = 3


def is_plain(encoded: bytes) -> bool:
    """Tells whether a file is a PNG with 8-bit gray pixels."""
    return encoded[:8] == b"\x89PNG\r\n\x1a\n" and (
        tuple(encoded[24:26]) == PLAIN_PNG_HEADER
    )


def decode(
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
    _check_lossless(image, encoded)
    bits = _bits_per_channel(image, encoded)
    if image.mode in ("LA", "RGB", "RGBA") and bits > 8:
        raise schema.DataError(
            f"its colours have {bits} bits a channel; store masks as gray or palette "
            "PNG files"
        )
    if label_colors and image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        return look_up_colors(images.load_pixels(image, "RGB"), label_colors)
    if label_colors:
        raise schema.DataError(
            f"its pixels ({image.mode}) are no colours of 8 bits, which --label_colors "
            "needs"
        )
    pixels = images.load_pixels(image)
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
        "files"
    )


def check_values(pixels: np.ndarray) -> np.ndarray:
    """Returns integers as int32.

    Raises:
      schema.DataError: if one is not in 0..65535.
    """
    if pixels.min() < 0 or pixels.max() > _MAX_VALUE:
        raise schema.DataError(
            f"its values reach from {pixels.min()} to {pixels.max()}; masks hold 0 to "
            f"{_MAX_VALUE}"
        )
    return pixels.astype(np.int32)


def gray_values(pixels: np.ndarray) -> np.ndarray:
    """Returns the values of a colour image, [height, width, 3 or 4], that is gray.

    Raises:
      schema.DataError: if the channels, transparency aside, are not all the same.
    """
    channels = pixels[..., :3]
    is_colored = (channels[..., 1:] != channels[..., :1]).any(-1)
    if is_colored.any():
        colors = _describe_colors(channels[is_colored])
        raise schema.DataError(
            f"it is coloured ({colors}); say what class each colour is with "
            "--label_colors=FILE or --label_colors=voc, cityscapes or camvid"
        )
    return check_values(channels[..., 0])


def look_up_colors(
    pixels: np.ndarray, label_colors: tuple[palettes.ColorValue, ...]
) -> np.ndarray:
    """Maps colours, uint8 [height, width, 3], to the values they stand for.

    Raises:
      schema.DataError: if a pixel has another colour than those.
    """
    table = np.array(sorted((_codes(color), value) for color, value in label_colors))
    codes = _codes(pixels)
    index = np.searchsorted(table[:, 0], codes).clip(max=len(table) - 1)
    is_unknown = table[index, 0] != codes
    if is_unknown.any():
        raise schema.DataError(
            "--label_colors does not list all its colours "
            f"({_describe_colors(pixels[is_unknown])}); add them there, named `ignore` "
            "if they are no class"
        )
    return table[index, 1].astype(np.int32)


def _codes(colors) -> np.ndarray:
    """Returns one number, int32 [...], for each colour, [..., 3]."""
    red, green, blue = np.moveaxis(np.asarray(colors, np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _describe_colors(pixels: np.ndarray) -> str:
    """Names the most frequent of some pixels' colours, [num_pixels, 3], with counts."""
    colors, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [
        f"{counts[i]} pixels of ({', '.join(str(int(c)) for c in colors[i])})"
        for i in order[:_MAX_COLORS_SHOWN]
    ]
    rest = len(order) - len(shown)
    return ", ".join(shown) + (f" and {rest} more colours" if rest else "")


def _bits_per_channel(image, encoded: bytes) -> int:
    if image.format == "PNG":
        return encoded[24]
    if image.format == "TIFF":
        return image.tag_v2.get(258, (1,))[0]  # BitsPerSample
    return 8


def _check_lossless(image, encoded: bytes) -> None:
    """Refuses masks whose labels a lossy compression has blurred."""
    is_lossy = (
        image.format in ("JPEG", "MPO")
        or image.info.get("compression") in _LOSSY
        or (image.format == "WEBP" and not _is_lossless_webp(encoded))
    )
    if is_lossy:
        raise schema.DataError(
            "its compression (JPEG, or lossy WebP) changes labels near every edge; "
            "export masks as PNG from where they were drawn"
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
