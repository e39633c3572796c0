"""Softmax cross-entropy, the mean over the valid pixels or the hardest of them."""

from collections.abc import Sequence

import tensorflow as tf

from trainer.losses import pixels, term


class CrossEntropy(term.Mean):
    """Softmax cross-entropy: the mean of -log softmax(logits)[label].

    With class weights it is the weighted mean: the sum of each pixel's cross-entropy
    times the weight of its class, over the sum of these weights.

    With a share s of label smoothing, and C classes, the label of a pixel is 1 - s of
    its class and s / C of each class, as in Keras (Szegedy et al., CVPR 2016,
    arXiv:1512.00567). All that such a pixel costs is weighed by the class of its label.

    With a share k of the hardest pixels (online hard example mining, as Shrivastava et
    al., CVPR 2016, arXiv:1604.03540, have it for boxes), it is the mean over those k n
    of the n valid pixels of each image that cost most, at least one of them; k n is
    rounded. What a pixel costs here is weighed by its class. Pixels that cost the same
    as the last of these count in part, so that the order of equal ones plays no role.
    The pixels are chosen in each image, so the choice does not depend on the other
    images of a replica. With k below 1 the term takes about three times as long on the
    CPU.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        *,
        label_smoothing: float = 0.0,
        loss_top_k: float = 1.0,
    ):
        """Makes a term.

        Args:
          num_classes: channels of the logits.
          class_weights: one factor for each class; None: all are 1.
          label_smoothing: the share s, from 0 to 1.
          loss_top_k: the share k, above 0; 1: all valid pixels.
        """
        super().__init__(num_classes, class_weights)
        self._smoothing = label_smoothing
        self._top_k = loss_top_k

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the weighted total and the sum of the weights; see `Term.sums`."""
        weights = pixels.weights_of(labels, self.class_weights, logits.dtype)
        costs = pixels.cross_entropy(logits, labels, self._smoothing)
        costs = tf.reshape(costs, tf.shape(weights))  # [rows, height, width]
        if self._top_k < 1:
            is_valid = pixels.is_valid(labels)
            weighed = tf.stop_gradient(weights * costs)
            weights *= _share_of_hardest(weighed, is_valid, self._top_k)
        return tf.stack([tf.reduce_sum(weights * costs), tf.reduce_sum(weights)])


make = CrossEntropy


def _share_of_hardest(costs: tf.Tensor, is_valid: tf.Tensor, share: float) -> tf.Tensor:
    """Returns 1 for the pixels of an image that cost most, 0 for the others.

    Args:
      costs: [rows, height, width], at least 0.
      is_valid: bool [rows, height, width].
      share: of the valid pixels of each image.

    Returns:
      [rows, height, width]; where pixels cost the same as the last that is chosen, the
      same share of each of them.
    """
    shape = tf.shape(costs)
    costs = tf.where(is_valid, costs, -1)
    costs = tf.reshape(costs, [shape[0], shape[1] * shape[2]])  # [rows, pixels]
    num_valid = tf.math.count_nonzero(is_valid, axis=[1, 2], dtype=tf.float64)
    chosen = tf.maximum(tf.round(share * num_valid), 1)  # [rows]
    last = _greatest(costs, tf.cast(chosen, tf.int64))[:, tf.newaxis]
    is_more, is_last = costs > last, tf.equal(costs, last)
    more, equal = (
        tf.math.count_nonzero(flags, axis=1, dtype=tf.float64)
        for flags in (is_more, is_last)
    )
    part = tf.math.divide_no_nan(chosen - more, equal)
    part = tf.cast(part, costs.dtype)[:, tf.newaxis]
    shares = tf.cast(is_more, costs.dtype) + part * tf.cast(is_last, costs.dtype)
    return tf.reshape(shares, shape)


def _greatest(values: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns the first, second, third, ... greatest number of each row.

    Its bits are found from the highest on: one is set if enough numbers of the row are
    as great as that. On the CPU this takes a third of the time of sorting the rows.

    Args:
      values: float32 or float64 [rows, pixels]; those below 0 are left out.
      places: int64 [rows], from 1 on, which of them in each row.

    Returns:
      Of the values' dtype, [rows]; 0 where a row has fewer.
    """
    num_bits = 8 * values.dtype.size
    whole = tf.int64 if num_bits == 64 else tf.int32

    def to_number(bits: tf.Tensor) -> tf.Tensor:
        return tf.bitcast(tf.cast(bits, whole), values.dtype)

    def set_bit(index: tf.Tensor, bits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        higher = bits + tf.bitwise.left_shift(
            tf.ones([], tf.int64), tf.cast(num_bits - 2 - index, tf.int64)
        )
        is_there = values >= to_number(higher)[:, tf.newaxis]
        is_set = tf.math.count_nonzero(is_there, axis=1) >= places
        return index + 1, tf.where(is_set, higher, bits)

    # The highest bit is the sign. A number whose bits are beyond infinity's is none,
    # and no other is as great as that.
    _, bits = tf.while_loop(
        lambda index, _: index < num_bits - 1, set_bit, (0, tf.zeros_like(places))
    )
    return to_number(bits)
