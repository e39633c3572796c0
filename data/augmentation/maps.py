"""Affine maps from the pixels of a changed example back to those of the old one.

A point is (y, x) in pixels, as seen from the centre of the example: y downwards, x to
the right. A map is float32 [rows, 2, 3], for each example a matrix A and a shift t: the
new example has at the point p what the old one has at A p + t.
"""

import tensorflow as tf


def make(
    matrix: list[list[tf.Tensor]], shift: tuple[tf.Tensor, tf.Tensor] | None = None
) -> tf.Tensor:
    """Makes maps of the entries of their matrices, float32 [rows] each.

    Args:
      matrix: two rows of two entries.
      shift: in y and x; None: there is none.

    Returns:
      float32 [rows, 2, 3].
    """
    if shift is None:
        shift = (tf.zeros_like(matrix[0][0]),) * 2
    rows = [tf.stack([*row, t], 1) for row, t in zip(matrix, shift, strict=True)]
    return tf.stack(rows, 1)


def identity(num_rows: int | tf.Tensor) -> tf.Tensor:
    """Returns maps, float32 [num_rows, 2, 3], that change nothing."""
    return tf.eye(2, 3, batch_shape=[num_rows])


def compose(outer: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
    """Returns the maps that take a point through `inner` and then through `outer`.

    The change of `outer` is then made first, and that of `inner` after it.

    Args:
      outer: float32 [rows, 2, 3].
      inner: float32 [rows, 2, 3].
    """
    # No product of matrices: GPUs round its factors to 11 bits.
    products = outer[:, :, :2, tf.newaxis] * inner[:, tf.newaxis]
    shift = tf.pad(outer[:, :, 2:], [[0, 0], [0, 0], [2, 0]])
    return tf.reduce_sum(products, 2) + shift


def transform(maps: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Returns where maps take a point each, float32 [rows, 2] like `points`."""
    return tf.reduce_sum(maps[:, :, :2] * points[:, tf.newaxis], 2) + maps[:, :, 2]


def invert(maps: tf.Tensor) -> tf.Tensor:
    """Returns the maps that take each point back, float32 [rows, 2, 3] like `maps`."""
    (a, b, _), (c, d, _) = (tf.unstack(row, axis=1) for row in tf.unstack(maps, axis=1))
    inverse = tf.stack([tf.stack([d, -b], 1), tf.stack([-c, a], 1)], 1)
    inverse /= (a * d - b * c)[:, tf.newaxis, tf.newaxis]
    shift = tf.reduce_sum(inverse * maps[:, tf.newaxis, :, 2], 2, keepdims=True)
    return tf.concat([inverse, -shift], 2)
