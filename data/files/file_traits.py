"""What files hold that training does not see, or sees otherwise than a viewer."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data import schema
from data.files import conversions, decoding, image_decoding, images, palettes

_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_GRAY_MODES = ("1", "L", "LA", "La", "F")

_ALPHA, _BAND, _COLORS = DROPPED = ("an alpha channel", "a further band", "colours")
"""What of an image the network may not see."""

LEAST_OF_16_BITS = 16383
"""Images of which no value is greater use less than a quarter of their range."""


class Stored(NamedTuple):
    """What an image has of each pixel.

    Attributes:
      num_channels: how many values.
      bits: of each value; of fewer than 8, 8.
      has_alpha: whether one of them says how opaque the pixel is.
    """

    num_channels: int
    bits: int
    has_alpha: bool

    def __str__(self) -> str:
        channels = f"{self.num_channels} channel{'s' * (self.num_channels > 1)}"
        alpha = ", the last of them alpha" if self.has_alpha else ""
        return f"{channels} of {self.bits} bits{alpha}"


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """Of an example; all but `stored` empty where both files are plain.

    Attributes:
      stored: what the image has of each pixel; None if its header cannot be read.
      dropped: what of the image is passed over; of `DROPPED`.
      lacks_alpha: whether the image has no alpha where the network sees one.
      greatest_16_bit: the greatest value of an image of 16 bits.
      has_low_bits: whether such an image is more than one of 8 bits, scaled.
      orientation: by which the image is turned and the mask, which has none, is not,
        though their sizes fit as they are stored, too; else 1.
      encoding: how the mask is stored: `palette`, `gray`, `gray with alpha`, `colour`.
      palette: value and colour of the indexes that a palette mask uses.
    """

    stored: Stored | None = None
    dropped: tuple[str, ...] = ()
    lacks_alpha: bool = False
    greatest_16_bit: int | None = None
    has_low_bits: bool = False
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
      image: a file, or pixels, of which nothing but `stored` is to be said.
      label: a file, or pixels.
      image_format: what the image is decoded to.

    Raises:
      schema.DataError: if a file cannot be read.
    """
    found = {"stored": look_at_image(image)}
    image_header, label_header = map(decoding.read_header, (image, label))
    if isinstance(image, bytes):
        num_channels = image_format.num_channels
        found["dropped"] = tuple(_find_dropped(image, image_header, num_channels))
        found["lacks_alpha"] = num_channels in (2, 4) and not _has_alpha(
            image, image_header
        )
        found["greatest_16_bit"], found["has_low_bits"] = _measure(
            image, image_header, num_channels
        )
    if isinstance(label, bytes):
        found["encoding"], found["palette"] = _find_encoding(label)
    found["orientation"] = find_open_turn(image_header, label_header)
    return Traits(**found)


def look_at_image(image: bytes | np.ndarray) -> Stored:
    """Returns what an image, a file or [height, width, channels], has of each pixel.

    Raises:
      schema.DataError: if its header cannot be read.
    """
    if not isinstance(image, bytes):
        return Stored(image.shape[-1], 8 * image.dtype.itemsize, has_alpha=False)
    header = images.read_header(image)
    if header.num_bands is not None:
        return Stored(header.num_bands, header.bits, has_alpha=False)
    has_alpha = _has_alpha(image, header)
    num_colors = 1 if _is_gray(header) else 3
    return Stored(num_colors + has_alpha, header.bits, has_alpha)


def _is_gray(header: images.Header) -> bool:
    return header.mode in _GRAY_MODES or header.mode.startswith("I")


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
    if num_channels in (1, 2) and not _is_gray(header):
        pixels = images.load_pixels(images.open_image(encoded), "RGB")
        if (pixels != pixels[..., :1]).any():
            yield _COLORS


def _measure(
    encoded: bytes, header: images.Header, num_channels: int
) -> tuple[int | None, bool]:
    """Returns `greatest_16_bit` and `has_low_bits` of an image.

    Alpha says nothing of them: it is 65535 where the image is opaque, whatever range
    the colours have. Nor does a further band that is dropped.
    """
    if header.bits <= 8:
        return None, False
    try:
        pixels = image_decoding.load_stored(encoded, header)
    except schema.DataError:
        return None, False  # Decoding names what is wrong with it.
    num_bands = pixels.shape[-1]
    has_alpha = header.num_bands is None or num_bands != num_channels
    if num_bands in (2, 4) and has_alpha:
        pixels = pixels[..., :-1]
    # To scale 8 bits up, programs add a byte of zeros or the same byte again.
    low, high = pixels & 255, pixels >> 8
    return int(pixels.max()), bool(low.any() and (low != high).any())


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
    dropped: str, found: Sequence[Traits], image_format: schema.ImageFormat
) -> str:
    """Says what becomes of alpha channels, bands or colours of some images.

    Args:
      dropped: one of `DROPPED`.
      found: the traits of those.
      image_format: what images are decoded to.
    """
    num_images = len(found)
    subject = f"{num_images:,} image{'s have' if num_images > 1 else ' has'} {dropped}"
    asked = f"--image_channels={image_format.num_channels}"
    if dropped == _COLORS:
        return (
            f"{subject}, of which {asked} leaves the luma; if they matter, say "
            f"--image_channels={image_format.num_channels + 2}"
        )
    if dropped == _BAND:
        numbers = sorted({one.stored.num_channels for one in found})
        remedy = f"say --image_channels={numbers[-1]}"
        if len(numbers) > 1:
            listed = ", ".join(map(str, numbers))
            remedy = f"write all with as many bands (there are {listed}), and {remedy}"
        return f"{subject}, which is dropped by {asked}; if it matters, {remedy}"
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


