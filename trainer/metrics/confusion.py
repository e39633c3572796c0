"""Segmentation scores from one confusion matrix.

The device counts pixels; ratios are taken once, on the host, of the summed counts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.losses import pixels
from trainer.metrics import bins, metric, predictions


class ConfusionMatrix(metric.Metric):
    """Counts of pixels by true class (row) and predicted class (column)."""

    def __init__(self, class_names: Sequence[str]):
        """Makes a matrix of zeros, int64 [num_classes, num_classes]."""
        super().__init__(class_names, [len(class_names), len(class_names)])

    def update(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Counts a batch; see `Metric.update`."""
        self._counts.assign_add(count_confusions(labels, logits, self.num_classes))

    def result(self) -> dict[str, float]:
        """Returns what `scores` makes of the counts."""
        return scores(self.counts(), self.class_names)

    @property
    def titles(self) -> dict[str, str]:
        """Titles of the accuracy and the mean IoU.

        Of two classes, the IoU of the second, the foreground, comes first.
        """
        means = {"pixel_accuracy": "pixel accuracy", "mean_iou": "mean IoU"}
        if self.num_classes == 2:
            foreground = self.class_names[1]
            return {f"iou/{foreground}": f"IoU {foreground}"} | means
        return means

    @property
    def class_titles(self) -> dict[str, str]:
        """Titles of IoU, precision and recall."""
        return {"iou": "IoU", "precision": "precision", "recall": "recall"}

    def remarks(self, values: Mapping[str, float]) -> dict[str, str]:
        """Says which classes have no pixel in the masks, and what that means."""
        remarks, num_counted = {}, 0
        for name in self.class_names:
            if metric.is_missing(values.get(f"iou/{name}")):
                remarks[name] = "neither in the masks nor predicted"
                continue
            num_counted += 1
            if metric.is_missing(values.get(f"recall/{name}")):
                remarks[name] = "predicted, but not in the masks"
        if remarks:
            remarks["mean_iou"] = f"of {num_counted} of the {self.num_classes} classes"
        return remarks


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
    # For GPUs, TensorFlow multiplies and adds up int32 on the host.
    predicted = tf.bitcast(predictions.most_likely_class(logits), tf.uint32)
    cells = tf.cast(labels, tf.uint32) * num_classes + predicted
    counts = bins.sum_by_bin(
        tf.bitcast(cells, tf.int32),
        num_classes * num_classes,
        where=pixels.is_valid(labels),
    )
    return tf.reshape(counts, [num_classes, num_classes])


def scores(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Takes the ratios of a confusion matrix.

    With t, p and n the true, predicted and correct pixels of a class: IoU is
    n / (t + p - n), Dice 2n / (t + p), recall n / t and precision n / p. A class that
    is neither in truth nor in prediction has NaN for all and is left out of the means;
    one that is in predictions alone has an IoU and a Dice of 0, which count, and no
    recall; one that is never predicted has no precision. The frequency-weighted IoU is
    the mean of the IoU weighted by t (Long et al., CVPR 2015, arXiv:1411.4038).

    Args:
      confusion: counts [classes, classes]: rows are true, columns predicted classes.
      class_names: the name of each class.

    Returns:
      `pixel_accuracy`, `mean_iou`, `mean_dice`, `frequency_weighted_iou`, and
      `iou/NAME`, `dice/NAME`, `recall/NAME` and `precision/NAME` of each class, all in
      0..1.
    """
    confusion = np.asarray(confusion, np.float64)
    correct = np.diagonal(confusion)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    sizes = predicted + true
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = correct / (sizes - correct)
        dice = 2 * correct / sizes
        recall = correct / true
        precision = correct / predicted
        accuracy = correct.sum() / confusion.sum()
        weighted_iou = (true * iou)[true > 0].sum() / confusion.sum()
    named = {
        "pixel_accuracy": accuracy,
        "mean_iou": metric.mean_of_present(iou),
        "mean_dice": metric.mean_of_present(dice),
        "frequency_weighted_iou": weighted_iou,
    }
    of_classes = {"iou": iou, "dice": dice, "recall": recall, "precision": precision}
    for tag, values in of_classes.items():
        for name, value in zip(class_names, values, strict=True):
            named[f"{tag}/{name}"] = value
    return {name: float(value) for name, value in named.items()}
