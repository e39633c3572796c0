"""The Dice loss of the batch."""

import tensorflow as tf

from trainer.losses import overlap as overlap_lib


class Dice(overlap_lib.Overlap):
    """One less the mean over classes of the soft Dice coefficient of the batch.

    With p the softmax of the logits and g the one-hot labels, and the sums as `Overlap`
    says,

        D[c] = 2 sum(p[c] g[c]) / (sum(p[c]) + sum(g[c])).

    Milletari et al. (3DV 2016, arXiv:1606.04797) square p and g in the denominator;
    here, as in Sudre et al. (DLMIA 2017, arXiv:1707.03237), they are not squared.
    """

    def coefficient(
        self, overlap: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor
    ) -> tf.Tensor:
        """Returns D; see `Overlap.coefficient`."""
        return 2 * overlap / (predicted + true)


make = Dice
