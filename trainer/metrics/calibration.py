"""Calibration: whether the predicted probabilities can be believed."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.losses import pixels
from trainer.metrics import bins, metric, predictions

_NUM_BINS = 15
"""As in the paper."""

_UNIT = 2.0**-24
"""Confidences are counted in whole multiples of this, so that the sum is the same in
any order, on any number of replicas."""


class Calibration(metric.Metric):
    """Expected calibration error of Guo et al. (ICML 2017, arXiv:1706.04599).

    The confidence of a pixel is the greatest of its probabilities. Of M = 15 bins, bin
    m has the valid pixels whose confidence is above (m - 1) / M, and at most m / M.
    With n the number of pixels in a bin, a the share of these that are right, and c
    their mean confidence,

        ECE = sum(n |a - c|) / sum(n)    over the bins.

    The counts are, for each bin, its pixels, those that are right, and the sum of the
    confidences, each rounded to 2^-24.
    """

    def __init__(self, class_names: Sequence[str]):
        """Makes counts of zero, int64 [3, 15]."""
        super().__init__(class_names, [3, _NUM_BINS])

    def update(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Counts a batch; see `Metric.update`."""
        is_valid = tf.reshape(pixels.is_valid(labels), [-1])  # [pixels]
        predicted = predictions.most_likely_class(logits)
        is_right = tf.equal(tf.cast(labels, tf.int32), predicted)
        confidence = tf.reduce_max(pixels.softmax(logits), axis=0)  # [pixels]
        places = tf.cast(tf.math.ceil(confidence * _NUM_BINS), tf.int32) - 1
        places = tf.clip_by_value(places, 0, _NUM_BINS - 1)
        units = tf.cast(tf.round(confidence / _UNIT), tf.int32)
        sums = (
            bins.sum_by_bin(places, _NUM_BINS, where=is_valid),
            bins.sum_by_bin(
                places, _NUM_BINS, where=is_valid & tf.reshape(is_right, [-1])
            ),
            _sum_large(units, places, where=is_valid),
        )
        self._counts.assign_add(tf.stack(sums))

    def result(self) -> dict[str, float]:
        """Returns `calibration_error`, in 0..1; NaN if no pixel was counted."""
        number, right, confidence = self.counts().astype(np.float64)
        gaps = np.abs(right - confidence * _UNIT)
        with np.errstate(invalid="ignore"):
            return {"calibration_error": float(gaps.sum() / number.sum())}

    def details(self) -> dict[str, list]:
        """Returns `calibration`: of each bin [pixels, those right, mean confidence]."""
        number, right, confidence = self.counts()
        means = confidence * _UNIT / np.maximum(number, 1)
        rows = zip(number.tolist(), right.tolist(), means.tolist(), strict=True)
        return {"calibration": [list(row) for row in rows]}

    @property
    def lower_is_better(self) -> frozenset[str]:
        """The error."""
        return frozenset(self.titles)

    @property
    def titles(self) -> dict[str, str]:
        """The title of the error."""
        return {"calibration_error": "calibration error"}


def _sum_large(values: tf.Tensor, places: tf.Tensor, *, where: tf.Tensor) -> tf.Tensor:
    """Sums numbers, each int32 of 0 to 2^24, by bin, four binary digits at a time.

    A digit is 16 at most, so a replica's part of a batch would need 2^27 pixels for
    sums that int32 does not hold.
    """
    total = tf.zeros([_NUM_BINS], tf.int64)
    for shift in (20, 16, 12, 8, 4, 0):
        digits = tf.bitwise.right_shift(values, shift)
        values -= tf.bitwise.left_shift(digits, shift)
        sums = bins.sum_by_bin(places, _NUM_BINS, where=where, values=digits)
        total += sums * 2**shift
    return total


make = Calibration
