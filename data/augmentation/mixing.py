"""Parts of examples that others take the place of, in batches."""

import tensorflow as tf

Examples = tuple[tf.Tensor, tf.Tensor]
"""Images [rows, height, width, channels] and labels uint8 [rows, height, width]."""


def boxes(centers: tf.Tensor, sides: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns which pixels lie in a box.

    Args:
      centers: float32 [rows, 2], in y and x, from 0 to 1 across the example.
      sides: float32 [rows], of the box, as a share of those of the example.
      size: height and width.

    Returns:
      bool [rows, height, width]; a pixel is in the box if its centre is.
    """
    in_rows, in_columns = (
        tf.abs((tf.range(length, dtype=tf.float32) + 0.5) / length - center) < reach
        for length, center, reach in zip(
            size,
            (centers[:, :1], centers[:, 1:]),
            (sides[:, tf.newaxis] / 2,) * 2,
            strict=True,
        )
    )
    return in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis]


def partners(rows: tf.Tensor) -> tf.Tensor:
    """Swaps rows 2i and 2i + 1; a last row without a partner stays.

    Args:
      rows: [rows, ...], with a shape that is known.
    """
    num_rows, *row_shape = rows.shape
    num_paired = num_rows - num_rows % 2
    pairs = tf.reshape(rows[:num_paired], [-1, 2, *row_shape])
    swapped = tf.reshape(tf.reverse(pairs, [1]), [-1, *row_shape])
    return tf.concat([swapped, rows[num_paired:]], 0) if num_rows % 2 else swapped


def paste(is_pasted: tf.Tensor, source: Examples, target: Examples) -> Examples:
    """Returns examples of `target` with those of `source` where bool [rows, h, w]."""
    height, width, channels = target[0].shape[1:]
    # A condition for each number: one for all channels of a pixel takes twice the time.
    matrices = [
        tf.reshape(t, [-1, height, width * channels]) for t in (source[0], target[0])
    ]
    images = tf.where(tf.repeat(is_pasted, channels, axis=2), *matrices)
    return (
        tf.reshape(images, [-1, height, width, channels]),
        tf.where(is_pasted, source[1], target[1]),
    )
