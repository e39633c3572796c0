"""An image and its mask, from files to pixels that lie upon each other."""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

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
        image_header = _read_header(image)
    with _named("the mask"):
        label_header = _read_header(label)
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


def decode_pair_in_graph(
    image: tf.Tensor,
    label: tf.Tensor,
    label_colors: LabelColors = (),
    image_format: schema.ImageFormat = schema.RGB,
    *,
    catches_errors: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Does in a graph what `decode_pair` does.

    Args:
      image: as there.
      label: as there.
      label_colors: as there.
      image_format: as there.
      catches_errors: whether a damaged file never is an error of the graph, as one of
        JPEG or PNG else may be; slower, since all files then go through Python.

    Returns:
      The image, the mask's values, and a bool that is false where `decode_pair` has an
      error to raise.
    """
    is_rgb = image_format == schema.RGB
    fits = image.dtype == image_format.dtype and (
        image.shape[-1] == image_format.num_channels
    )
    if fits and label.dtype != tf.string and label.shape.rank == 2:
        is_valid = tf.reduce_all(tf.shape(image)[:2] == tf.shape(label))
        return image, tf.cast(label, tf.int32), is_valid

    def decode_plain() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        pixels = (
            images.decode_rgb_in_graph(image) if image.dtype == tf.string else image
        )
        values = label
        if label.dtype == tf.string:
            values = tf.io.decode_png(label, channels=1)[..., 0]
        is_valid = tf.reduce_all(tf.shape(pixels)[:2] == tf.shape(values))
        return pixels, tf.cast(values, tf.int32), is_valid

    def decode_other() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        function = functools.partial(
            _try_decode_pair, label_colors=label_colors, image_format=image_format
        )
        dtypes = (image_format.dtype, tf.int32, tf.bool)
        # Without state, or --deterministic would decode one file at a time.
        return tuple(
            tf.numpy_function(function, [image, label], dtypes, stateful=False)
        )

    if (
        catches_errors
        or not (fits or (is_rgb and image.dtype == tf.string))
        or label_colors
        or (label.dtype != tf.string and label.shape.rank != 2)
    ):
        pixels, values, is_valid = decode_other()
    else:
        pixels, values, is_valid = tf.cond(
            _is_plain(image, label), decode_plain, decode_other
        )
    return (
        tf.ensure_shape(pixels, [None, None, image_format.num_channels]),
        tf.ensure_shape(values, [None, None]),
        tf.ensure_shape(is_valid, []),
    )


def _is_plain(image: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """Tells whether TensorFlow decodes both as they must be, with nothing to turn.

    It does with nearly all files, and Python, which decodes the others, would be in the
    way of the thread that builds the model.
    """
    is_plain = tf.constant(True)
    if image.dtype == tf.string:
        is_plain &= images.is_plain(image)
    if label.dtype == tf.string:
        is_plain &= masks.is_plain_in_graph(label)
    if image.dtype == label.dtype == tf.string:
        is_plain &= image != label  # `decode_pair` says what is wrong with it.
    return is_plain


def _try_decode_pair(
    image: bytes | np.ndarray,
    label: bytes | np.ndarray,
    *,
    label_colors: LabelColors,
    image_format: schema.ImageFormat,
) -> tuple[np.ndarray, np.ndarray, bool]:
    try:
        return *decode_pair(image, label, label_colors, image_format), True
    except schema.DataError:
        blank = np.zeros([1, 1, image_format.num_channels], image_format.dtype)
        return blank, np.zeros([1, 1], np.int32), False


def decode_label(label: bytes | np.ndarray, label_colors: LabelColors) -> np.ndarray:
    """Returns the values of a mask alone, not turned; see `decode_pair`."""
    if isinstance(label, bytes):
        return masks.decode_mask(label, label_colors)
    if label.ndim == 3 and label.shape[-1] == 3 and label_colors:
        return masks.look_up_colors(label, label_colors)
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


def _read_header(file: bytes | np.ndarray) -> images.Header:
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
