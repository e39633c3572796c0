"""The gradients of some steps, kept for people to look at."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


class GradientKeeper:
    """Keeps the gradients of every so many steps on the host, one step's at a time."""

    def __init__(self, variables: Sequence[keras.Variable], *, interval: int):
        """Makes a keeper that has none yet.

        Args:
          variables: that are trained.
          interval: steps from one whose gradients are kept to the next.
        """
        self._variables = variables
        self._interval = interval
        # Not mirrored, as the gradients are the same on all replicas, and on the host:
        # a device may have no room for a copy.
        with tf.device("/CPU:0"):
            self._kept = [
                tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False)
                for v in variables
            ]

    def keep(
        self,
        strategy: tf.distribute.Strategy,
        gradients: Sequence[tf.Tensor],
        step: tf.Tensor,
    ) -> None:
        """Keeps gradients if the step is one of those; in cross-replica context.

        Args:
          strategy: on whose replicas they are.
          gradients: of the variables, on each replica, the same on all.
          step: int64 scalar, counted from 1.
        """

        def assign() -> None:
            for kept, gradient in zip(self._kept, gradients, strict=True):
                kept.assign(strategy.experimental_local_results(gradient)[0])

        tf.cond(step % self._interval == 0, assign, lambda: None)

    def distributions(self) -> dict[str, np.ndarray]:
        """Returns each weight as it is, and the gradient that was kept, by tag."""
        found = {}
        for variable, kept in zip(self._variables, self._kept, strict=True):
            found[f"weights/{variable.path}"] = variable.numpy()
            found[f"gradients/{variable.path}"] = kept.numpy()
        return found
