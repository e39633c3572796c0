"""Image files: what their headers say, and their pixels as they are stored."""

import contextlib
import dataclasses
import functools
import io
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from data import schema
from data.files import bmp, tiff

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
)
"""Endings, in lower case, of the files that folders are searched for."""

MAX_PIXELS = 100_000_000
"""A header that announces more is a mistake, or an attack on the memory."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""The first 8 bytes of a PNG file."""

_MAX_BANDS_OF_PILLOW = 6
"""Of TIFF files; of more, it logs an error."""

_MAX_GRAY_BANDS = 2
"""Gray, and alpha or another band beside it."""

_HEAD_SIZE = 32

_EXIF_PATTERN = rb"\C*(Exif\x00\x00|eXIf)\C*"
r"""Any bytes (`\C` of RE2) around what EXIF notes begin with in JPEG and PNG files."""

_ORIENTATION = 0x0112
"""The tag of EXIF and TIFF."""

_INVERSE_TURN = {6: 8, 8: 6}
"""Every other orientation is undone by itself."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say.

    Attributes:
      format: one of `FORMATS`.
      mode: Pillow's name of the pixel format, e.g. `RGB`, `P` or `I;16`; empty of a
        TIFF file that Pillow does not read, or of which it reads one band alone.
      size: height and width as stored.
      orientation: how viewers turn it, 1 (not at all) to 8; see EXIF 2.32, 4.6.4.
      bits: of each value; of fewer than 8, 8.
      num_bands: values that are stored of each pixel, if they are not those of `mode`.
      num_premultiplied: the same where the last is alpha, by which the others are
        multiplied, and Pillow would divide them by it again; else 0.
    """

    format: str
    mode: str
    size: tuple[int, int]
    orientation: int = 1
    bits: int = 8
    num_bands: int | None = None
    num_premultiplied: int = 0

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width as viewers show it."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def open_image(encoded: bytes, max_pixels: int = MAX_PIXELS) -> "PIL.Image.Image":
    """Reads the header of an image file; Pillow decodes the pixels when asked to.

    Args:
      encoded: the file.
      max_pixels: that it may have.

    Raises:
      schema.DataError: if it is of no known format, damaged, too large, or misread.
    """
    from PIL import Image

    layout = tiff.read_layout(encoded)
    # Of more pixels than this Pillow warns, and twice as many it refuses.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    try:
        if layout and layout.num_bands > _MAX_BANDS_OF_PILLOW:
            raise ValueError("too many bands")
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise schema.DataError(
            f"its header announces {_describe_limit(max_pixels)} ({error})",
            kind="too_large",
        ) from error
    except Exception as error:  # A damaged header shows as many kinds of error.
        if layout:
            remedy = "; store masks with 8 or 16 bits"
            if layout.has_usual_values:
                remedy = (
                    ", which only an image can be, with --image_channels="
                    f"{layout.num_bands}"
                )
            raise schema.DataError(
                f"it is {layout}{remedy}", kind="unsupported_bands"
            ) from error
        raise schema.DataError(
            f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file, or its header "
            f"is damaged ({len(encoded)} bytes, {encoded[:8]!r} first)",
            kind="no_image_file",
        ) from error
    if image.format == "BMP":
        bmp.check(image, encoded)
    _check_size((image.height, image.width), max_pixels)
    return image


def _describe_limit(max_pixels: int) -> str:
    return f"more than the {max_pixels / 1e6:g} megapixels allowed"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise schema.DataError(
            f"its header announces {height}x{width} pixels, "
            f"{_describe_limit(max_pixels)}",
            kind="too_large",
        )


