"""Images of all kinds, decoded to the channels and bits that are asked for."""

import functools

import numpy as np
import tensorflow as tf

from data import schema
from data.files import images, tiff

_MAX_KNOWN_BANDS = 4
"""One or two bands are gray and alpha, three or four are colours and alpha. Of more, no
one knows which are which."""

_STORED_AS = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "PA": "RGBA",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
}
"""What Pillow shall make of its pixel formats; of those that are not here, RGB."""

_WITH_ALPHA = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}
"""The same where the file names a colour that is transparent."""


def decode_image(
    encoded: bytes,
    wanted: schema.ImageFormat = schema.RGB,
    *,
    max_pixels: int = images.MAX_PIXELS,
) -> np.ndarray:
    """Decodes an image file of any kind, without turning it.

    To the channels that are asked for a file comes as `fit_channels` says. RGB of JPEG
    and PNG is decoded by TensorFlow as in a graph, many bands and 16 bits of TIFF by
    tifffile, all else by Pillow: the first picture of several. Colours that a TIFF file
    stores multiplied by alpha stay so where all its bands are asked for.

    Args:
      encoded: the file.
      wanted: what to decode it to.
      max_pixels: that it may have.

    Returns:
      uint8 or uint16 [height, width, channels], as `wanted` says; the values are those
      of the file, in its range or not.

    Raises:
      schema.DataError: if that is not possible.
    """
    header = images.read_header(encoded, max_pixels)
    if wanted == schema.RGB and header.format in ("JPEG", "PNG"):
        return images.decode_by_tensorflow(images.decode_rgb_in_graph, encoded)
    if wanted == schema.RGB and header.mode and header.mode[0] not in "IF":
        return images.load_pixels(images.open_image(encoded, max_pixels), "RGB")
    if wanted.num_channels == header.num_premultiplied:
        return fit_pixels(tiff.load_bands(encoded), wanted)
    return fit_pixels(load_stored(encoded, header, max_pixels), wanted)


def fit_pixels(pixels: np.ndarray, wanted: schema.ImageFormat) -> np.ndarray:
    """Brings decoded pixels to the bits and channels that are asked for.

    Args:
      pixels: uint8 or uint16 [height, width, bands].
      wanted: what to bring them to. Of 16 bits the upper 8 are taken for 8.

    Returns:
      uint8 or uint16 [height, width, channels].

    Raises:
      schema.DataError: if the channels do not fit, or the bits are too few.
    """
    bits = 8 * pixels.dtype.itemsize
    if wanted.bits > bits:
        low, high = wanted.value_range
        raise schema.DataError(
            f"it has {bits} bits, and --image_range={low},{high} is of 16; write all "
            "images with 16 bits, or say --image_range=0,255, which takes the upper 8 "
            "bits of those that have 16",
            kind="image_bits",
        )
    if wanted.bits < bits:
        pixels = (pixels >> 8).astype(np.uint8)
    return fit_channels(pixels, wanted.num_channels, opaque=wanted.value_range[1])


def fit_channels(pixels: np.ndarray, num_channels: int, opaque: int) -> np.ndarray:
    """Brings decoded pixels to a number of channels.

    Bands that are as many as the channels are taken as they are. Else one channel is
    gray, two are gray and alpha, three red, green and blue, four these and alpha: gray
    becomes three equal colours, colours become their luma (ITU-R BT.601), alpha is left
    out, or opaque where there is none.

    Args:
      pixels: uint8 or uint16 [height, width, bands].
      num_channels: what is asked for.
      opaque: the alpha of what has none.

    Returns:
      The same type, [height, width, num_channels].

    Raises:
      schema.DataError: if bands and channels differ and one of them is more than 4.
    """
    num_bands = pixels.shape[-1]
    if num_bands == num_channels:
        return pixels
    if max(num_bands, num_channels) > _MAX_KNOWN_BANDS:
        raise schema.DataError(
            f"it has {num_bands} band{'s' * (num_bands > 1)}, and --image_channels="
            f"{num_channels}; say --image_channels={num_bands}, or write the bands to "
            f"use into files of {num_channels}",
            kind="image_channels",
        )
    alpha = pixels[..., -1:] if num_bands in (2, 4) else None
    colors = pixels[..., : num_bands - (alpha is not None)]
    is_gray = num_channels in (1, 2)
    if is_gray and colors.shape[-1] == 3:
        luma = colors @ np.array(schema.LUMA_WEIGHTS, np.float32)
        colors = np.rint(luma).astype(pixels.dtype)[..., np.newaxis]
    elif not is_gray and colors.shape[-1] == 1:
        colors = colors.repeat(3, axis=-1)
    if num_channels not in (2, 4):
        return np.ascontiguousarray(colors)
    if alpha is None:
        alpha = np.full_like(pixels[..., :1], opaque)
    return np.concatenate([colors, alpha], axis=-1)


def load_stored(
    encoded: bytes, header: images.Header, max_pixels: int = images.MAX_PIXELS
) -> np.ndarray:
    """Decodes a file to the bands that it has, without turning it.

    Args:
      encoded: the file.
      header: of the file.
      max_pixels: that it may have.

    Returns:
      uint8 or uint16 [height, width, bands].

    Raises:
      schema.DataError: if that is not possible.
    """
    if header.format == "PNG" and header.bits == 16:
        decode_png = functools.partial(tf.io.decode_png, dtype=tf.uint16)
        return images.decode_by_tensorflow(decode_png, encoded)
    if header.mode.startswith("I") and header.num_bands is None:
        return _load_gray(encoded, max_pixels)
    if header.mode == "F" and header.num_bands is None:
        raise schema.DataError(
            "its pixels are floats; store images with 8 or 16 bits", kind="image_format"
        )
    if header.num_bands is not None or header.bits > 8:
        return tiff.load_bands(encoded)
    image = images.open_image(encoded, max_pixels)
    mode = _STORED_AS.get(image.mode, "RGB")
    if "transparency" in image.info:
        mode = _WITH_ALPHA.get(image.mode, mode)
    pixels = images.load_pixels(image, mode)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _load_gray(encoded: bytes, max_pixels: int) -> np.ndarray:
    """Returns pixels of more than 8 bits, uint16 [height, width, 1]."""
    values = images.load_pixels(images.open_image(encoded, max_pixels))
    if values.min() < 0 or values.max() > 65535:
        raise schema.DataError(
            f"its values reach from {values.min()} to {values.max()}; store images "
            "with 8 or 16 bits",
            kind="image_format",
        )
    values = values.astype(np.uint16)[..., np.newaxis]
    layout = tiff.read_layout(encoded)
    # As viewers show it, and as Pillow does with 8 bits.
    return ~values if layout and layout.is_inverted else values
