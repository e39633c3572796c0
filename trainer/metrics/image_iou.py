"""The mean IoU within each image."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.losses import pixels
from trainer.metrics import bins, metric, predictions

UNIT = 2.0**-32
"""The mean IoU of an image is counted in whole multiples of this, so that the sum is
the same in any order, on any number of replicas."""


class ImageIou(metric.Metric):
    """The mean over images of the mean IoU within each (Csurka et al., BMVC 2013).

    The mean IoU of an image is taken over the classes that are in its labels or its
    predictions; images without a valid pixel are left out. The IoU of all pixels
    together, `mean_iou`, is that of the large objects; here each image counts the same.

    The counts are the images, and the sum of their mean IoU, each rounded to 2^-32.
    """

    def __init__(self, class_names: Sequence[str]):
        """Makes counts of zero, int64 [2]."""
        super().__init__(class_names, [2])

    def update(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Scores the images of a batch; see `Metric.update`."""
        scores = score_images(labels, logits, self.num_classes)
        self._counts.assign_add(tf.reduce_sum(scores, axis=0))

    def result(self) -> dict[str, float]:
        """Returns `image_mean_iou`, in 0..1; NaN if no image was scored."""
        number, total = self.counts().astype(np.float64)
        with np.errstate(invalid="ignore"):
            return {"image_mean_iou": float(total * UNIT / number)}

    @property
    def titles(self) -> dict[str, str]:
        """The title of the mean."""
        return {"image_mean_iou": "mean IoU of images"}


def score_images(labels: tf.Tensor, logits: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Scores each image of a batch.

    Args:
      labels: uint8 [batch, height, width].
      logits: [batch, height, width, num_classes].
      num_classes: how many classes there are.

    Returns:
      int64 [batch, 2]: 1, and the mean IoU in multiples of `UNIT`; for an image without
      a valid pixel, 0 and 0.
    """
    is_valid = pixels.is_valid(labels)
    # For GPUs, TensorFlow adds up and compares int32 on the host.
    predicted = tf.bitcast(predictions.most_likely_class(logits), tf.uint32)
    true = tf.cast(labels, tf.uint32)
    num_rows = tf.shape(labels)[0]
    # A bin for each class of each image.
    first = tf.reshape(tf.range(num_rows) * num_classes, [-1, 1, 1])
    first = tf.cast(first, tf.uint32)

    def count(classes: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
        cells, num_cells = tf.bitcast(first + classes, tf.int32), num_rows * num_classes
        counts = bins.sum_by_bin(cells, num_cells, where=where)
        return tf.reshape(tf.cast(counts, tf.float64), [num_rows, num_classes])

    both = count(true, tf.equal(true, predicted))  # No prediction is ignored.
    union = count(true, is_valid) + count(predicted, is_valid) - both
    num_present = tf.math.count_nonzero(union, axis=1, dtype=tf.float64)  # [rows]
    ious = tf.reduce_sum(tf.math.divide_no_nan(both, union), axis=1)
    means = tf.math.divide_no_nan(ious, num_present)
    is_scored = tf.cast(num_present > 0, tf.int64)
    return tf.stack([is_scored, tf.cast(tf.round(means / UNIT), tf.int64)], axis=1)


make = ImageIou
