"""Photos from their files, as viewers show them, or why they cannot be read."""

import dataclasses
import pathlib

import numpy as np

from data import schema
from data.files import image_decoding, images
from trainer import pictures
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
    """

    photo: photos.Photo
    orientation: int
    num_pixels: int
    size: tuple[int, int]
    pixels: np.ndarray | None
    resized: np.ndarray | None


def read(photo: photos.Photo, max_pixels: int) -> Encoded:
    """Reads a photo's file.

    Args:
      photo: which.
      max_pixels: that it may have.

    Raises:
      schema.DataError: if it is no image, or too large.
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
    return getattr(images.open_image(content, max_pixels), "n_frames", 1)


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
    pixels = image_decoding.decode_image(
        encoded.content, image_format, max_pixels=max_pixels
    )
    if encoded.header.orientation == 1:
        return pixels
    return images.turn(pixels, encoded.header.orientation)


def to_rgb(pixels: np.ndarray, image_format: schema.ImageFormat) -> np.ndarray:
    """Makes a photo of any kind fit to be seen, uint8 [height, width, 3]."""
    if image_format == schema.RGB:
        return pixels
    return pictures.to_rgb(pixels[np.newaxis], image_format)[0]
