"""Scores of classes that several trained classes make up together."""

import numpy as np
import tensorflow as tf

from data import schema
from trainer.metrics import groups as groups_lib


class Merging:
    """Brings labels and logits of trained classes to those that are scored.

    The probability of a scored class is the sum of those of its members, so that a
    pixel can be foreground though background is likelier than each of its parts. Where
    the likeliest trained class is mapped after the choice, other pixels are foreground.
    """

    def __init__(self, groups: groups_lib.Groups):
        """Makes what merges.

        Args:
          groups: the scored classes.
        """
        self._members = groups.members
        # Of every label that a uint8 can be; those that are no class stay ignored.
        # As floats, since GPUs have no kernel that gathers uint8.
        table = np.full([256], schema.IGNORE_LABEL, np.float32)
        for index, members in enumerate(groups.members):
            table[list(members)] = index
        self._table = table

    def __call__(
        self, labels: tf.Tensor, logits: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Merges the classes of a batch.

        Args:
          labels: uint8 [batch, height, width], trained classes or ignored.
          logits: float32 [batch, height, width, trained classes].

        Returns:
          The labels, uint8 of the same shape, and logits, float32 [batch, height,
          width, scored classes], whose softmax sums up that of the members.
        """
        planes = [
            # exp(logit) is the probability but for a factor that all classes share.
            tf.reduce_logsumexp(tf.gather(logits, members, axis=-1), axis=-1)
            for members in self._members
        ]
        merged = tf.gather(self._table, tf.cast(labels, tf.int32))
        return tf.cast(merged, tf.uint8), tf.stack(planes, -1)


def keep(labels: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores the classes as they were trained; arguments and result as of `Merging`."""
    return labels, logits
