"""Images and masks decoded in a graph: nearly all by TensorFlow, the rest by Python."""

import functools

import numpy as np
import tensorflow as tf

from data import schema
from data.files import decoding, images, masks


def decode_pair_in_graph(
    image: tf.Tensor,
    label: tf.Tensor,
    label_colors: decoding.LabelColors = (),
    image_format: schema.ImageFormat = schema.RGB,
    *,
    catches_errors: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Does in a graph what `decoding.decode_pair` does.

    Args:
      image: as there.
      label: as there.
      label_colors: as there.
      image_format: as there.
      catches_errors: whether a damaged file never is an error of the graph, as one of
        JPEG or PNG else may be; slower, since all files then go through Python.

    Returns:
      The image, the mask's values, and a bool that is false where that has an error to
      raise.
    """
    fits = image.dtype == image_format.dtype and (
        image.shape[-1] == image_format.num_channels
    )
    has_values = label.dtype != tf.string and label.shape.rank == 2
    if fits and has_values:
        return _pair_up(image, label)
    decode_any = functools.partial(
        _decode_by_python, image, label, label_colors, image_format
    )
    is_rgb_file = image.dtype == tf.string and image_format == schema.RGB
    has_file_of_values = (label.dtype == tf.string or has_values) and not label_colors
    if catches_errors or not (fits or is_rgb_file) or not has_file_of_values:
        pixels, values, is_valid = decode_any()
    else:
        decode_plain = functools.partial(_decode_plain, image, label)
        pixels, values, is_valid = tf.cond(
            _is_plain(image, label), decode_plain, decode_any
        )
    return (
        tf.ensure_shape(pixels, [None, None, image_format.num_channels]),
        tf.ensure_shape(values, [None, None]),
        tf.ensure_shape(is_valid, []),
    )


def _decode_plain(
    image: tf.Tensor, label: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes by TensorFlow what `_is_plain`."""
    pixels = images.decode_rgb_in_graph(image) if image.dtype == tf.string else image
    values = label
    if label.dtype == tf.string:
        values = tf.io.decode_png(label, channels=1)[..., 0]
    return _pair_up(pixels, values)


def _pair_up(
    pixels: tf.Tensor, values: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Checks the sizes of an image and its mask, and the values, as `masks` does.

    Returns:
      As `decode_pair_in_graph`; what no mask may hold is the nearest that one may.
    """
    is_valid = tf.reduce_all(tf.shape(pixels)[:2] == tf.shape(values))
    if values.dtype not in (tf.uint8, tf.uint16):
        whole = tf.cast(values, tf.int64)
        values = tf.clip_by_value(whole, 0, masks.MAX_VALUE)
        is_valid &= tf.reduce_all(values == whole)
    return pixels, tf.cast(values, tf.int32), is_valid


def _decode_by_python(
    image: tf.Tensor,
    label: tf.Tensor,
    label_colors: decoding.LabelColors,
    image_format: schema.ImageFormat,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes whatever there is by `decoding.decode_pair`."""
    function = functools.partial(
        _try_decode_pair, label_colors=label_colors, image_format=image_format
    )
    dtypes = (image_format.dtype, tf.int32, tf.bool)
    # Without state, or --deterministic would decode one file at a time.
    return tuple(tf.numpy_function(function, [image, label], dtypes, stateful=False))


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
        is_plain &= image != label  # `decoding.decode_pair` says what is wrong with it.
    return is_plain


def _try_decode_pair(
    image: bytes | np.ndarray,
    label: bytes | np.ndarray,
    *,
    label_colors: decoding.LabelColors,
    image_format: schema.ImageFormat,
) -> tuple[np.ndarray, np.ndarray, bool]:
    try:
        return *decoding.decode_pair(image, label, label_colors, image_format), True
    except schema.DataError:
        blank = np.zeros([1, 1, image_format.num_channels], image_format.dtype)
        return blank, np.zeros([1, 1], np.int32), False
