"""The Tversky loss of the batch."""

from collections.abc import Sequence

import tensorflow as tf

from trainer.losses import overlap as overlap_lib


class Tversky(overlap_lib.Overlap):
    """One less the mean over classes of the soft Tversky index of the batch.

    Salehi et al. (MLMI 2017, arXiv:1706.05721). With p the softmax of the logits and g
    the one-hot labels, and the sums as `Overlap` says,

        T[c] = sum(p g) / (sum(p g) + alpha sum(p (1 - g)) + beta sum((1 - p) g)).

    A greater alpha makes false positives dearer, a greater beta false negatives. With
    alpha = beta = 1/2 it is Dice, with 1 and 1 Jaccard. The paper has two classes and
    takes the index of the rare one; here it is the mean over the classes in the labels.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        *,
        tversky_alpha: float = 0.3,
        tversky_beta: float = 0.7,
    ):
        """Makes a term.

        Args:
          num_classes: channels of the logits.
          class_weights: one factor for each class; None: all are 1.
          tversky_alpha: factor of the false positives, at least 0.
          tversky_beta: factor of the false negatives, above 0.
        """
        super().__init__(num_classes, class_weights)
        self._alpha = tversky_alpha
        self._beta = tversky_beta

    def coefficient(
        self, overlap: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor
    ) -> tf.Tensor:
        """Returns T; see `Overlap.coefficient`."""
        false_positives, false_negatives = predicted - overlap, true - overlap
        return overlap / (
            overlap + self._alpha * false_positives + self._beta * false_negatives
        )


make = Tversky
