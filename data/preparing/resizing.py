"""Images and masks of all sizes brought to one, and scores brought back.

`stretch` makes the whole example fit each side by itself; `pad` keeps its aspect ratio
and fills up what is left over; `crop` keeps the aspect ratio and cuts off what is too
much, half of it at either end.
"""

from collections.abc import Sequence

import tensorflow as tf

from data import schema

METHODS = ("stretch", "pad", "crop")


def resize_image(
    image: tf.Tensor,
    size: tuple[int, int],
    method: str,
    *,
    fill_value: int = schema.FILL_VALUE,
) -> tf.Tensor:
    """Brings an image to a size.

    Args:
      image: uint8 or uint16 [height, width, channels].
      size: height and width of what comes out.
      method: one of `METHODS`.
      fill_value: for what `pad` adds.

    Returns:
      The image, of its type [*size, channels], by antialiased bilinear interpolation.
    """
    if image.shape[:2] == size:
        return image
    image, inner = _crop(image, size, method)
    dtype = image.dtype
    image = tf.image.resize(image, inner, "bilinear", antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, dtype.max), dtype)
    if method == "pad":
        # None for the channels.
        margins = tf.pad(_margins(size, inner), [[0, 1], [0, 0]])
        image = tf.pad(image, margins, constant_values=fill_value)
    return tf.ensure_shape(image, [*size, image.shape[-1]])


def resize_labels(
    labels: tf.Tensor,
    size: tuple[int, int],
    method: str,
    *,
    ignored: int = schema.IGNORE_LABEL,
) -> tf.Tensor:
    """Brings the labels of an image to a size, as `resize_image` does the image.

    Args:
      labels: integers [height, width].
      size: height and width of what comes out.
      method: one of `METHODS`.
      ignored: label of what `pad` adds.

    Returns:
      Integers [*size], each the label of the nearest pixel.
    """
    if labels.shape == size:
        return labels
    labels, inner = _crop(labels, size, method)
    # Any other method would invent labels between those of the mask.
    labels = tf.image.resize(labels[..., tf.newaxis], inner, "nearest")[..., 0]
    if method == "pad":
        labels = tf.pad(labels, _margins(size, inner), constant_values=ignored)
    return tf.ensure_shape(labels, size)


def _crop(
    pixels: tf.Tensor, size: tuple[int, int], method: str
) -> tuple[tf.Tensor, tf.Tensor | tuple[int, int]]:
    """Returns what is kept of pixels, [height, width, ...], and the size it gets."""
    shape = tf.shape(pixels)[:2]
    if method == "crop":
        # Before it is resized: of a long, thin image little is left.
        window = _largest_within(shape, size)
        top, left = tf.unstack((shape - window) // 2)
        pixels = pixels[top : top + window[0], left : left + window[1]]
    return pixels, _largest_within(size, shape) if method == "pad" else size


def _margins(size: tuple[int, int], inner: tf.Tensor) -> tf.Tensor:
    """Returns what `pad` adds, int32 [2, 2]: before and after, in height and width."""
    before = (size - inner) // 2
    return tf.stack([before, size - inner - before], axis=1)


def restore_size(scores: tf.Tensor, native_size: tf.Tensor, method: str) -> tf.Tensor:
    """Interpolates the scores of classes at the pixels that an image had at first.

    Args:
      scores: [height, width, classes], of what `resize_image` made of it.
      native_size: int32 [2], the height and width it had before.
      method: `stretch` or `pad`; of what was cropped away there are no scores.

    Returns:
      float32 [*native_size, classes], by bilinear interpolation.
    """
    return tf.image.resize(
        _uncover(scores, native_size, method), native_size, "bilinear"
    )


def restore_rows(
    scores: tf.Tensor, native_size: tf.Tensor, method: str, rows: tf.Tensor
) -> tf.Tensor:
    """Returns some rows of what `restore_size` does, which may be large as a whole.

    Args:
      scores: as for `restore_size`.
      native_size: as for `restore_size`.
      method: as for `restore_size`.
      rows: int32 [rows], which.

    Returns:
      float32 [rows, native width, classes].
    """
    scores = tf.cast(_uncover(scores, native_size, method), tf.float32)
    num_rows = tf.shape(scores)[0]
    scale = tf.cast(num_rows, tf.float32) / tf.cast(native_size[0], tf.float32)
    centers = (tf.cast(rows, tf.float32) + 0.5) * scale - 0.5
    centers = tf.clip_by_value(centers, 0, tf.cast(num_rows - 1, tf.float32))
    above = tf.cast(centers, tf.int32)
    below = tf.minimum(above + 1, num_rows - 1)
    share = (centers - tf.cast(above, tf.float32))[:, tf.newaxis, tf.newaxis]
    scores = tf.gather(scores, above) * (1 - share) + tf.gather(scores, below) * share
    return tf.image.resize(scores, [tf.size(rows), native_size[1]], "bilinear")


def _uncover(scores: tf.Tensor, native_size: tf.Tensor, method: str) -> tf.Tensor:
    """Cuts off what `pad` had added."""
    if method != "pad":
        return scores
    size = tf.shape(scores)[:2]
    inner = _largest_within(size, native_size)
    top, left = tf.unstack((size - inner) // 2)
    return scores[top : top + inner[0], left : left + inner[1]]


def _largest_within(
    bounds: tf.Tensor | Sequence[int], shape: tf.Tensor | Sequence[int]
) -> tf.Tensor:
    """Returns the size, int32 [2], of the largest `shape`-like rectangle in `bounds`.

    Sides are rounded to the nearest pixel, and are at least 1.
    """
    bounds, shape = tf.cast(bounds, tf.int64), tf.cast(shape, tf.int64)
    # The other side if this one filled its bound: height for width, width for height.
    other = (2 * shape[::-1] * bounds + shape) // (2 * shape)
    other = tf.maximum(other, 1)
    fills_height = shape[0] * bounds[1] >= shape[1] * bounds[0]
    largest = tf.where(
        fills_height,
        tf.stack([bounds[0], other[0]]),
        tf.stack([other[1], bounds[1]]),
    )
    return tf.cast(largest, tf.int32)
