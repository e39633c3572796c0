"""Exponential moving averages of a model's variables."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


def decay_limit(step: tf.Tensor) -> tf.Tensor:
    """Returns the most that a moving average may keep of itself at a step.

    With t steps done, (1 + t) / (10 + t): a tenth at first, 0.9 from t = 80 on, 0.99
    from t = 890 on. So limited, an average spans about the last tenth of the run
    so far. With a fixed decay of 0.999, initial values still have a weight of
    0.999^400 = 0.67 after 400 steps.

    Args:
      step: integer scalar t, the steps done before this one.

    Returns:
      float64 scalar, on the host: averages of all devices take the same.
    """
    with tf.device("/CPU:0"):
        step = tf.cast(step, tf.float64)
        return (1 + step) / (10 + step)


class ExponentialMovingAverage(tf.Module):
    """Averages all float variables of a model, batch-norm statistics included.

    After each update: average = d * average + (1 - d) * variable, from the initial
    values on (Polyak & Juditsky, 1992); d is the decay, or `decay_limit` if that is
    less. The averages of Keras' optimizers leave the moving statistics out, with which
    an averaged model does not fit.
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

    def start_over(self) -> None:
        """Takes the present values of the variables for the averages."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign(variable.numpy())

    def update(self, limit: tf.Tensor | None = None) -> None:
        """Moves the averages on by a step; call it in replica context.

        Args:
          limit: of the decay at this step, as `decay_limit` gives it, or None.
        """
        share = 1 - self._decay
        if limit is not None:
            share = tf.maximum(tf.constant(share, limit.dtype), 1 - limit)

        def move(average: tf.Variable, variable: tf.Variable) -> None:
            step = variable - average
            average.assign_add(tf.cast(share, step.dtype) * step)

        def move_all(strategy: tf.distribute.Strategy) -> None:
            for average, variable in zip(self.averages, self._variables, strict=True):
                strategy.extended.update(average, move, args=(variable,))

        tf.distribute.get_replica_context().merge_call(move_all)

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
