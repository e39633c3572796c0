"""A training step: gradients, and if they are finite, the update of the weights.

Keras checks before the sum over replicas, so here it does not; see
`trainer.steps.gradients`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.optimizing import ema as ema_lib
from trainer.optimizing import optimization
from trainer.steps import gradients as gradients_lib
from trainer.steps import keeping

_MakeContext = Callable[[tf.Tensor], contextlib.AbstractContextManager]


class TrainResult(NamedTuple):
    """What a loop of training steps leaves for the host; scalars but for the sums.

    Attributes:
      sums: float64 [num_sums], those of the loss over all steps.
      gradient_norm: float32, of the last step, before clipping.
      is_stopped: bool; True if the loop ended early because a stop was requested.
      is_finite: bool; False if the loop stopped before the update of a step with a
        loss or gradient that is NaN or infinite. `global_step` is then the number of
        that step.
      input_secs: float64, how long the devices of this worker waited for its input, in
        all steps; NaN if that is not measured.
    """

    sums: tf.Tensor
    gradient_norm: tf.Tensor
    is_stopped: tf.Tensor
    is_finite: tf.Tensor
    input_secs: tf.Tensor


class TrainLoop:
    """Runs training steps on the devices of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        gradients: gradients_lib.Gradients,
        variables: Sequence[keras.Variable],
        optimizer: keras.Optimizer,
        num_sums: int,
        loss_scale: optimization.LossScale,
        global_step: tf.Variable,
        ema: ema_lib.ExponentialMovingAverage | None = None,
        model_at: _MakeContext | None = None,
        has_average_warmup: bool = False,
        keeper: keeping.GradientKeeper | None = None,
        measures_input: bool = False,
    ):
        """Makes a loop of objects that were made in the strategy's scope.

        Args:
          strategy: on whose replicas to run.
          gradients: of the loss of a batch.
          variables: that are trained.
          optimizer: a built optimizer that neither clips nor accumulates.
          num_sums: how many sums the loss has.
          loss_scale: factor on the loss.
          global_step: int64, the number of steps done; on the host.
          ema: moving averages of the model's variables, or None.
          model_at: from the steps done, int64 scalar, to a context in which the model
            is as the next step needs it: the momentum of its batch norms, and which of
            its parts are frozen. None: the model stays as it is.
          has_average_warmup: whether the decay of `ema` is limited at each step.
          keeper: keeps gradients of some steps; None: nobody looks at any.
          measures_input: whether to measure how long the devices wait for input.
            TensorFlow forbids it where ops must be deterministic: it takes a clock.

        Attributes:
          gradients: as given.
          keeper: as given.
        """
        self.gradients = gradients
        self.keeper = keeper
        self._strategy = strategy
        self._variables = variables
        self._optimizer = optimizer
        self._num_sums = num_sums
        self._loss_scale = loss_scale
        self._global_step = global_step
        self._ema = ema
        self._model_at = model_at or (lambda step: contextlib.nullcontext())
        self._has_average_warmup = has_average_warmup
        self._measures_input = measures_input

    @tf.function(autograph=False)
    def run(self, iterator: Iterator, num_steps: tf.Tensor) -> TrainResult:
        """Trains for some steps in one call of the device.

        Args:
          iterator: of the distributed training data.
          num_steps: int32 scalar tensor; a Python number would be traced anew.

        Returns:
          The result, the same on all hosts but for `input_secs`.
        """

        def goes_on(steps_done: tf.Tensor, result: TrainResult) -> tf.Tensor:
            return (steps_done < num_steps) & result.is_finite & ~result.is_stopped

        def train_step(
            steps_done: tf.Tensor, result: TrainResult
        ) -> tuple[tf.Tensor, TrainResult]:
            step_before = self._global_step.read_value()
            limit = None
            if self._has_average_warmup:
                limit = ema_lib.decay_limit(step_before)
            take = _take_measured if self._measures_input else _take
            batch, input_secs = take(iterator, steps_done)
            with self._model_at(step_before):
                gradients, step = self.gradients.of_batch(batch)
            if self.keeper:
                self.keeper.keep(self._strategy, gradients, step_before + 1)
            # All-reduced, so every replica has the same.
            step = self._strategy.experimental_local_results(step)[0]
            is_update = tf.math.is_finite(step["norm"])
            # float16 may overflow now and then: its update is skipped.
            is_allowed = is_update | self._loss_scale.can_shrink()
            is_finite = tf.reduce_all(tf.math.is_finite(step["sums"])) & is_allowed
            tf.cond(
                is_finite & is_update,
                lambda: self._strategy.run(self._replica_update, (gradients, limit)),
                lambda: None,
            )
            self._loss_scale.update(is_update)
            self._global_step.assign_add(tf.cast(is_finite, tf.int64))
            return steps_done + 1, TrainResult(
                sums=result.sums + step["sums"],
                gradient_norm=step["norm"],
                is_stopped=step["stops"] > 0,
                is_finite=is_finite,
                input_secs=result.input_secs + input_secs,
            )

        nothing = TrainResult(
            sums=tf.zeros([self._num_sums], tf.float64),
            gradient_norm=tf.zeros([]),
            is_stopped=tf.constant(False),
            is_finite=tf.constant(True),
            input_secs=tf.zeros([], tf.float64),
        )
        _, result = tf.while_loop(goes_on, train_step, (0, nothing))
        return result

    def prepare(self, iterator: Iterator) -> None:
        """Traces and optimizes `run` ahead, without a step.

        Args:
          iterator: of batches like those to come, in shape and kind.
        """
        self.run(iterator, tf.constant(0))

    @tf.autograph.experimental.do_not_convert
    def _replica_update(
        self, gradients: list[tf.Tensor], limit: tf.Tensor | None
    ) -> None:
        self._optimizer.apply(gradients, self._variables)
        if self._ema:
            self._ema.update(limit)


def _take(iterator: Iterator, steps_done: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Takes the next batch; returns it, and that it is not known how long it took."""
    del steps_done
    return next(iterator), tf.constant(np.nan, tf.float64)


def _take_measured(iterator: Iterator, steps_done: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Takes the next batch; returns it, and for how many seconds it was waited for.

    Args:
      iterator: of the distributed training data.
      steps_done: known to the loop once the sums of the last step are, which is when
        the wait begins.
    """
    with tf.control_dependencies([steps_done]):
        began = tf.timestamp()
    with tf.control_dependencies([began]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        return batch, tf.timestamp() - began
