"""The steps since the last report: sums, of which a report takes the means."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.steps import training


class Window:
    """Sums of the loss, and a confusion matrix, over the steps since the last report.

    They go into each checkpoint, so that the points of a resumed run are those of a run
    that was never stopped.
    """

    def __init__(
        self,
        loss: weighted_sum.WeightedSum,
        confusion: confusion_lib.ConfusionMatrix,
        state: Mapping[str, Any] | None = None,
    ):
        """Begins a window, or goes on with one that a checkpoint kept.

        Args:
          loss: of training.
          confusion: counts the pixels of the training batches.
          state: for which `is_state` is true, or None.
        """
        self._loss = loss
        self._confusion = confusion
        self._last = None
        self._reset()
        if state:
            self._sums, self._before = _read(state, loss)

    def _reset(self) -> None:
        num_classes = self._confusion.num_classes
        self._sums = np.zeros([self._loss.num_sums])
        self._before = np.zeros((num_classes, num_classes), np.int64)
        self._confusion.reset()

    def close(self) -> None:
        """Ends the window with a report, and begins a new one."""
        self._last = self.counts()
        self._reset()

    def add(self, result: training.TrainResult) -> None:
        """Adds the loss of steps; `confusion` has counted their pixels by itself."""
        self._sums += result.sums.numpy()

    def state(self) -> dict[str, Any]:
        """Returns the sums, for a checkpoint's metadata."""
        return {
            "sums": self._loss.by_term(self._sums),
            "confusion": self.counts().tolist(),
        }

    def scores(self) -> dict[str, float]:
        """Returns the loss, that of each term, and the scores of all pixels."""
        return {
            **self._loss.scores(self._sums),
            **confusion_lib.scores(self.counts(), self._confusion.class_names),
        }

    def counts(self) -> np.ndarray:
        """Returns the confusion matrix, int64 [classes, classes], of the window."""
        return self._before + self._confusion.counts()

    def recent_counts(self) -> np.ndarray:
        """Returns the confusion matrix of this window, or of a larger last one.

        A window that has just begun says little about how training goes.
        """
        present, last = self.counts(), self._last
        return present if last is None or last.sum() < present.sum() else last


def is_state(value: Any, *, loss: weighted_sum.WeightedSum, num_classes: int) -> bool:
    """Whether a value from JSON can be the sums that a checkpoint keeps.

    Args:
      value: anything that JSON can hold.
      loss: of training.
      num_classes: of the data set.
    """
    try:
        _, confusion = _read(value, loss)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return confusion.shape == (num_classes, num_classes)


def _read(
    state: Mapping[str, Any], loss: weighted_sum.WeightedSum
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums, float64 [num_sums], and the confusion matrix of a window.

    Raises:
      AttributeError, KeyError, TypeError, ValueError: if it has none that fit.
    """
    if "sums" in state:
        named = state["sums"]
    else:  # Of a run that was started when cross-entropy was the only loss.
        named = {"ce": [state["total"], state["count"]]}
    sums, confusion = loss.from_terms(named), np.array(state["confusion"])
    if confusion.dtype.kind != "i":
        raise ValueError("the confusion matrix is not of integers")
    return sums, confusion
