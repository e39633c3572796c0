"""Gradients of a batch in parts, one after the other, in the memory of one part."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class Accumulator:
    """Sums over the parts of a batch, on each replica for itself.

    Part p of n has the rows whose numbers leave p when divided by n: of a replica's
    rows as of those of the global batch, so that a part holds the same examples on
    every number of replicas.
    """

    def __init__(
        self, variables: Sequence[keras.Variable], *, num_parts: int, num_sums: int
    ):
        """Makes sums of zero; call it in the scope of the strategy.

        Args:
          variables: whose gradients are summed.
          num_parts: which the rows of a replica must be a multiple of.
          num_sums: of the loss; see `trainer.losses.weighted_sum`.
        """
        self._num_parts = num_parts
        self._gradients = [
            _make_sum(tf.zeros(variable.shape, variable.dtype))
            for variable in variables
        ]
        self._sums = _make_sum(tf.zeros([num_sums], keras.config.floatx()))

    def reset(self) -> None:
        """Begins anew; call it in replica context, as all below."""
        for total in (*self._gradients, self._sums):
            total.assign(tf.zeros_like(total))

    def rows_of(self, part: tf.Tensor, *tensors: tf.Tensor) -> list[tf.Tensor]:
        """Returns the rows of a part.

        Args:
          part: int32 scalar.
          *tensors: [rows, ...] each.

        Returns:
          Tensors [rows / num_parts, ...].
        """
        taken = []
        for tensor in tensors:
            rows = tensor.shape[0] // self._num_parts
            # [rows, ...] -> [rows of a part, parts, ...]
            by_part = tf.reshape(tensor, [rows, self._num_parts, *tensor.shape[1:]])
            taken.append(by_part[:, part])
        return taken

    def add(self, gradients: Sequence[tf.Tensor], sums: tf.Tensor) -> None:
        """Adds what a part gave."""
        for total, gradient in zip(self._gradients, gradients, strict=True):
            total.assign_add(gradient)
        self.add_sums(sums)

    def add_sums(self, sums: tf.Tensor) -> None:
        """Adds the sums of the loss on a part."""
        self._sums.assign_add(tf.cast(sums, self._sums.dtype))

    @property
    def sums(self) -> tf.Tensor:
        """The sums of the loss on all parts of this replica."""
        return tf.identity(self._sums)

    def clear_sums(self) -> None:
        """Sets those back to zero."""
        self._sums.assign(tf.zeros_like(self._sums))

    @property
    def gradients(self) -> list[tf.Tensor]:
        """The gradients, summed over all parts of this replica."""
        return [tf.identity(total) for total in self._gradients]


def _make_sum(zeros: tf.Tensor) -> tf.Variable:
    return tf.Variable(
        zeros,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
        name="accumulated",
    )
