"""What a metric is: counts on the devices, of which the host makes numbers."""

import abc
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf


class Metric(tf.Module, abc.ABC):
    """Scores of a model, from sums over all pixels of a split.

    Make it in the scope of the strategy and update it in replica context: each replica
    counts for itself, and reading adds the counts up. It must not be part of a
    checkpoint: reading it is a collective, which only the chief would enter.

    Attributes:
      class_names: the name of each class.
    """

    def __init__(self, class_names: Sequence[str], shape: Sequence[int]):
        """Makes a metric whose counts are all zero.

        Args:
          class_names: the name of each class.
          shape: of the counts, which are int64: a float32 would stop counting at 2^24
            pixels, 1,024 images of 128x128.
        """
        super().__init__(name=type(self).__name__)
        self.class_names = tuple(class_names)
        self._counts = tf.Variable(
            tf.zeros(shape, tf.int64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="counts",
        )

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @abc.abstractmethod
    def update(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        """Counts a batch; ignored pixels are left out.

        Args:
          labels: uint8 [batch, height, width]; height and width may be unknown until
            it runs.
          logits: [batch, height, width, num_classes].
        """

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """Returns the scores by name; NaN for one that there is nothing to make of."""

    @property
    @abc.abstractmethod
    def titles(self) -> dict[str, str]:
        """What a table calls the scores that it shows, by their names, in order."""

    @property
    def class_titles(self) -> dict[str, str]:
        """What a table calls the scores of classes, by what stands before `/NAME`."""
        return {}

    @property
    def lower_is_better(self) -> frozenset[str]:
        """The names of scores that are better the lower they are."""
        return frozenset()

    def remarks(self, values: Mapping[str, float]) -> dict[str, str]:
        """Returns what a table has to say of scores and classes, by their names.

        Args:
          values: of `result`; those that are NaN may be missing.
        """
        del values
        return {}

    def details(self) -> dict[str, list]:
        """Returns what the scores were made of and a chart shows, by name, for JSON.

        All workers of a cluster must call it.
        """
        return {}

    def counts(self) -> np.ndarray:
        """Returns the counts of all replicas, int64, of the shape that was given."""
        return self._counts.read_value().numpy()

    def reset(self) -> None:
        """Sets all counts to zero."""
        self._counts.assign(tf.zeros_like(self._counts.read_value()))


def is_missing(value: float | None) -> bool:
    """Tells whether there is no such score."""
    return value is None or bool(np.isnan(value))


def mean_of_present(values: np.ndarray) -> float:
    """Returns the mean of those that are not NaN; NaN if all are."""
    present = values[~np.isnan(values)]
    return present.mean() if present.size else np.nan
