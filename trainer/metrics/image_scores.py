"""The score of each image of a split, by which the best and the worst are found."""

import numpy as np
import tensorflow as tf

from trainer.metrics import image_iou


class ImageScores(tf.Module):
    """The mean IoU within each image, as `image_iou` has it, one number an image.

    Make it in the scope of the strategy and update it in replica context, like a
    `metric.Metric`. It is no such metric, because it must know which images are in a
    batch.
    """

    def __init__(self, num_images: int, num_classes: int):
        """Makes scores of no image yet.

        Args:
          num_images: of the split.
          num_classes: how many classes there are.
        """
        super().__init__(name="ImageScores")
        self._num_classes = num_classes
        # One more row, for what fills up a batch. Each row has one replica that adds to
        # it, so that the sums of all are what that one has.
        self._sums = tf.Variable(
            tf.zeros([num_images + 1, 2], tf.int64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="sums",
        )

    def update(self, ids: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Scores the images of a batch.

        Args:
          ids: int64 [batch], each once in a pass over the split; those from the number
            of images on do not count.
          labels: uint8 [batch, height, width].
          logits: [batch, height, width, classes].
        """
        scores = image_iou.score_images(labels, logits, self._num_classes)
        num_rows, _ = self._sums.shape
        rows = tf.minimum(ids, num_rows - 1)[:, tf.newaxis]
        self._sums.assign_add(tf.scatter_nd(rows, scores, [num_rows, 2]))

    def result(self) -> np.ndarray:
        """Returns the scores, float64 [images], in 0..1.

        An image without a valid pixel, or one that was in no batch, has NaN. All
        workers of a cluster must call it.
        """
        number, total = self._sums.read_value().numpy()[:-1].astype(np.float64).T
        with np.errstate(invalid="ignore"):
            return total * image_iou.UNIT / number

    def reset(self) -> None:
        """Forgets all scores."""
        self._sums.assign(tf.zeros_like(self._sums.read_value()))
