"""Which labels a model disputes, by confident learning at the level of pixels.

Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", JAIR 2021. The threshold t(k) of a class is the mean probability of k over all
pixels that are labelled k. A pixel with the label j is disputed if the likeliest class
k is another one and its probability is at least t(k): the model is as sure of k as it
is of pixels that do have that label.

Where two classes meet, labels are always open to dispute by a pixel or two; pixels near
a border of the mask are therefore left out of what is counted.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

NUM_LEVELS = 256
"""Probabilities count in steps of 1 / NUM_LEVELS, rounded down: so the thresholds,
which need all masks, can be applied to counts, and no mask is predicted twice."""

_BAND = 1 / 40
"""Of the shorter side of a mask: how far from a border its pixels are left out."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a model makes of the labels of one mask, in counts.

    Attributes:
      labelled: pixels of each label, int64 [classes].
      probabilities: sum over these of the probability of their label, float64
        [classes].
      predicted: pixels with a label whose likeliest class it is, int64 [classes].
      others: pixels that are not near a border and whose likeliest class is another one
        than their label: their number by (label, likeliest class) and level of the
        probability, int64 [NUM_LEVELS].
    """

    labelled: np.ndarray
    probabilities: np.ndarray
    predicted: np.ndarray
    others: dict[tuple[int, int], np.ndarray]

    @property
    def self_confidence(self) -> float:
        """The mean probability of the labels; 1 without any."""
        num_labels = self.labelled.sum()
        return float(self.probabilities.sum() / num_labels) if num_labels else 1.0


def count(label: np.ndarray, probabilities: np.ndarray) -> Tally:
    """Counts what a model makes of one mask.

    Args:
      label: uint8 [height, width]; values of `probabilities.shape[-1]` and above are no
        labels.
      probabilities: float32 [height, width, classes], 0..1.
    """
    num_classes = probabilities.shape[-1]
    has_label = label < num_classes
    is_inside = has_label & ~find_borders(label)
    labels = label[has_label].astype(np.int64)
    own = probabilities[has_label, labels]
    likeliest, levels = _find_likeliest(probabilities)
    is_other = is_inside & (likeliest != label)
    others = {}
    codes = label[is_other].astype(np.int64) * num_classes + likeliest[is_other]
    for code in np.unique(codes):
        of_pair = levels[is_other][codes == code]
        others[divmod(int(code), num_classes)] = np.bincount(
            of_pair, minlength=NUM_LEVELS
        )
    return Tally(
        labelled=np.bincount(labels, minlength=num_classes),
        probabilities=np.bincount(labels, own, minlength=num_classes),
        predicted=np.bincount(likeliest[has_label], minlength=num_classes),
        others=others,
    )


def find_thresholds(tallies: Sequence[Tally]) -> np.ndarray:
    """Returns the threshold of each class, float64 [classes].

    That of a class without a pixel is 1.
    """
    labelled = sum(tally.labelled for tally in tallies)
    total = sum(tally.probabilities for tally in tallies)
    return np.where(labelled > 0, total / np.maximum(labelled, 1), 1.0)


def count_disputed(tally: Tally, thresholds: np.ndarray) -> np.ndarray:
    """Counts disputed pixels that are not near a border, by label and likeliest class.

    Returns:
      int64 [classes, classes].
    """
    num_classes = len(thresholds)
    counts = np.zeros([num_classes, num_classes], np.int64)
    for (label, other), levels in tally.others.items():
        counts[label, other] = levels[_least_level(thresholds[other]) :].sum()
    return counts


def measure_doubt(disputed: np.ndarray, tally: Tally) -> float:
    """Returns how much a mask is to be doubted, 0..1.

    With D the disputed pixels that are not near a border, this is

        sqrt(|D| / |labelled| * max(|D with k| / max(|k|, |labelled| / 100)))

    where k runs over the classes, of the mask and of the prediction, and |k| is how
    many pixels are of the class there. The first factor alone would let large objects
    that are hard to see hide a small one that is labelled wrongly, the second one would
    let specks come first. Of 300 photos of Oxford-IIIT Pet with 20 spoiled masks, with
    two seeds, the first 30 by this are 20 and 20 of them; by the mean probability of
    the labels 15 and 15, by its softmin 19 and 14 (temperature 0.1; Lad and Mueller,
    "Estimating label quality and errors in semantic segmentation data", 2023).

    Args:
      disputed: of `count_disputed`.
      tally: of the mask.
    """
    num_labels = tally.labelled.sum()
    if not num_labels:
        return 0.0
    shares = np.concatenate(find_shares(disputed, tally))
    return float(np.sqrt(disputed.sum() / num_labels * shares.max()))


def find_shares(disputed: np.ndarray, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Returns what share of each class is disputed, float64 [classes] each.

    Args:
      disputed: of `count_disputed`.
      tally: of the mask.

    Returns:
      Of the pixels that are labelled with it, and of those that are predicted to be it;
      of a class of less than a hundredth of the pixels, the share of that hundredth.
    """
    least = max(tally.labelled.sum() / 100, 1)
    return (
        disputed.sum(axis=1) / np.maximum(tally.labelled, least),
        disputed.sum(axis=0) / np.maximum(tally.predicted, least),
    )


def find_disputed(
    label: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Finds the pixels that `count_disputed` counts, bool [height, width].

    Args:
      label: as for `count`.
      probabilities: as for `count`.
      thresholds: float64 [classes].
    """
    likeliest, levels = _find_likeliest(probabilities)
    is_inside = (label < len(thresholds)) & ~find_borders(label)
    least = np.array([_least_level(threshold) for threshold in thresholds])
    return is_inside & (likeliest != label) & (levels >= least[likeliest])


def find_borders(label: np.ndarray) -> np.ndarray:
    """Finds the pixels near a border between two values.

    Args:
      label: uint8 [height, width].

    Returns:
      bool [height, width]: whether there is another value at most a fortieth of the
      shorter side away along each axis, two pixels at least.
    """
    reach = max(round(min(label.shape) * _BAND), 2)
    return _spread(label, reach, np.maximum) != _spread(label, reach, np.minimum)


def _spread(label: np.ndarray, reach: int, choose: np.ufunc) -> np.ndarray:
    """Returns the greatest or the least value in a window around each pixel."""
    result = label.copy()
    for axis in (0, 1):
        lines = np.moveaxis(result, axis, 0)  # A view.
        before = lines.copy()
        for away in range(1, reach + 1):
            choose(lines[away:], before[:-away], out=lines[away:])
            choose(lines[:-away], before[away:], out=lines[:-away])
    return result


def _find_likeliest(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the likeliest class of each pixel, and the level of its probability."""
    levels = (probabilities.max(axis=-1) * NUM_LEVELS).astype(np.int64)
    return probabilities.argmax(axis=-1), levels.clip(0, NUM_LEVELS - 1)


def _least_level(threshold: float) -> int:
    """Returns the lowest level that reaches a threshold."""
    return min(int(np.ceil(threshold * NUM_LEVELS)), NUM_LEVELS - 1)
