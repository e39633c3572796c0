"""Photos from their files, as viewers show them, or why they cannot be read."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data import schema
from data.files import file_traits, image_decoding, images
from trainer.drawing import pictures
from trainer.predicting import photos


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A photo's file.

    Attributes:
      photo: which.
      content: all of its bytes.
      header: what they say.
    """

    photo: photos.Photo
    content: bytes
    header: images.Header

    @property
    def num_pixels(self) -> int:
        """What memory it takes follows from."""
        return self.header.size[0] * self.header.size[1]


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A photo.

    Attributes:
      photo: which.
      orientation: the EXIF orientation that was undone to show it.
      num_pixels: that it has.
      pixels: [height, width, channels], as viewers show it, or None once nobody needs
        them.
      size: height and width of these.
      resized: the same at the model's size; None where it is to be predicted in tiles.
      misfit: see `find_misfit`.
    """

    photo: photos.Photo
    orientation: int
    num_pixels: int
    size: tuple[int, int]
    pixels: np.ndarray | None
    resized: np.ndarray | None
    misfit: str = ""


def read(photo: photos.Photo, max_pixels: int) -> Encoded:
    """Reads a photo's file.

    Args:
      photo: which.
      max_pixels: that it may have.

    Raises:
      schema.DataError: if it is no image, damaged, an animation, or too large.
      OSError: if it cannot be read.
    """
    content = pathlib.Path(photo.path).read_bytes()
    header = images.read_header(content, max_pixels)
    if (count := _count_frames(content, header, max_pixels)) > 1:
        raise schema.DataError(
            f"it is an animation of {count} pictures; write the one to predict into a "
            "file of its own",
            kind="animated",
        )
    return Encoded(photo, content, header)


def _count_frames(content: bytes, header: images.Header, max_pixels: int) -> int:
    """Returns how many pictures an animation shows; 1 of other files."""
    if header.format not in ("GIF", "WEBP", "PNG") or not header.mode:
        return 1
    return images.count_pictures(images.open_image(content, max_pixels))


def decode(
    encoded: Encoded, image_format: schema.ImageFormat, max_pixels: int
) -> np.ndarray:
    """Decodes a photo, turned as viewers turn it.

    Args:
      encoded: its file.
      image_format: what to decode it to.
      max_pixels: that it may have.

    Returns:
      uint8 or uint16 [height, width, channels].

    Raises:
      schema.DataError: if that is not possible.
    """
    try:
        pixels = image_decoding.decode_image(
            encoded.content, image_format, max_pixels=max_pixels
        )
    except schema.DataError as error:
        if error.kind not in ("image_bits", "image_channels"):
            raise
        # What it says to type belongs to a training.
        low, high = image_format.value_range
        raise schema.DataError(
            f"it has {file_traits.look_at_image(encoded.content)}, and the model was "
            f"trained on {image_format.num_channels} of {image_format.bits} "
            f"({low} to {high}); give it photos like those",
            kind=error.kind,
        ) from error
    if encoded.header.orientation == 1:
        return pixels
    return images.turn(pixels, encoded.header.orientation)


def find_misfit(
    header: images.Header, pixels: np.ndarray, image_format: schema.ImageFormat
) -> str:
    """Tells whether the values of a photo of 16 bits are not those of the model.

    Args:
      header: of the file.
      pixels: that were decoded of it.
      image_format: that they were decoded to.

    Returns:
      `dark` where they use less than a quarter of the bits, and the model all of them;
      `beyond` where some are greater than any that the model knows; else nothing.
    """
    if header.bits <= 8 or not pixels.size:
        return ""
    high, least = image_format.value_range[1], file_traits.LEAST_OF_16_BITS
    if image_format.bits == 8:  # They are the upper ones.
        return "dark" if pixels.max() <= least >> 8 else ""
    if pixels.max() > high:
        return "beyond"
    return "dark" if high == 65535 and pixels.max() <= least else ""


def describe_misfits(
    misfits: Mapping[str, Sequence[str]], image_format: schema.ImageFormat
) -> Iterator[str]:
    """Yields a sentence for each kind of misfit.

    Args:
      misfits: the paths of photos, by what `find_misfit` says of them.
      image_format: that of the model.
    """
    high = image_format.value_range[1]
    for kind, paths in misfits.items():
        is_one = len(paths) == 1
        what = (
            f"hold{'s' * is_one} values beyond {high}, the greatest that the model was "
            f"trained on, which are taken for {high}"
        )
        if kind == "dark":
            what = (
                f"use{'s' * is_one} less than a quarter of the 16 bits, and "
                f"{'is' if is_one else 'are'} nearly black to the model"
            )
        yield (
            f"{len(paths):,} photo{'s' * (not is_one)} of 16 bits ({paths[0]}"
            f"{', ...' * (not is_one)}) {what}; if the photos of the training were "
            "others, scale the values as theirs"
        )


def to_rgb(pixels: np.ndarray, image_format: schema.ImageFormat) -> np.ndarray:
    """Makes a photo of any kind fit to be seen, uint8 [height, width, 3]."""
    if image_format == schema.RGB:
        return pixels
    return pictures.to_rgb(pixels[np.newaxis], image_format)[0]
