"""Cross-entropy that weighs the pixels near a boundary of classes more."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from data import schema
from trainer.losses import pixels, term


class Boundary(term.Mean):
    """Softmax cross-entropy, the pixels near a boundary weighed more.

    A valid pixel is near a boundary if a valid pixel of another class lies within
    `boundary_width` of it, by the larger of the distances along the rows and the
    columns. An ignored pixel is of no class, and neither is what lies outside of the
    image, so that a class has no boundary against them. The weight of a pixel is the
    weight of its class, times `boundary_weight` where it is near. The loss is the
    weighted mean: the sum of each pixel's cross-entropy times its weight, over the sum
    of the weights.

    Ronneberger et al. (MICCAI 2015, arXiv:1505.04597) have a weight that falls off with
    the distances to the two nearest cells; this one is the same all over a band, and
    the step finds it from labels that were augmented on the device.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        *,
        boundary_weight: float = 5.0,
        boundary_width: int = 3,
    ):
        """Makes a term.

        Args:
          num_classes: channels of the logits.
          class_weights: one factor for each class; None: all are 1.
          boundary_weight: factor on the pixels near a boundary.
          boundary_width: how near, in pixels.
        """
        super().__init__(num_classes, class_weights)
        self._weight = boundary_weight
        self._width = boundary_width

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the weighted total and the sum of the weights; see `Term.sums`."""
        weights = pixels.weights_of(labels, self.class_weights, logits.dtype)
        is_near = is_near_boundary(labels, self._width)
        weights *= tf.where(is_near, tf.constant(self._weight, logits.dtype), 1)
        weights = tf.reshape(weights, [-1])  # [pixels]
        costs = pixels.cross_entropy(logits, labels)
        return tf.stack([tf.reduce_sum(weights * costs), tf.reduce_sum(weights)])


make = Boundary


def is_near_boundary(labels: tf.Tensor, distance: int) -> tf.Tensor:
    """Tells which valid pixels have one of another class near them.

    Args:
      labels: uint8 [batch, height, width].
      distance: of the farthest pixel that is near, along rows and columns; at least 1.

    Returns:
      bool [batch, height, width]; of ignored pixels it tells nothing.
    """
    # In a square of pixels the greatest class is the least if it is the only one. The
    # ignore label, 255, is never the least, and 0 not the greatest.
    least = labels
    greatest = tf.where(pixels.is_valid(labels), labels, 0)
    for axis in (1, 2):
        least = _slide(tf.minimum, least, distance, schema.IGNORE_LABEL, axis=axis)
        greatest = _slide(tf.maximum, greatest, distance, 0, axis=axis)
    return least < greatest


def _slide(
    combine: Callable, values: tf.Tensor, distance: int, outside: int, *, axis: int
) -> tf.Tensor:
    """Combines the values within a distance of each place along an axis.

    Args:
      combine: `tf.minimum` or `tf.maximum`.
      values: [batch, height, width].
      distance: how many places to either side.
      outside: the value of places beyond the ends.
      axis: 1 or 2.

    Returns:
      Of the same shape and dtype.
    """
    margins = [[distance, distance] if axis == a else [0, 0] for a in range(3)]
    values = tf.pad(values, margins, constant_values=outside)
    # Each place stands for the `size` places from it on, twice as many each time.
    size, target = 1, 2 * distance + 1
    while size < target:
        step = min(size, target - size)
        end = tf.shape(values)[axis] - step
        values = combine(_cut(values, 0, end, axis), _cut(values, step, None, axis))
        size += step
    return values


def _cut(values: tf.Tensor, start: int, stop: tf.Tensor | None, axis: int) -> tf.Tensor:
    """Returns a part of [batch, height, width] along an axis, 1 or 2."""
    part = slice(start, stop)
    return values[:, part] if axis == 1 else values[:, :, part]