def read_header(encoded: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Reads the header of an image file.

    Args:
      encoded: the file.
      max_pixels: that it may have.

    Raises:
      schema.DataError: as `open_image`.
    """
    layout = tiff.read_layout(encoded)
    try:
        image = open_image(encoded, max_pixels)
    except schema.DataError as error:
        if layout is None or error.kind != "unsupported_bands":
            raise
        _check_size(layout.size, max_pixels)
        return Header(
            "TIFF", "", layout.size, layout.orientation, layout.bits, layout.num_bands
        )
    orientation = _read_orientation(image)
    size = (image.height, image.width)
    if image.format == "TIFF" and orientation >= 5:  # Pillow gives the size as shown.
        size = size[::-1]
    # A JPEG file of several pictures, as phones write it: the first one is the photo.
    format = "JPEG" if image.format == "MPO" else image.format
    is_wide_png = format == "PNG" and encoded[24:25] == b"\x10"
    bits = 16 if is_wide_png or image.mode.startswith("I") else 8
    mode, num_bands, num_premultiplied = image.mode, None, 0
    if layout:
        bits = max(bits, layout.bits)
        # Of `RGBX`, Pillow would drop the fourth band.
        is_other = layout.num_bands != len(image.getbands()) or image.mode == "RGBX"
        num_bands = layout.num_bands if is_other else None
        if _is_misread(image, layout):
            mode, num_bands = "", layout.num_bands
        elif layout.is_premultiplied:
            num_premultiplied = layout.num_bands
    return Header(format, mode, size, orientation, bits, num_bands, num_premultiplied)


def _is_misread(image: "PIL.Image.Image", layout: tiff.Layout) -> bool:
    """Tells whether Pillow gets one band of an opened TIFF file only, or none.

    Of bands that are stored one after the other, it takes the first for gray, reads
    alpha beside gray as 0, and without compression knows colours alone. Gray that is
    multiplied by alpha it does not convert.
    """
    if len(image.getbands()) == 1:
        return layout.num_bands > _MAX_GRAY_BANDS
    if image.mode in ("LA", "La"):
        return layout.is_planar or layout.is_premultiplied
    is_raw = image.info.get("compression") == "raw"
    has_others = layout.is_premultiplied or layout.num_bands != len(image.getbands())
    return layout.is_planar and is_raw and has_others


def decode_gray_png(encoded: bytes) -> np.ndarray:
    """Decodes a PNG file of 8-bit gray to uint8 [height, width], as in a graph.

    Raises:
      schema.DataError: if the file is damaged.
    """
    decode_png = functools.partial(tf.io.decode_png, channels=1)
    return decode_by_tensorflow(decode_png, encoded)[..., 0]


def decode_by_tensorflow(
    function: Callable[[tf.Tensor], tf.Tensor], encoded: bytes
) -> np.ndarray:
    """Decodes a file by an op of TensorFlow.

    Raises:
      schema.DataError: if the file is damaged.
    """
    try:
        return function(tf.constant(encoded)).numpy()
    except tf.errors.InvalidArgumentError as error:
        reason = error.message.partition("} ")[2] or error.message
        reason = reason.splitlines()[0].partition(" [Op:")[0]
        raise schema.DataError(
            f"it cannot be decoded ({reason})", kind="damaged_file"
        ) from error


def is_plain(encoded: tf.Tensor) -> tf.Tensor:
    """Tells, in a graph, whether `decode_rgb_in_graph` serves for a file.

    That is, for a JPEG or PNG file that has no EXIF notes, by which it may have to be
    turned, and at most `MAX_PIXELS`.

    Returns:
      bool scalar; of a file that begins like JPEG and goes on otherwise, it may be an
      `InvalidArgumentError`.
    """
    head = read_head(encoded)
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    height, width = tf.cond(
        is_jpeg,
        lambda: tf.unstack(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64)),
        lambda: [_read_big_endian(head[20:24]), _read_big_endian(head[16:20])],
    )
    has_exif = tf.strings.regex_full_match(encoded, _EXIF_PATTERN)
    is_known = is_jpeg | is_png(encoded)
    return is_known & (height * width <= MAX_PIXELS) & ~has_exif


def is_png(encoded: tf.Tensor) -> tf.Tensor:
    """Tells, in a graph, whether a file begins like PNG."""
    return tf.strings.substr(encoded, 0, 8) == PNG_SIGNATURE


def read_head(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the first bytes of a file, uint8 [32]; zeros if it is shorter."""
    return tf.io.decode_raw(
        tf.strings.substr(encoded, 0, _HEAD_SIZE), tf.uint8, fixed_length=_HEAD_SIZE
    )


def _read_big_endian(number: tf.Tensor) -> tf.Tensor:
    """Returns the number, int64, that four bytes spell."""
    places = np.array([1 << 24, 1 << 16, 1 << 8, 1], np.int64)
    return tf.reduce_sum(tf.cast(number, tf.int64) * places)


def decode_rgb_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG file to uint8 [height, width, 3], in a graph or not."""
    decoded = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(decoded, [None, None, 3])


def load_pixels(image: "PIL.Image.Image", mode: str | None = None) -> np.ndarray:
    """Decodes the pixels of an opened image, as they are stored.

    Args:
      image: of `open_image`, its pixels not yet loaded.
      mode: what Pillow shall convert them to; None for no conversion.

    Raises:
      schema.DataError: if the file is damaged.
    """
    turned_by = _read_orientation(image) if image.format == "TIFF" else 1
    with _naming_damage():
        pixels = np.asarray(image.convert(mode) if mode else image)
    # Pillow turns TIFF files, and only these, as it loads them.
    return turn_back(pixels, turned_by)


def count_pictures(image: "PIL.Image.Image") -> int:
    """Counts the pictures of an opened image, of which an animation has several.

    Raises:
      schema.DataError: if the file is damaged.
    """
    with _naming_damage():  # Of a GIF file, all pictures are read for that.
        return getattr(image, "n_frames", 1)


@contextlib.contextmanager
def _naming_damage() -> Iterator[None]:
    """Makes one error of whatever Pillow says as it reads on in a file."""
    try:
        yield
    except Exception as error:  # A damaged file shows as many kinds of error.
        raise schema.DataError(
            f"it cannot be decoded ({error})", kind="damaged_file"
        ) from error


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors pixels, [height, width, ...], as viewers do."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes `turn`."""
    return turn(pixels, _INVERSE_TURN.get(orientation, orientation))


def _read_orientation(image: "PIL.Image.Image") -> int:
    """Returns the orientation of an opened image, 1 if it has none that is valid."""
    from PIL import Image

    if image.format == "TIFF":
        orientation = image.tag_v2.get(_ORIENTATION, 1)
    else:
        exif = Image.Exif()
        # Not `image.getexif()`: for a PNG file it decodes all pixels.
        if not (encoded := image.info.get("exif")):
            return 1
        try:
            exif.load(encoded)
        except (OSError, SyntaxError, ValueError, struct.error):
            return 1  # Viewers show a photo with damaged notes, too.
        orientation = exif.get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1
