"""The Dice loss of the batch."""

from collections.abc import Callable

import tensorflow as tf

from trainer.losses import pixels, term


class Dice(term.Term):
    """One less the mean over classes of the soft Dice coefficient of the batch.

    With p the softmax of the logits and g the one-hot labels, summed over the valid
    pixels of all images of all replicas,

        D[c] = 2 sum(p[c] g[c]) / (sum(p[c]) + sum(g[c])),
        loss = 1 - sum(w[c] D[c]) / sum(w[c])    over the classes in the labels.

    Milletari et al. (3DV 2016, arXiv:1606.04797) square p and g in the denominator;
    here, as in Sudre et al. (DLMIA 2017, arXiv:1707.03237), they are not squared. Nor
    is anything added to smooth the ratio: a class without a pixel in the labels of the
    batch, for which it would be needed, is left out, and so is what is predicted of
    it. w are the class weights, 1 without any; where they are 0 for all classes in the
    labels, the loss is 0.

    The sums are, for each class, sum(p g), sum(p) and sum(g). They add up over
    replicas; the coefficients of replicas or images would not. For the same reason a
    curve's point over several batches is the loss of all their pixels together.
    """

    @property
    def num_sums(self) -> int:
        """How many sums there are: three for each class."""
        return 3 * self.num_classes

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns sum(p g), sum(p) and sum(g) of each class; see `Term.sums`."""
        return _overlaps(logits, labels)

    def number(self, sums: tf.Tensor) -> tf.Tensor:
        """Takes the ratios, and their mean over the classes in the labels."""
        overlap, predicted, true = tf.split(sums, 3)  # [classes] each
        is_there = true > 0
        size = tf.where(is_there, predicted + true, 1)
        weights = tf.ones_like(true)
        if self.class_weights is not None:
            weights = tf.constant(self.class_weights, sums.dtype)
        weights = tf.where(is_there, weights, 0)
        return tf.math.divide_no_nan(
            tf.reduce_sum(weights * (1 - 2 * overlap / size)), tf.reduce_sum(weights)
        )


make = Dice


@tf.custom_gradient
def _overlaps(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the sums of `Dice`, [3 * classes], with a gradient along the pixels."""
    valid = tf.cast(pixels.is_valid(labels), logits.dtype)
    valid = tf.reshape(valid, [1, -1])  # [1, pixels]
    is_class = pixels.one_hot(labels, logits.shape[-1], logits.dtype)
    powers = pixels.classes_first(logits)  # [classes, pixels]
    powers = tf.exp(powers - tf.reduce_max(powers, axis=0, keepdims=True))
    probabilities = powers / tf.reduce_sum(powers, axis=0, keepdims=True)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        by_overlap, by_predicted, _ = tf.split(upstream[:, tf.newaxis], 3)
        # To the probabilities, and through the softmax to the logits.
        share = by_overlap * is_class + by_predicted * valid  # [classes, pixels]
        mean = tf.reduce_sum(probabilities * share, axis=0, keepdims=True)
        to_powers = probabilities * (share - mean)
        return tf.reshape(tf.transpose(to_powers), tf.shape(logits)), None

    sums = [probabilities * is_class, probabilities * valid, is_class]
    return tf.concat([tf.reduce_sum(x, axis=1) for x in sums], axis=0), gradient
