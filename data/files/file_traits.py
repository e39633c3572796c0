"""What files hold that training does not see, or sees otherwise than a viewer."""

import dataclasses
from collections.abc import Collection

import numpy as np
import tensorflow as tf

from data.doctor import conversions
from data.files import images, palettes

_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_BANDS = 277
"""The TIFF tag of their number; Pillow passes over those that it does not know."""


_LEAST_OF_16_BITS = 16383
"""Images of which no value is greater use less than a quarter of their range."""


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """Of an example; all empty where both files are plain.

    Attributes:
      dropped: what of the image is passed over: `an alpha channel`, `a further band`.
      greatest_16_bit: the greatest value of an image of 16 bits, of which the upper 8
        are taken.
      orientation: by which the image is turned and the mask, which has none, is not,
        though their sizes fit as they are stored, too; else 1.
      encoding: how the mask is stored: `palette`, `gray`, `gray with alpha`, `colour`.
      palette: value and colour of the indexes that a palette mask uses.
    """

    dropped: str = ""
    greatest_16_bit: int | None = None
    orientation: int = 1
    encoding: str = "gray"
    palette: tuple[tuple[int, palettes.Color], ...] = ()


def look(image: bytes | np.ndarray, label: bytes | np.ndarray) -> Traits:
    """Looks at the headers of two files, and at pixels where these leave it open.

    Args:
      image: a file, or pixels, of which nothing is to be said.
      label: a file, or pixels.

    Raises:
      schema.DataError: if a file cannot be read.
    """
    found = {}
    image_header = label_header = None
    if isinstance(image, bytes):
        image_header = images.read_header(image)
        found["dropped"] = _find_dropped(image)
        found["greatest_16_bit"] = _find_greatest(image, image_header)
    if isinstance(label, bytes):
        label_header = images.read_header(label)
        found["encoding"], found["palette"] = _find_encoding(label)
    if image_header and label_header:
        found["orientation"] = find_open_turn(image_header, label_header)
    return Traits(**found)


def find_open_turn(image: images.Header, label: images.Header) -> int:
    """Returns the orientation that only the image has, where sizes do not tell more.

    A mask may be drawn on the photo as viewers show it or as it is stored. Of a square,
    or where the photo is turned by half, or mirrored, both are of one size.
    """
    is_open = image.shown_size == label.size and image.size == label.size
    return image.orientation if is_open and label.orientation == 1 else 1


def _find_dropped(encoded: bytes) -> str:
    image = images.open_image(encoded)
    if image.format == "TIFF" and image.tag_v2.get(_BANDS, 1) > len(image.getbands()):
        return "a further band"
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return ""
    # Where all is opaque, nothing is lost with it.
    is_opaque = images.load_pixels(image, "RGBA")[..., 3].min() == 255
    return "" if is_opaque else "an alpha channel"


def _find_greatest(encoded: bytes, header: images.Header) -> int | None:
    if header.format == "PNG" and encoded[24:25] == b"\x10":
        try:
            return int(tf.reduce_max(tf.io.decode_png(encoded, dtype=tf.uint16)))
        except tf.errors.InvalidArgumentError:
            return None  # Decoding names what is wrong with it.
    if header.format == "TIFF" and header.mode.startswith("I"):
        return int(images.load_pixels(images.open_image(encoded)).max())
    return None


def _find_encoding(
    encoded: bytes,
) -> tuple[str, tuple[tuple[int, palettes.Color], ...]]:
    image = images.open_image(encoded)
    if image.mode == "P":
        pixels = images.load_pixels(images.open_image(encoded))
        indexes = np.flatnonzero(np.bincount(pixels.ravel()))
        image = images.open_image(encoded)
        table = (image.getpalette("RGB") or []) + [0] * 768
        return "palette", tuple(
            (index, tuple(table[3 * index : 3 * index + 3]))
            for index in indexes.tolist()
        )
    if image.mode in ("LA", "La"):
        return "gray with alpha", ()
    if image.mode.startswith("RGB"):
        return "colour", ()
    return "gray", ()


def describe_dropped(dropped: str, num_images: int) -> str:
    """Says what becomes of alpha channels or bands of some images."""
    seen = ""
    if "alpha" in dropped:
        seen = ", so what is transparent is seen in the colours that lie under it"
    return (
        f"{num_images:,} image{'s have' if num_images > 1 else ' has'} {dropped}, "
        f"which is dropped{seen}: images are read as RGB; if it matters, write it into "
        "the three channels"
    )


def describe_range(num_images: int, greatest: int) -> str:
    """Says what becomes of images of 16 bits with small values; nothing of others."""
    if greatest > _LEAST_OF_16_BITS:
        return ""
    bits = max(greatest, 1).bit_length()
    return (
        f"{num_images:,} image{'s' if num_images > 1 else ''} of 16 bits hold values "
        f"up to {greatest} only, which are {bits} bits: the upper 8 of the 16 bits are "
        f"taken, 0 to {greatest >> 8}, which is nearly black; multiply the values by "
        f"{2 ** (16 - bits)}, or write 8 bits"
    )


def describe_turns(num_images: int) -> str:
    """Says what is open about photos with an EXIF orientation."""
    return (
        f"{num_images:,} photo{'s are' if num_images > 1 else ' is'} turned by an EXIF "
        "orientation that the mask does not have, and sizes agree turned or not: the "
        "masks are taken to be drawn on the photos as shown"
    )


def describe_turn_remedies(files: Collection[str]) -> str:
    """Says what to do about such photos, in both cases.

    Args:
      files: of the images.
    """
    return (
        "If they were drawn on the photos as stored, take the notes off: run in the "
        f"folder --data_dir (of a copy)\n{conversions.write_untagging(files)}\nIf on "
        "the photos as shown, all is well; to have it said no more, turn the photos "
        "for good with PIL.ImageOps.exif_transpose"
    )
