"""Softmax cross-entropy, the mean over the valid pixels."""

from collections.abc import Callable

import tensorflow as tf

from trainer.losses import pixels, term


class CrossEntropy(term.Mean):
    """Softmax cross-entropy: the mean of -log softmax(logits)[label].

    With class weights it is the weighted mean: the sum of each pixel's cross-entropy
    times the weight of its class, over the sum of these weights.
    """

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the weighted total and the sum of the weights; see `Term.sums`."""
        weights = pixels.weights_of(labels, self.class_weights, logits.dtype)
        total = _total_cross_entropy(logits, labels, weights)
        return tf.stack([total, tf.reduce_sum(weights)])


make = CrossEntropy


def _total_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Sums the weighted cross-entropy of all pixels, with a gradient of its own."""

    @tf.custom_gradient
    def total_of(logits: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        weight = tf.reshape(weights, [1, -1])  # [1, pixels]
        is_class = pixels.one_hot(labels, logits.shape[-1], logits.dtype)
        shifted = pixels.classes_first(logits)  # [classes, pixels]
        shifted -= tf.reduce_max(shifted, axis=0, keepdims=True)
        powers = tf.exp(shifted)
        sums = tf.reduce_sum(powers, axis=0, keepdims=True)
        own = tf.reduce_sum(is_class * shifted, axis=0, keepdims=True)
        total = tf.reduce_sum(weight * (tf.math.log(sums) - own))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Softmax less one-hot.
            share = weight * upstream
            to_shifted = powers * (share / sums) - is_class * share
            return tf.reshape(tf.transpose(to_shifted), tf.shape(logits))

        return total, gradient

    return total_of(logits)
