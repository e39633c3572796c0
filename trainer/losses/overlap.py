"""What Dice, Jaccard and Tversky share: ratios of sums over the batch."""

import abc
from collections.abc import Callable

import tensorflow as tf

from trainer.losses import pixels, term


class Overlap(term.Term):
    """One less the mean over classes of a coefficient of the batch.

    With p the softmax of the logits and g the one-hot labels, the sums are sum(p g),
    sum(p) and sum(g) of each class, over the valid pixels of all images of all
    replicas. A coefficient is a function of these:

        loss = 1 - sum(w[c] K[c]) / sum(w[c])    over the classes c in the labels.

    A class without a pixel in the labels of the batch is left out, and so is what is
    predicted of it; so no coefficient needs a number that smooths 0/0. w are the class
    weights, 1 without any.

    The sums add up over replicas; the coefficients of replicas or images would not. For
    the same reason a curve's point over several batches is the loss of all their pixels
    together.
    """

    @abc.abstractmethod
    def coefficient(
        self, overlap: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor
    ) -> tf.Tensor:
        """Returns how well each class is met, from 0 to 1.

        Args:
          overlap: sum(p g), [num_classes].
          predicted: sum(p), [num_classes].
          true: sum(g), [num_classes], above 0.

        Returns:
          [num_classes], of the same dtype.
        """

    @property
    def num_sums(self) -> int:
        """How many sums there are: three for each class."""
        return 3 * self.num_classes

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns sum(p g), sum(p) and sum(g) of each class; see `Term.sums`."""
        return _overlaps(logits, labels)

    def ratio(self, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes the coefficients, and sums them up over the classes in the labels."""
        overlap, predicted, true = tf.split(sums, 3)  # [classes] each
        is_there = true > 0
        weights = tf.ones_like(true)
        if self.class_weights is not None:
            weights = tf.constant(self.class_weights, sums.dtype)
        weights = tf.where(is_there, weights, 0)
        values = self.coefficient(overlap, predicted, tf.where(is_there, true, 1))
        return tf.reduce_sum(weights * (1 - values)), tf.reduce_sum(weights)


@tf.custom_gradient
def _overlaps(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the sums, [3 * classes], with a gradient along the pixels."""
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
