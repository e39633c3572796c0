"""Boundary IoU: how well the contours of the classes are met."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data import schema
from trainer.losses import pixels
from trainer.metrics import bins, metric, predictions

_DILATION_RATIO = 0.02
"""Width of the band along a contour, as a share of the image's diagonal."""


class BoundaryIou(metric.Metric):
    """Boundary IoU of Cheng et al. (CVPR 2021, arXiv:2103.16562), for each class.

    The band of a mask is what of the mask lies within a distance of d pixels of its
    contour. With T and P the bands of the true and the predicted mask of a class,

        boundary IoU = sum |T and P| / sum |T or P|    over all images,

    the sums over images taken before the ratio, as for the IoU. As in the authors'
    code, d is 2% of the diagonal of the image that is scored, rounded, and at least 1;
    the distance is that of the larger of the two coordinates; and what lies outside of
    the image is of no mask, so that a mask that the image cuts off has a band there.

    The paper has masks of objects, all of whose pixels count. Here the masks of an
    image are those of its classes, one for each, however many pieces it has; and an
    ignored pixel is of no class, neither in truth nor in prediction, as one outside of
    the image is: it is in no band, and where a mask ends at it, there is a contour.
    """

    def __init__(self, class_names: Sequence[str]):
        """Makes counts of zero, int64 [3, num_classes]."""
        super().__init__(class_names, [3, len(class_names)])

    def update(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Counts the pixels of the bands, and of both; see `Metric.update`."""
        is_valid = pixels.is_valid(labels)
        predicted = predictions.most_likely_class(logits)
        predicted = tf.where(is_valid, predicted, schema.IGNORE_LABEL)
        true = tf.cast(labels, tf.int32)
        distance = _band_width(tf.shape(labels))
        in_true = is_valid & _is_near_change(true, distance)
        in_predicted = is_valid & _is_near_change(predicted, distance)
        in_both = in_true & in_predicted & tf.equal(true, predicted)
        parts = [(true, in_both), (true, in_true), (predicted, in_predicted)]
        self._counts.assign_add(
            tf.stack(
                [
                    bins.sum_by_bin(classes, self.num_classes, where=where)
                    for classes, where in parts
                ]
            )
        )

    def result(self) -> dict[str, float]:
        """Returns `mean_boundary_iou`, and `boundary_iou/NAME` of each class.

        A class whose bands are empty in truth and prediction has NaN, and is left out
        of the mean.
        """
        both, true, predicted = self.counts().astype(np.float64)
        with np.errstate(invalid="ignore"):
            values = both / (true + predicted - both)
        named = {"mean_boundary_iou": metric.mean_of_present(values)}
        for name, value in zip(self.class_names, values, strict=True):
            named[f"boundary_iou/{name}"] = value
        return {name: float(value) for name, value in named.items()}

    @property
    def titles(self) -> dict[str, str]:
        """The title of the mean."""
        return {"mean_boundary_iou": "mean boundary IoU"}

    @property
    def class_titles(self) -> dict[str, str]:
        """The title of the boundary IoU."""
        return {"boundary_iou": "boundary IoU"}


make = BoundaryIou


def _band_width(shape: tf.Tensor) -> tf.Tensor:
    """Returns the width, int32, of the bands of images [batch, height, width]."""
    height, width = (tf.cast(shape[axis], tf.float64) for axis in (1, 2))
    diagonal = tf.sqrt(height**2 + width**2)
    return tf.maximum(tf.cast(tf.round(_DILATION_RATIO * diagonal), tf.int32), 1)


def _is_near_change(classes: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
    """Tells which pixels have another class near them, or the end of the image.

    A mask and the square of 2 * distance + 1 pixels around one of its pixels: the pixel
    is in the band of the mask if not all of the square is in the mask. This is so for
    the masks of all classes at once if the classes in the square differ.

    Args:
      classes: int32 [batch, height, width].
      distance: int32, of the farthest pixel of the square.

    Returns:
      bool [batch, height, width].
    """
    margins = [[0, 0], [1, 1], [1, 1]]
    height, width = tf.shape(classes)[1], tf.shape(classes)[2]
    # For GPUs, TensorFlow pads and compares int32 on the host.
    classes = tf.cast(classes, tf.uint8)
    classes = tf.pad(classes, margins, constant_values=schema.IGNORE_LABEL)
    # [batch, height + 2, width + 2]; one pixel of the outside stands for all of it.
    steps = tf.not_equal(classes[:, :, 1:], classes[:, :, :-1])
    in_rows = _any_within(steps, distance, width, axis=2)  # [batch, height + 2, width]
    middle = classes[:, :, 1:-1]  # The square's own column.
    steps = tf.not_equal(middle[:, 1:], middle[:, :-1])  # [batch, height + 1, width]
    # The classes in the square are all the same if those in each of its rows are, and
    # those in its middle column.
    in_rows = _any_within(in_rows, distance, height, axis=1)
    return in_rows | _any_within(steps, distance, height, axis=1)


def _any_within(
    flags: tf.Tensor, distance: tf.Tensor, size: tf.Tensor, *, axis: int
) -> tf.Tensor:
    """Tells for each pixel along an axis whether a flag within a distance is set.

    Args:
      flags: bool [batch, ..., ...]; along the axis one for each pixel and for one more
        before and after them, size + 2, or for each step between these, size + 1.
      distance: int32 scalar.
      size: int32 scalar, the number of pixels along the axis.
      axis: along which to look, 1 or 2.

    Returns:
      bool, of the same shape but for `size` along the axis.
    """
    num_flags = tf.shape(flags)[axis]
    # Whole numbers far below 2^24, and no int32, for the same reason.
    sums = tf.cumsum(tf.cast(flags, tf.float32), axis=axis)
    first = [[1, 0] if axis == a else [0, 0] for a in range(3)]
    sums = tf.pad(sums, first)  # Of all flags before each.
    # Pixel p has the flag p + 1, or the steps p and p + 1 at its two sides.
    place = tf.range(size)
    start = tf.maximum(place + 1 - distance, 0)
    stop = tf.minimum(place + num_flags - size + distance, num_flags)
    return tf.gather(sums, stop, axis=axis) > tf.gather(sums, start, axis=axis)
