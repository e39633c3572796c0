"""Mirrored, scaled, turned and shifted copies of images and labels, in batches.

What lies where is said by maps; see `data.augmentation.maps`. Pixel i of a row covers
[i, i + 1): its centre lies at i + 1/2, for images and labels alike. Images are
interpolated bilinearly, without antialiasing and with the outermost half pixel
constant; labels are those of the pixel at that position.

All operations used here have a kernel on CPUs, on GPUs and in XLA.
`tf.image.crop_and_resize` takes 60 % of the time of `resample_lines` on CPUs, but has
none in XLA and none for uint8 on GPUs, and it takes the outermost half pixel of an
image for outside. `ImageProjectiveTransformV3` takes 80 % of the time of `resample`,
and has none in XLA.
"""

from collections.abc import Collection

import tensorflow as tf

from data import schema


def mirror(
    images: tf.Tensor, labels: tf.Tensor, maps: tf.Tensor, *, axes: Collection[str]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirrors some examples top to bottom, left to right, or both.

    Args:
      images: [rows, height, width, channels].
      labels: [rows, height, width].
      maps: float32 [rows, 2, 3], which mirror along these axes or change nothing.
      axes: `y` and `x`, or one of them.

    Returns:
      Images and labels of the same shapes and dtypes.
    """
    for number, axis in enumerate("yx"):
        if axis in axes:
            is_mirrored = maps[:, number, number] < 0
            images, labels = (
                _choose(is_mirrored, tf.reverse(pixels, [number + 1]), pixels)
                for pixels in (images, labels)
            )
    return images, labels


def swap_axes(
    images: tf.Tensor, labels: tf.Tensor, maps: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Swaps rows and columns of the examples whose maps do so.

    Args:
      images: [rows, side, side, channels].
      labels: [rows, side, side].
      maps: float32 [rows, 2, 3], each with a matrix that has two entries of 0, on its
        diagonal or beside it.

    Returns:
      Images and labels of the same shapes and dtypes, and the maps that are left to be
      done: in these, rows stay rows and columns stay columns.
    """
    is_swapped = tf.abs(maps[:, 0, 1]) > tf.abs(maps[:, 0, 0])
    return (
        _choose(is_swapped, tf.transpose(images, [0, 2, 1, 3]), images),
        _choose(is_swapped, tf.transpose(labels, [0, 2, 1]), labels),
        _choose(is_swapped, tf.reverse(maps, [1]), maps),
    )


def _choose(is_chosen: tf.Tensor, chosen: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Returns the rows of `chosen` where `is_chosen`, bool [rows], else of `others`."""
    # As matrices, `tf.where` takes less than half the time. `Select`, which would take
    # one condition for each row as it is, has no kernel for uint8 on GPUs.
    shape = others.shape[1:]
    matrices = [tf.reshape(t, [-1, shape.num_elements()]) for t in (chosen, others)]
    return tf.reshape(tf.where(is_chosen[:, tf.newaxis], *matrices), [-1, *shape])


def resample_lines(
    images: tf.Tensor,
    labels: tf.Tensor,
    maps: tf.Tensor,
    *,
    size: tuple[int, int] | None = None,
    fill_value: int = schema.FILL_VALUE,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves pixels by maps in which rows stay rows and columns stay columns.

    Args:
      images: uint8 or float32 [rows, height, width, channels].
      labels: uint8 [rows, height, width].
      maps: float32 [rows, 2, 3]; the entries beside the diagonal of a matrix count
        as 0.
      size: height and width of the new examples; None: those of the old ones.
      fill_value: of images, for what lies outside of an example. In labels it becomes
        `schema.IGNORE_LABEL`.

    Returns:
      Images, float32 in the range they had, and labels, uint8, of that size.
    """
    height, width, channels = images.shape[1:]
    new_height, new_width = size or (height, width)
    # One more row and column for all that is outside: a position there reads them, and
    # filling is no case of its own.
    images = tf.pad(
        images, [[0, 0], [0, 1], [0, 1], [0, 0]], constant_values=fill_value
    )
    labels = tf.pad(
        labels, [[0, 0], [0, 1], [0, 1]], constant_values=schema.IGNORE_LABEL
    )
    tops = _line_positions(height, new_height, maps[:, 0, 0], maps[:, 0, 2])
    lefts = _line_positions(width, new_width, maps[:, 1, 1], maps[:, 1, 2])
    # Lines are gathered along the first axis only, where each is one block of memory;
    # the other axis is brought there by transposing matrices, once the lines that a
    # window leaves out are gone. Products with matrices of weights would take almost
    # twice the time, single pixels in place of lines more.
    # GPUs have no kernel that gathers uint8.
    images = tf.reshape(images, [-1, height + 1, (width + 1) * channels])
    images = _blend_lines(tf.cast(images, tf.float32), tops)
    images = tf.transpose(images, [0, 2, 1])
    images = tf.reshape(images, [-1, width + 1, channels * new_height])
    images = _blend_lines(images, lefts)  # [rows, new_width, channels * new_height]
    images = tf.reshape(images, [-1, new_width * channels, new_height])
    images = tf.transpose(images, [0, 2, 1])
    labels = _pick_lines(tf.cast(labels, tf.float32), tops)
    labels = _pick_lines(tf.transpose(labels, [0, 2, 1]), lefts)
    return (
        tf.reshape(images, [-1, new_height, new_width, channels]),
        tf.cast(tf.transpose(labels, [0, 2, 1]), tf.uint8),
    )


def _centers(length: int) -> tf.Tensor:
    """Returns the centres of pixels, float32 [length], from the middle of all."""
    return tf.range(length, dtype=tf.float32) + (0.5 - length / 2)


def _line_positions(
    length: int, new_length: int, slopes: tf.Tensor, shifts: tf.Tensor
) -> tf.Tensor:
    """Returns where the new lines lie in the example.

    Returns:
      float32 [rows, new_length], in 0..length; for what lies outside `length + 0.5`,
      the centre of the line that stands for it.
    """
    starts = shifts + length / 2
    positions = _centers(new_length) * slopes[:, tf.newaxis] + starts[:, tf.newaxis]
    is_inside = (positions >= 0) & (positions < length)
    return tf.where(is_inside, positions, length + 0.5)


def _blend_lines(lines: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Interpolates linearly between the lines to both sides of each position.

    Args:
      lines: float32 [rows, length + 1, n], the last line for what is outside.
      positions: float32 [rows, new_length]; see `_line_positions`.

    Returns:
      float32 [rows, new_length, n].
    """
    length = lines.shape[1] - 1
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


def resample(
    images: tf.Tensor,
    labels: tf.Tensor,
    maps: tf.Tensor,
    *,
    size: tuple[int, int] | None = None,
    fill_value: int = schema.FILL_VALUE,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Moves pixels by any affine maps, in more than twice the time of `resample_lines`.

    Args:
      images: uint8 or float32 [rows, height, width, channels].
      labels: uint8 [rows, height, width].
      maps: float32 [rows, 2, 3].
      size: height and width of the new examples; None: those of the old ones.
      fill_value: of images, for what lies outside of an example. In labels it becomes
        `schema.IGNORE_LABEL`.

    Returns:
      Images, float32 in the range they had, and labels, uint8, of that size.
    """
    height, width, channels = images.shape[1:]
    num_rows = tf.shape(images)[0]
    new_size = size or (height, width)
    y, x = (
        _positions(maps[:, axis], length, new_size)
        for axis, length in enumerate((height, width))
    )
    is_inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    firsts = tf.range(tf.cast(num_rows, tf.int64))[:, tf.newaxis, tf.newaxis]
    firsts *= height * width

    def find_starts(row: tf.Tensor) -> tf.Tensor:
        # Floats hold rows and columns, but not all pixels of images of 2**24 or more.
        return firsts + tf.cast(row, tf.int64) * width

    def pick(pixels: tf.Tensor, start: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather(pixels, start + tf.cast(column, tf.int64))

    # From the centre of the first pixel, as in `_blend_lines`.
    rows = tf.clip_by_value(y - 0.5, 0, height - 1)
    columns = tf.clip_by_value(x - 0.5, 0, width - 1)
    top, left = tf.floor(rows), tf.floor(columns)
    bottom, right = tf.minimum(top + 1, height - 1), tf.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., tf.newaxis], (columns - left)[..., tf.newaxis]
    pixels = tf.reshape(tf.cast(images, tf.float32), [-1, channels])
    upper, lower = (
        first + across * (pick(pixels, start, right) - first)
        for start in map(find_starts, (top, bottom))
        for first in [pick(pixels, start, left)]
    )
    new_images = upper + down * (lower - upper)
    new_images = tf.where(is_inside[..., tf.newaxis], new_images, float(fill_value))
    row = tf.clip_by_value(tf.floor(y), 0, height - 1)
    column = tf.clip_by_value(tf.floor(x), 0, width - 1)
    # GPUs have no kernel that gathers uint8.
    label_pixels = tf.reshape(tf.cast(labels, tf.float32), [-1])
    new_labels = pick(label_pixels, find_starts(row), column)
    new_labels = tf.where(is_inside, new_labels, float(schema.IGNORE_LABEL))
    return new_images, tf.cast(new_labels, tf.uint8)


def _positions(
    coefficients: tf.Tensor, length: int, new_size: tuple[int, int]
) -> tf.Tensor:
    """Returns where the new pixels lie in the example, on one of its axes.

    Args:
      coefficients: float32 [rows, 3], of y, of x and the shift.
      length: of the example along that axis.
      new_size: height and width of the new example.

    Returns:
      float32 [rows, new height, new width].
    """
    of_y, of_x, shifts = tf.unstack(coefficients[:, :, tf.newaxis], axis=1)
    by_row = of_y * _centers(new_size[0]) + (shifts + length / 2)
    by_column = of_x * _centers(new_size[1])
    return by_row[:, :, tf.newaxis] + by_column[:, tf.newaxis]
