"""What a loss term is: sums that add up, and the number that is made of them."""

import abc
from collections.abc import Sequence

import tensorflow as tf


class Term(abc.ABC):
    """A loss as a function of sums over pixels or images.

    Nobody divides before the sums of all replicas are there: a mean of the replicas'
    means, or of their Dice coefficients, is another number than that of the whole
    batch.

    Attributes:
      num_classes: channels of the logits.
      class_weights: one factor for each class; None: all are 1.
    """

    def __init__(self, num_classes: int, class_weights: Sequence[float] | None = None):
        """Makes a term; see the attributes."""
        self.num_classes = num_classes
        self.class_weights = class_weights

    @property
    @abc.abstractmethod
    def num_sums(self) -> int:
        """How many sums there are."""

    @abc.abstractmethod
    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the sums of a part of the batch, without the ignored pixels.

        Args:
          logits: [rows, height, width, classes], float32 or wider.
          labels: uint8 [rows, height, width], classes or `schema.IGNORE_LABEL`.

        Returns:
          [num_sums], of the logits' dtype. Those of two parts add up to those of both.
        """

    @abc.abstractmethod
    def ratio(self, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes a total, and what it is divided by, of the sums of all parts.

        Args:
          sums: float32 or float64 [num_sums].

        Returns:
          Two scalars of the same dtype; both are 0 if no pixel is valid, or if the
          class weights of all that are valid are 0.
        """

    def number(self, sums: tf.Tensor) -> tf.Tensor:
        """Makes the loss of the sums of all parts: their `ratio`.

        Args:
          sums: float32 or float64 [num_sums].

        Returns:
          A scalar of the same dtype; 0 for 0/0, so that such a batch has no gradient.
        """
        return tf.math.divide_no_nan(*self.ratio(sums))


class Mean(Term):
    """A term that is a total over a count, of pixels or of images.

    Its sums are the total and the count. The count, or sum of weights, must have no
    gradient to the logits, though these may choose what is counted.
    """

    num_sums = 2
    """The total, and the count."""

    def ratio(self, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the total and the count."""
        total, count = tf.unstack(sums)
        return total, count

    def num_countable(self, labels: tf.Tensor) -> int:
        """Returns how many there are of what is counted, valid or not.

        The total has gradients to the logits, and their size goes with this number
        over that of the pixels.

        Args:
          labels: uint8 [rows, height, width], of a known shape.
        """
        return labels.shape.num_elements()
