"""Exponential moving averages of a model's variables."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class ExponentialMovingAverage(tf.Module):
    """Averages all float variables of a model, batch-norm statistics included.

    After each update: average = decay * average + (1 - decay) * variable, from the
    initial values on (Polyak & Juditsky, 1992). The averages of Keras' optimizers
    leave the moving statistics out, with which an averaged model does not fit.
    """

    def __init__(self, model: keras.Model, decay: float):
        """Makes the averages; call it in the scope of the strategy.

        Args:
          model: a built model.
          decay: in [0, 1).
        """
        super().__init__(name="ema")
        self._decay = decay
        self._variables = [
            variable.value
            for variable in model.variables
            if tf.as_dtype(variable.dtype).is_floating
        ]
        self.averages = [
            tf.Variable(value.numpy(), trainable=False, name=f"average_{index}")
            for index, value in enumerate(self._variables)
        ]

    def update(self) -> None:
        """Moves the averages on by a step; call it in replica context."""
        tf.distribute.get_replica_context().merge_call(self._update_all)

    def _update_all(self, strategy: tf.distribute.Strategy) -> None:
        for average, variable in zip(self.averages, self._variables, strict=True):
            strategy.extended.update(average, self._move, args=(variable,))

    def _move(self, average: tf.Variable, variable: tf.Variable) -> None:
        average.assign_add((1 - self._decay) * (variable - average))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Gives the model the averages, and its own values back in the end."""
        own = [variable.numpy() for variable in self._variables]
        self.copy_to_model()
        try:
            yield
        finally:
            for variable, value in zip(self._variables, own, strict=True):
                variable.assign(value)

    def copy_to_model(self) -> None:
        """Overwrites the model's variables with the averages, for good."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            variable.assign(average.numpy())
