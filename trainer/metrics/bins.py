"""Sums of whole numbers by bin, on the device."""

import tensorflow as tf

from trainer import tensorflow_private


def sum_by_bin(
    bins: tf.Tensor,
    num_bins: int | tf.Tensor,
    *,
    where: tf.Tensor,
    values: tf.Tensor | None = None,
) -> tf.Tensor:
    """Sums the values of each bin; without values, counts how often each bin is there.

    In int32, as GPUs sum by bin in no other integers: TensorFlow would take the pixels
    to the host.

    Args:
      bins: int32 of any shape, in 0..num_bins-1 where it counts.
      num_bins: how many bins there are.
      where: bool of the same shape, what counts.
      values: int32 of the same shape; the sum of each bin is less than 2^31.

    Returns:
      int64 [num_bins].
    """
    # What does not count goes to one more bin, which is cut off.
    bins = tf.where(where, bins, num_bins)
    if tensorflow_private.is_deterministic():
        # TensorFlow then refuses DenseBincount on GPUs. Sums of integers are the same
        # in any order; on CPUs, this op takes ten times as long as that.
        values = tf.cast(where, tf.int32) if values is None else values
        sums = tf.math.unsorted_segment_sum(values, bins, num_bins + 1)
    else:
        # `tf.math.bincount` looks for the largest value first.
        sums = tf.raw_ops.DenseBincount(
            input=_flatten(bins),
            size=num_bins + 1,
            weights=tf.zeros([0], tf.int32) if values is None else _flatten(values),
            binary_output=False,
        )
    return tf.cast(sums[:num_bins], tf.int64)


def _flatten(numbers: tf.Tensor) -> tf.Tensor:
    """Flattens int32, as uint32: for GPUs, TensorFlow reshapes int32 on the host."""
    return tf.bitcast(tf.reshape(tf.bitcast(numbers, tf.uint32), [-1]), tf.int32)
