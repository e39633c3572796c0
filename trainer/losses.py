"""Losses, as sums over the valid pixels and their count.

Nobody divides here: the mean over a global batch is the sum of all replicas' totals
over the sum of their counts, which no mean of means gives when ignored pixels are
spread unevenly.
"""

import tensorflow as tf

from data import schema


def valid_pixels(labels: tf.Tensor) -> tf.Tensor:
    """Tells which pixels count.

    Args:
      labels: uint8 [batch, height, width].

    Returns:
      bool [batch, height, width], False where the label is `schema.IGNORE_LABEL`.
    """
    return tf.not_equal(labels, tf.constant(schema.IGNORE_LABEL, labels.dtype))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Softmax cross-entropy: -log softmax(logits)[label], summed over valid pixels.

    Args:
      logits: [batch, height, width, classes], float32 or wider.
      labels: uint8 [batch, height, width], classes or `schema.IGNORE_LABEL`.

    Returns:
      The total over valid pixels and their number, scalars of the logits' dtype.
    """
    is_valid = valid_pixels(labels)
    classes = tf.where(is_valid, tf.cast(labels, tf.int32), 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    total = tf.reduce_sum(tf.where(is_valid, losses, tf.zeros_like(losses)))
    return total, tf.reduce_sum(tf.cast(is_valid, logits.dtype))
