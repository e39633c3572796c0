"""Mirrored, scaled and shifted copies of images and labels, in batches.

Pixel i of a row covers [i, i + 1): its centre lies at i + 1/2, for images and labels
alike. All operations used here have a kernel on CPUs, on GPUs and in XLA.
`tf.image.crop_and_resize` takes 60 % of the time on CPUs, but has none in XLA and none
for uint8 on GPUs, and it takes the outermost half pixel of an image for outside.
"""

import tensorflow as tf

from data import schema


def mirror(
    images: tf.Tensor, labels: tf.Tensor, is_mirrored: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors some examples left to right.

    Args:
      images: [rows, height, width, channels].
      labels: [rows, height, width].
      is_mirrored: bool [rows].

    Returns:
      Images and labels of the same shapes and dtypes.
    """
    return (
        _choose(is_mirrored, tf.reverse(images, [2]), images),
        _choose(is_mirrored, tf.reverse(labels, [2]), labels),
    )


def _choose(is_chosen: tf.Tensor, chosen: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the rows of `chosen` where `is_chosen`, bool [rows], else of `others`."""
    # As matrices, `tf.where` takes less than half the time. `Select`, which would take
    # one condition for each row as it is, has no kernel for uint8 on GPUs.
    shape = others.shape[1:]
    matrices = [tf.reshape(t, [-1, shape.num_elements()]) for t in (chosen, others)]
    return tf.reshape(tf.where(is_chosen[:, tf.newaxis], *matrices), [-1, *shape])


def scale_and_crop(
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    factors: tf.Tensor,
    places: tf.Tensor,
    is_mirrored: tf.Tensor,
    fill_value: int = schema.FILL_VALUE,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales each example and cuts a window of the original size out of it.

    An example of `length` pixels becomes `factor * length` long, and the window starts
    at `place * (factor - 1) * length` of it. With a factor below 1 that is a negative
    number: all of the smaller example lies in the window, and what is outside of it
    becomes `fill_value` in the image and `schema.IGNORE_LABEL` in the label. So
    the centre c of a pixel of the window comes from

        (c + place * (factor - 1) * length) / factor

    of the example. Images are interpolated bilinearly, without antialiasing and with
    the outermost half pixel constant; labels are those of the pixel at that position.

    Args:
      images: uint8 or uint16 [rows, height, width, channels].
      labels: uint8 [rows, height, width].
      factors: float32 [rows], greater than 0.
      places: float32 [rows, 2], of the window in height and width; 0: at the top or
        the left, 1: at the bottom or the right.
      is_mirrored: bool [rows]; whether the window is mirrored left to right, which
        costs nothing here.
      fill_value: of images, for what lies outside of an example.

    Returns:
      Images, float32 in the range they had, and labels, uint8, of the same shapes.
    """
    height, width, channels = images.shape[1:]
    # One more row and column for all that is outside: a position there reads them, and
    # filling is no case of its own.
    images = tf.pad(
        images, [[0, 0], [0, 1], [0, 1], [0, 0]], constant_values=fill_value
    )
    labels = tf.pad(
        labels, [[0, 0], [0, 1], [0, 1]], constant_values=schema.IGNORE_LABEL
    )
    tops = _positions(height, factors, places[:, 0])
    lefts = _positions(width, factors, places[:, 1])
    lefts = tf.where(is_mirrored[:, tf.newaxis], tf.reverse(lefts, [1]), lefts)
    # Lines are gathered along the first axis only, where each is one block of memory;
    # the other axis is brought there by transposing matrices. Products with matrices of
    # weights would take almost twice the time, single pixels in place of lines more.
    # GPUs have no kernel that gathers uint8.
    images = tf.reshape(images, [-1, height + 1, (width + 1) * channels])
    images = tf.cast(tf.transpose(images, [0, 2, 1]), tf.float32)
    images = tf.reshape(images, [-1, width + 1, channels * (height + 1)])
    images = _blend_lines(images, lefts)  # [rows, width, channels * (height + 1)]
    images = tf.reshape(images, [-1, width * channels, height + 1])
    images = _blend_lines(tf.transpose(images, [0, 2, 1]), tops)
    labels = _pick_lines(tf.cast(labels, tf.float32), tops)
    labels = _pick_lines(tf.transpose(labels, [0, 2, 1]), lefts)
    return (
        tf.reshape(images, [-1, height, width, channels]),
        tf.cast(tf.transpose(labels, [0, 2, 1]), tf.uint8),
    )


def _positions(length: int, factors: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns where the pixels of the window lie in the example.

    Returns:
      float32 [rows, length], in 0..length; for what lies outside `length + 0.5`, the
      centre of the line that stands for it.
    """
    centers = tf.range(length, dtype=tf.float32) + 0.5
    starts = places * (factors - 1) * length
    positions = (centers + starts[:, tf.newaxis]) / factors[:, tf.newaxis]
    is_inside = (positions >= 0) & (positions < length)
    return tf.where(is_inside, positions, length + 0.5)


def _blend_lines(lines: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Interpolates linearly between the lines to both sides of each position.

    Args:
      lines: float32 [rows, length + 1, n], the last line for what is outside.
      positions: float32 [rows, length]; see `_positions`.

    Returns:
      float32 [rows, length, n].
    """
    length = positions.shape[1]
    # From the centre of the first line. Within half a line of either end there is
    # nothing to blend with.
    offsets = tf.clip_by_value(positions - 0.5, 0, length - 1)
    offsets = tf.where(positions < length, offsets, length)
    # Floats until they are indices: GPUs leave arithmetic with int32 to the host.
    indices = tf.floor(offsets)
    shares = (offsets - indices)[:, :, tf.newaxis]
    before, after = (
        tf.gather(lines, tf.cast(neighbours, tf.int32), batch_dims=1)
        for neighbours in (indices, tf.minimum(indices + 1, length))
    )
    return before + shares * (after - before)


def _pick_lines(lines: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns the line that each position is in; arguments as for `_blend_lines`."""
    return tf.gather(lines, tf.cast(positions, tf.int32), batch_dims=1)
