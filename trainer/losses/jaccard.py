"""The Jaccard loss of the batch."""

import tensorflow as tf

from trainer.losses import overlap as overlap_lib


class Jaccard(overlap_lib.Overlap):
    """One less the mean over classes of the soft Jaccard index of the batch.

    With p the softmax of the logits and g the one-hot labels, and the sums as `Overlap`
    says,

        J[c] = sum(p[c] g[c]) / (sum(p[c]) + sum(g[c]) - sum(p[c] g[c])),

    as in Rahman and Wang (ISVC 2016). Where p is 0 or 1 it is the IoU of the class over
    the batch.
    """

    def coefficient(
        self, overlap: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor
    ) -> tf.Tensor:
        """Returns J; see `Overlap.coefficient`."""
        return overlap / (predicted + true - overlap)


make = Jaccard
