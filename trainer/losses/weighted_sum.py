"""A weighted sum of loss terms: what training minimizes.

With S the sums of all replicas, and s those of one, the loss is L(S), and its gradient

    dL/dw = sum over replicas of (dL/dS) . (ds/dw).

So a step sums s over the replicas, takes dL/dS of the result, and hands it to the tape
of each replica as the gradient of s: the tape itself holds no collective. The sum over
replicas of what comes out is the gradient of the loss of the whole batch.

A single mean needs no sum over replicas before the gradient: its count is a factor of
all gradients, by which they are divided after they are summed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.losses import term as term_lib


class Weighted(NamedTuple):
    """A term and its weight in the loss."""

    weight: float
    term: term_lib.Term


class WeightedSum:
    """The loss: terms by name, each with a weight."""

    def __init__(self, terms: Mapping[str, Weighted]):
        """Makes the sum of at least one term."""
        self._terms = dict(terms)
        self._sizes = [weighted.term.num_sums for weighted in self._terms.values()]
        first, *others = (weighted.term for weighted in self._terms.values())
        self.is_mean = isinstance(first, term_lib.Mean) and not others

    @property
    def num_sums(self) -> int:
        """How many sums all terms have together."""
        return sum(self._sizes)

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the sums of all terms, one after the other; see `Term.sums`."""
        parts = [w.term.sums(logits, labels) for w in self._terms.values()]
        return tf.concat(parts, axis=0)

    def number(self, sums: tf.Tensor) -> tf.Tensor:
        """Makes the loss, a scalar, of the sums of all replicas."""
        parts = zip(self._terms.values(), tf.split(sums, self._sizes), strict=True)
        return tf.add_n([w.weight * w.term.number(part) for w, part in parts])

    def derivative(self, sums: tf.Tensor) -> tf.Tensor:
        """Returns dL/dS times `divisor`, by which gradients are divided in the end.

        Args:
          sums: of all replicas; of a mean, those of one will do, as it is constant.

        Returns:
          [num_sums], of the same dtype.
        """
        if self.is_mean:
            ((weight, _),) = self._terms.values()
            return tf.constant([weight, 0], sums.dtype)
        with tf.GradientTape() as tape:
            tape.watch(sums)
            number = self.number(sums)
        return tape.gradient(number, sums)

    def divisor(self, sums: tf.Tensor) -> tf.Tensor:
        """Returns what the summed gradients are still to be divided by, a scalar.

        Args:
          sums: of all replicas.
        """
        if not self.is_mean:
            return tf.ones([], sums.dtype)
        # Of a batch without a valid pixel, the gradients are zero.
        return tf.where(sums[1] > 0, sums[1], 1)

    def num_countable(self, labels: tf.Tensor) -> int:
        """Returns what a single mean may count; see `term.Mean.num_countable`.

        Args:
          labels: uint8 [rows, height, width], of a known shape.
        """
        ((_, mean),) = self._terms.values()
        return mean.num_countable(labels)

    def scores(self, sums: np.ndarray) -> dict[str, float]:
        """Makes the points of the curves: `loss`, and `loss/NAME` for each term.

        Of no valid pixel they are NaN, as other scores are: 0 would be the best loss.

        Args:
          sums: [num_sums], over whatever the points are of; taken in float64.
        """
        with tf.device("/CPU:0"):
            parts = tf.split(tf.constant(sums, tf.float64), self._sizes)
            numbers = {
                name: tf.divide(*weighted.term.ratio(part))
                for (name, weighted), part in zip(
                    self._terms.items(), parts, strict=True
                )
            }
            loss = tf.add_n([self._terms[n].weight * v for n, v in numbers.items()])
        of_terms = {f"loss/{name}": float(value) for name, value in numbers.items()}
        return {"loss": float(loss), **of_terms}

    def by_term(self, sums: np.ndarray) -> dict[str, list[float]]:
        """Returns the sums of each term by its name, as JSON takes them."""
        parts = np.split(np.asarray(sums, np.float64), np.cumsum(self._sizes)[:-1])
        return {
            name: part.tolist() for name, part in zip(self._terms, parts, strict=True)
        }

    def from_terms(self, named: Mapping[str, list[float]]) -> np.ndarray:
        """Joins what `by_term` gave, to float64 [num_sums].

        Raises:
          KeyError, ValueError: if these are not the sums of these terms.
        """
        sizes = {name: len(part) for name, part in named.items()}
        sums = np.array([value for name in self._terms for value in named[name]])
        if sizes != dict(zip(self._terms, self._sizes, strict=True)):
            raise ValueError(f"these are not the sums of {', '.join(self._terms)}")
        if sums.shape != (self.num_sums,) or sums.dtype.kind not in "if":
            raise ValueError("these are not numbers")
        return sums.astype(np.float64)
