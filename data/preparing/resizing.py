"""Images and masks of all sizes brought to one, and scores brought back.

`stretch` makes the whole example fit each side by itself; `pad` keeps its aspect ratio
and fills up what is left over; `crop` keeps the aspect ratio and cuts off what is too
much, half of it at either end.
"""

from collections.abc import Sequence

import tensorflow as tf

from data import schema

METHODS = ("stretch", "pad", "crop")


def resize_pair(
    image: tf.Tensor,
    label: tf.Tensor,
    size: tuple[int, int],
    method: str,
    *,
    fill_value: int = schema.FILL_VALUE,
    ignored: int = schema.IGNORE_LABEL,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Brings an image and its labels to one size.

    Args:
      image: uint8 or uint16 [height, width, channels].
      label: integers [height, width].
      size: height and width of what comes out.
      method: one of `METHODS`.
      fill_value: of the image, for what `pad` adds.
      ignored: label of what `pad` adds.

    Returns:
      The image, of its type [*size, channels], by antialiased bilinear interpolation,
      and the labels, integers [*size], each that of the nearest pixel.
    """
    if image.shape[:2] == size:
        return image, label
    shape = tf.shape(label)
    if method == "crop":
        # Before it is resized: of a long, thin image little is left.
        window = _largest_within(shape, size)
        top, left = tf.unstack((shape - window) // 2)
        image = image[top : top + window[0], left : left + window[1]]
        label = label[top : top + window[0], left : left + window[1]]
    inner = _largest_within(size, shape) if method == "pad" else size
    dtype = image.dtype
    image = tf.image.resize(image, inner, "bilinear", antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, dtype.max), dtype)
    # Any other method would invent labels between those of the mask.
    label = tf.image.resize(label[..., tf.newaxis], inner, "nearest")[..., 0]
    if method == "pad":
        before = (size - inner) // 2
        margins = tf.stack([before, size - inner - before], axis=1)
        label = tf.pad(label, margins, constant_values=ignored)
        margins = tf.pad(margins, [[0, 1], [0, 0]])  # None for the channels.
        image = tf.pad(image, margins, constant_values=fill_value)
    return tf.ensure_shape(image, [*size, image.shape[-1]]), tf.ensure_shape(
        label, size
    )


def restore_size(scores: tf.Tensor, native_size: tf.Tensor, method: str) -> tf.Tensor:
    """Interpolates the scores of classes at the pixels that an image had at first.

    Args:
      scores: [height, width, classes], of what `resize_pair` made of it.
      native_size: int32 [2], the height and width it had before.
      method: `stretch` or `pad`; of what was cropped away there are no scores.

    Returns:
      float32 [*native_size, classes], by bilinear interpolation.
    """
    if method == "pad":
        size = scores.shape[:2]
        inner = _largest_within(size, native_size)
        top, left = tf.unstack((size - inner) // 2)
        scores = scores[top : top + inner[0], left : left + inner[1]]
    return tf.image.resize(scores, native_size, "bilinear")


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