def describe_mixed_alpha(found: Sequence[Traits], num_channels: int) -> str:
    """Says where the last channel of some images is alpha, and that of others is not.

    Args:
      found: the traits of all images that were looked at.
      num_channels: what images are decoded to.

    Returns:
      A sentence; nothing if all is well.
    """
    alike = [
        one.stored
        for one in found
        if one.stored and one.stored.num_channels == num_channels
    ]
    num_alpha = sum(stored.has_alpha for stored in alike)
    num_other = len(alike) - num_alpha
    if num_channels not in (2, 4) or not num_alpha or not num_other:
        return ""
    return (
        f"{num_alpha:,} image{'s have' if num_alpha > 1 else ' has'} an alpha channel "
        f"where {num_other:,} other{'s have' if num_other > 1 else ' has'} a further "
        f"band, and --image_channels={num_channels} takes both for the same; keep one "
        f"kind of images, or say --image_channels={num_channels - 1}, which drops both"
    )


def describe_range(
    found: Sequence[Traits], image_format: schema.ImageFormat
) -> tuple[str, str] | None:
    """Says what does not fit between values of 16 bits and the range.

    Args:
      found: the traits of all images that were looked at.
      image_format: what images are decoded to.

    Returns:
      The kind of a finding and a sentence; None if all is well.
    """
    wide = [one for one in found if one.greatest_16_bit is not None]
    if not wide:
        return None
    greatest = max(one.greatest_16_bit for one in wide)
    subject = f"{len(wide):,} image{'s' * (len(wide) > 1)} of 16 bits"
    low, high = image_format.value_range
    is_cut = image_format.bits == 8
    asked = f"--image_range={low},{high}"
    bits = max(greatest, 1).bit_length()
    if not is_cut and greatest > high:
        return "beyond_range", (
            f"{subject} hold values up to {greatest}, and with {asked} all beyond "
            f"{high} are taken for {high}; if they matter, say --image_range={low},"
            f"{2**bits - 1}"
        )
    has_others = any(one.stored and one.stored.bits == 8 for one in found)
    start = "write all images with 16 bits and say" if has_others else "say"
    if greatest > LEAST_OF_16_BITS:
        if not (is_cut and any(one.has_low_bits for one in wide)):
            return None
        return "cut_bits", (
            f"{subject} hold more than the upper 8 bits, which {asked} takes; if it "
            f"matters, {start} --image_range=0,65535"
        )
    if not is_cut and high < 65535:
        return None
    # A range within 0..255 would ask for the upper 8 bits.
    proposed = max(2**bits - 1, 256)
    taken = (
        f"the upper 8 of the 16 bits are taken, 0 to {greatest >> 8}"
        if is_cut
        else f"of {asked} they use the lower end"
    )
    return "dark_16_bit", (
        f"{subject} hold values up to {greatest} only, which are {bits} bits: {taken}, "
        f"which is nearly black; {start} --image_range=0,{proposed}"
    )


def describe_turns(num_images: int) -> str:
    """Says what is open about photos with an EXIF orientation."""
    return (
        f"{num_images:,} photo{'s are' if num_images > 1 else ' is'} turned by an EXIF "
        "orientation that the mask does not have, and sizes agree turned or not: the "
        "masks are taken to be drawn on the photos as shown"
    )


def describe_turn_remedies(files: Collection[str], others: Collection[str] = ()) -> str:
    """Says what to do about such photos, in both cases.

    Args:
      files: of the images.
      others: all further images.
    """
    lines = conversions.write_untagging(files, others)
    return (
        "If they were drawn on the photos as stored, take the notes off: run in the "
        f"folder --data_dir (of a copy)\n{lines}\nIf on "
        "the photos as shown, all is well; to have it said no more, turn the photos "
        "for good with PIL.ImageOps.exif_transpose"
    )
