"""An image and its mask, from files to pixels that lie upon each other."""

import contextlib
from collections.abc import Iterator

import numpy as np

from data import schema
from data.files import image_decoding, images, masks, palettes

LabelColors = tuple[palettes.ColorValue, ...]


def decode_pair(
    image: bytes | np.ndarray,
    label: bytes | np.ndarray,
    label_colors: LabelColors = (),
    image_format: schema.ImageFormat = schema.RGB,
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes an image and its mask; checks all that can be wrong with the two files.

    Both are turned as their EXIF orientations say, as viewers do; where only the files
    as stored agree in size, neither is turned.

    Args:
      image: a file, or uint8 or uint16 [height, width, bands].
      label: a file, or integers [height, width] or [height, width, channels].
      label_colors: colours of the mask and the value of each; empty if it holds
        numbers.
      image_format: what to decode the image to.

    Returns:
      The image, uint8 or uint16 [height, width, channels], and the mask's values, int32
      [height, width]; see `masks.decode_mask`.

    Raises:
      schema.DataError: that says which of the two is wrong, and the remedy.
    """
    with _named("the image"):
        image_header = read_header(image)
    with _named("the mask"):
        label_header = read_header(label)
    image_turn, label_turn = _plan_turns(image_header, label_header)
    try:
        with _named("the mask"):
            values = decode_label(label, label_colors)
    except schema.DataError as error:
        if error.kind in ("lossy_mask", "mask_is_photo") and _is_swapped(image, label):
            raise schema.DataError(
                "the mask is a photo, and the image holds labels: the two are swapped; "
                "swap the folders, or --images and --masks",
                kind="swapped",
            ) from error
        raise
    if _is_same_file(image, label) and values.min() < values.max():
        raise schema.DataError(
            "the image is the mask: the two files are the same, byte for byte; put the "
            "photo in its place",
            kind="image_is_mask",
        )
    with _named("the image"):
        if isinstance(image, bytes):
            pixels = image_decoding.decode_image(image, image_format)
        else:
            pixels = image_decoding.fit_pixels(image, image_format)
    return images.turn(pixels, image_turn), images.turn(values, label_turn)


def decode_label(label: bytes | np.ndarray, label_colors: LabelColors) -> np.ndarray:
    """Returns the values of a mask alone, not turned; see `decode_pair`."""
    if isinstance(label, bytes):
        return masks.decode_mask(label, label_colors)
    if label.ndim == 3 and label.shape[-1] in (3, 4) and label_colors:
        return masks.look_up_colors(label[..., :3], label_colors)
    if label.ndim == 3:
        return masks.gray_values(label)
    return masks.check_values(label)


def _is_same_file(image: bytes | np.ndarray, label: bytes | np.ndarray) -> bool:
    return isinstance(image, bytes) and isinstance(label, bytes) and image == label


def _is_swapped(image: bytes | np.ndarray, label: bytes | np.ndarray) -> bool:
    """Tells whether the mask is a photo and the image has the few colours of one."""
    if not (isinstance(image, bytes) and isinstance(label, bytes)):
        return False
    try:
        counts = [
            masks.find_colors(image_decoding.decode_image(file))[1]
            for file in (image, label)
        ]
    except schema.DataError:
        return False
    return masks.is_drawing(counts[0]) and masks.is_photo(counts[1])


def read_header(file: bytes | np.ndarray) -> images.Header:
    """Reads the header of a file; that of pixels says their size alone.

    Raises:
      schema.DataError: as `images.open_image`.
    """
    if isinstance(file, bytes):
        return images.read_header(file)
    return images.Header("pixels", "", file.shape[:2])


def _plan_turns(image: images.Header, label: images.Header) -> tuple[int, int]:
    """Returns the orientations that image and mask are to be turned by."""
    if image.shown_size == label.shown_size:
        return image.orientation, label.orientation
    if image.size == label.size:
        return 1, 1
    raise schema.DataError(
        f"the image has {_describe_size(image)} pixels, its mask "
        f"{_describe_size(label)}; the two must agree",
        kind="size_mismatch",
    )


def _describe_size(header: images.Header) -> str:
    text = f"{header.size[0]}x{header.size[1]}"
    if header.orientation == 1:
        return text
    height, width = header.shown_size
    return f"{text} (shown as {height}x{width}, by its EXIF orientation)"


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the name of a file before the message of an error about it."""
    try:
        yield
    except schema.DataError as error:
        raise schema.DataError(f"{name}: {error}", kind=error.kind) from error
