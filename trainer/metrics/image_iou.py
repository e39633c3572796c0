"""The mean IoU within each image."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.losses import pixels
from trainer.metrics import confusion, metric, predictions

_UNIT = 2.0**-32
"""The mean IoU of an image is counted in whole ones of these: the sum is then the same
in any order, on any number of replicas."""


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
        is_valid = pixels.is_valid(labels)
        predicted = predictions.most_likely_class(logits)
        true = tf.cast(labels, tf.int32)
        num_rows = tf.shape(labels)[0]
        # A bin for each class of each image.
        first = tf.reshape(tf.range(num_rows) * self.num_classes, [-1, 1, 1])

        def count(classes: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
            cells, num_cells = first + classes, num_rows * self.num_classes
            counts = confusion.count_cells(cells, num_cells, where=where)
            return tf.reshape(tf.cast(counts, tf.float64), [num_rows, self.num_classes])

        both = count(true, tf.equal(true, predicted))  # No prediction is ignored.
        union = count(true, is_valid) + count(predicted, is_valid) - both
        num_present = tf.math.count_nonzero(union, axis=1, dtype=tf.float64)  # [rows]
        ious = tf.reduce_sum(tf.math.divide_no_nan(both, union), axis=1)
        means = tf.math.divide_no_nan(ious, num_present)
        num_images = tf.math.count_nonzero(num_present)
        total = tf.reduce_sum(tf.cast(tf.round(means / _UNIT), tf.int64))
        self._counts.assign_add(tf.stack([num_images, total]))

    def result(self) -> dict[str, float]:
        """Returns `image_mean_iou`, in 0..1; NaN if no image was scored."""
        number, total = self.counts().astype(np.float64)
        with np.errstate(invalid="ignore"):
            return {"image_mean_iou": float(total * _UNIT / number)}

    @property
    def titles(self) -> dict[str, str]:
        """The title of the mean."""
        return {"image_mean_iou": "mean IoU of images"}


make = ImageIou
