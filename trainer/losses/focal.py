"""The focal loss, the mean over the valid pixels."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.losses import pixels, term


class Focal(term.Mean):
    """Focal loss of Lin et al. (ICCV 2017, arXiv:1708.02002), with softmax.

    With p the softmax of the logits at the label, a pixel costs

        -(1 - p)^gamma log p.

    The class weights are the paper's alpha: the loss is the weighted mean, the sum of
    each pixel's cost times the weight of its class, over the sum of these weights. The
    paper divides by the number of boxes with an object; here all valid pixels count.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        *,
        focal_gamma: float = 2.0,
    ):
        """Makes a term.

        Args:
          num_classes: channels of the logits.
          class_weights: one factor for each class; None: all are 1.
          focal_gamma: how much less pixels cost that are predicted well, at least 0;
            with 0 it is cross-entropy.
        """
        super().__init__(num_classes, class_weights)
        self._gamma = focal_gamma

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the weighted total and the sum of the weights; see `Term.sums`."""
        weights = pixels.weights_of(labels, self.class_weights, logits.dtype)
        weights = tf.reshape(weights, [-1])  # [pixels]
        costs = _focus(pixels.cross_entropy(logits, labels), self._gamma)
        return tf.stack([tf.reduce_sum(weights * costs), tf.reduce_sum(weights)])


make = Focal


def _focus(costs: tf.Tensor, gamma: float) -> tf.Tensor:
    """Multiplies cross-entropies -log p, [pixels], by (1 - p)^gamma."""

    @tf.custom_gradient
    def focused(costs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        miss = -tf.math.expm1(-costs)  # 1 - p
        factor = miss**gamma

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Left to TensorFlow, miss^(gamma - 1) is infinite where p is 1. The ratio
            # has the limit 1 there.
            ratio = tf.where(miss > 0, costs / tf.where(miss > 0, miss, 1), 1)
            return upstream * factor * (1 + gamma * (1 - miss) * ratio)

        return factor * costs, gradient

    return focused(costs)
