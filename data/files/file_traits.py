"""What files hold that training does not see, or sees otherwise than a viewer."""

import dataclasses
from collections.abc import Collection, Iterator

import numpy as np

from data import schema
from data.files import conversions, image_decoding, images, palettes

_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_GRAY_MODES = ("1", "L", "LA", "La", "F")

_ALPHA, _BAND, _COLORS = DROPPED = ("an alpha channel", "a further band", "colours")
"""What of an image the network may not see."""

_LEAST_OF_16_BITS = 16383
"""Images of which no value is greater use less than a quarter of their range."""


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """Of an example; all empty where both files are plain.

    Attributes:
      dropped: what of the image is passed over; of `DROPPED`.
      lacks_alpha: whether the image has no alpha where the network sees one.
      greatest_16_bit: the greatest value of an image of 16 bits.
      orientation: by which the image is turned and the mask, which has none, is not,
        though their sizes fit as they are stored, too; else 1.
      encoding: how the mask is stored: `palette`, `gray`, `gray with alpha`, `colour`.
      palette: value and colour of the indexes that a palette mask uses.
    """

    dropped: tuple[str, ...] = ()
    lacks_alpha: bool = False
    greatest_16_bit: int | None = None
    orientation: int = 1
    encoding: str = "gray"
    palette: tuple[tuple[int, palettes.Color], ...] = ()


def look(
    image: bytes | np.ndarray,
    label: bytes | np.ndarray,
    image_format: schema.ImageFormat = schema.RGB,
) -> Traits:
    """Looks at the headers of two files, and at pixels where these leave it open.

    Args:
      image: a file, or pixels, of which nothing is to be said.
      label: a file, or pixels.
      image_format: what the image is decoded to.

    Raises:
      schema.DataError: if a file cannot be read.
    """
    found = {}
    image_header = label_header = None
    if isinstance(image, bytes):
        image_header = images.read_header(image)
        num_channels = image_format.num_channels
        found["dropped"] = tuple(_find_dropped(image, image_header, num_channels))
        found["lacks_alpha"] = num_channels in (2, 4) and not _has_alpha(
            image, image_header
        )
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


def _has_alpha(encoded: bytes, header: images.Header) -> bool:
    if header.num_bands is not None:
        return header.num_bands in (2, 4)
    image = images.open_image(encoded)
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def _find_dropped(
    encoded: bytes, header: images.Header, num_channels: int
) -> Iterator[str]:
    """Yields what of an image is lost, if it is more than nothing."""
    if header.num_bands is not None:
        if header.num_bands > num_channels:
            yield _BAND
        return
    if num_channels in (1, 3) and _has_alpha(encoded, header):
        image = images.open_image(encoded)
        # Where all is opaque, nothing is lost with it.
        if images.load_pixels(image, "RGBA")[..., 3].min() < 255:
            yield _ALPHA
    is_gray = header.mode in _GRAY_MODES or header.mode.startswith("I")
    if num_channels in (1, 2) and not is_gray:
        pixels = images.load_pixels(images.open_image(encoded), "RGB")
        if (pixels != pixels[..., :1]).any():
            yield _COLORS


def _find_greatest(encoded: bytes, header: images.Header) -> int | None:
    if header.bits <= 8:
        return None
    try:
        return int(image_decoding.load_stored(encoded, header).max())
    except schema.DataError:
        return None  # Decoding names what is wrong with it.


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


def describe_dropped(
    dropped: str, num_images: int, image_format: schema.ImageFormat
) -> str:
    """Says what becomes of alpha channels, bands or colours of some images.

    Args:
      dropped: one of `DROPPED`.
      num_images: that have it.
      image_format: what images are decoded to.
    """
    subject = f"{num_images:,} image{'s have' if num_images > 1 else ' has'} {dropped}"
    asked = f"--image_channels={image_format.num_channels}"
    if dropped == _COLORS:
        return (
            f"{subject}, of which {asked} leaves the luma; if they matter, say "
            f"--image_channels={image_format.num_channels + 2}"
        )
    if dropped == _BAND:
        return (
            f"{subject}, which is dropped by {asked}; if it matters, say "
            "--image_channels=N with the number of their bands"
        )
    return (
        f"{subject}, which is dropped by {asked}, so what is transparent is seen in "
        "the colours that lie under it; if it matters, say "
        f"--image_channels={image_format.num_channels + 1}"
    )


def describe_missing_alpha(num_images: int) -> str:
    """Says what images without alpha count as."""
    if num_images == 1:
        return "1 image has no alpha channel, and counts as opaque"
    return f"{num_images:,} images have no alpha channel, and count as opaque"


def describe_range(
    num_images: int, greatest: int, image_format: schema.ImageFormat
) -> str:
    """Says what does not fit between values of 16 bits and the range.

    Args:
      num_images: of 16 bits.
      greatest: of their values.
      image_format: what images are decoded to.

    Returns:
      A sentence; nothing if all is well.
    """
    subject = f"{num_images:,} image{'s' if num_images > 1 else ''} of 16 bits"
    low, high = image_format.value_range
    is_cut = image_format.bits == 8
    if not is_cut and greatest > high:
        return (
            f"{subject} hold values up to {greatest}, and with "
            f"--image_range={low},{high} all beyond {high} are taken for {high}"
        )
    if greatest > _LEAST_OF_16_BITS or (not is_cut and high < 65535):
        return ""
    bits = max(greatest, 1).bit_length()
    # A range within 0..255 would ask for the upper 8 bits.
    proposed = max(2**bits - 1, 256)
    taken = (
        f"the upper 8 of the 16 bits are taken, 0 to {greatest >> 8}"
        if is_cut
        else f"of --image_range={low},{high} they use the lower end"
    )
    return (
        f"{subject} hold values up to {greatest} only, which are {bits} bits: {taken}, "
        f"which is nearly black; say --image_range=0,{proposed}"
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
