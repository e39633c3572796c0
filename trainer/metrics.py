"""Segmentation scores from one confusion matrix.

The device counts pixels; ratios are taken once, on the host, of the summed counts.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer import losses

_FEW_CLASSES = 6
"""Up to so many, comparing class by class is faster than `tf.argmax` on a CPU, which
works along an axis too short for vector units: with 3 classes, 5 times."""


class ConfusionMatrix(tf.Module):
    """Counts of pixels by true class (row) and predicted class (column).

    Make it in the scope of the strategy and update it in replica context: each
    replica counts for itself, and reading adds the counts up. It must not be part of
    a checkpoint: reading it is a collective, which only the chief would enter.
    """

    def __init__(self, num_classes: int):
        """Makes a matrix of zeros, int64 [num_classes, num_classes]."""
        super().__init__(name="confusion_matrix")
        self._num_classes = num_classes
        # A float32 would stop counting at 2^24 pixels, 1,024 images of 128x128.
        self._counts = tf.Variable(
            tf.zeros([num_classes, num_classes], tf.int64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="counts",
        )

    def update(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Counts a batch; ignored pixels are left out.

        Args:
          labels: uint8 [batch, height, width].
          logits: [batch, height, width, num_classes].
        """
        self._counts.assign_add(count_confusions(labels, logits, self._num_classes))

    def result(self) -> np.ndarray:
        """Returns the counts of all replicas, int64 [num_classes, num_classes]."""
        return self._counts.read_value().numpy()

    def reset(self) -> None:
        """Sets all counts to zero."""
        self._counts.assign(tf.zeros_like(self._counts.read_value()))


def count_confusions(
    labels: tf.Tensor, logits: tf.Tensor, num_classes: int
) -> tf.Tensor:
    """Counts the valid pixels of a batch by true and predicted class.

    Args:
      labels: uint8 [batch, height, width].
      logits: [batch, height, width, num_classes].
      num_classes: how many classes there are.

    Returns:
      int64 [num_classes, num_classes]: rows are true, columns predicted classes.
    """
    predictions = most_likely_class(logits)
    cells = tf.cast(labels, tf.int32) * num_classes + predictions
    num_cells = num_classes * num_classes
    # Ignored pixels go to one more bin, which is cut off.
    cells = tf.where(losses.valid_pixels(labels), cells, num_cells)
    # `tf.math.bincount` looks for the largest value first.
    counts = tf.raw_ops.DenseBincount(
        input=tf.reshape(cells, [-1]),
        size=num_cells + 1,
        weights=tf.zeros([0], tf.int64),
        binary_output=False,
    )
    return tf.reshape(counts[:num_cells], [num_classes, num_classes])


def most_likely_class(logits: tf.Tensor) -> tf.Tensor:
    """Returns the class of the largest logit, the first of equal ones.

    Args:
      logits: [batch, height, width, classes].

    Returns:
      int32 [batch, height, width].
    """
    if logits.shape[-1] > _FEW_CLASSES:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    first, *rest = tf.unstack(logits, axis=-1)
    largest, classes = first, tf.zeros_like(first, tf.int32)
    for index, plane in enumerate(rest, start=1):
        classes = tf.where(plane > largest, index, classes)
        largest = tf.maximum(largest, plane)
    return classes


def scores(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Takes the ratios of a confusion matrix.

    With t, p and n the true, predicted and correct pixels of a class: IoU is
    n / (t + p - n), Dice 2n / (t + p) and recall n / t. A class that is neither in
    truth nor in prediction has NaN for all and is left out of the means; one that is
    in predictions alone has an IoU and a Dice of 0, which count, and no recall.

    Args:
      confusion: counts [classes, classes]: rows are true, columns predicted classes.
      class_names: the name of each class.

    Returns:
      `pixel_accuracy`, `mean_iou`, `mean_dice`, and `iou/NAME`, `dice/NAME` and
      `recall/NAME` of each class, all in 0..1.
    """
    confusion = np.asarray(confusion, np.float64)
    correct = np.diagonal(confusion)
    sizes = confusion.sum(axis=0) + confusion.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = correct / (sizes - correct)
        dice = 2 * correct / sizes
        recall = correct / confusion.sum(axis=1)
        accuracy = correct.sum() / confusion.sum()
    named = {
        "pixel_accuracy": accuracy,
        "mean_iou": _mean_of_present(iou),
        "mean_dice": _mean_of_present(dice),
    }
    for tag, values in (("iou", iou), ("dice", dice), ("recall", recall)):
        for name, value in zip(class_names, values, strict=True):
            named[f"{tag}/{name}"] = value
    return {name: float(value) for name, value in named.items()}


def _mean_of_present(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return present.mean() if present.size else np.nan
