"""A training step: gradients, and if they are finite, the update of the weights.

Keras checks before the sum over replicas, so here it does not; see
`trainer.steps.gradients`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
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
    """

    sums: tf.Tensor
    gradient_norm: tf.Tensor
    is_stopped: tf.Tensor
    is_finite: tf.Tensor


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
    ):
        """Makes a loop of objects that were made in the strategy's scope.

        Args:
          strategy: on whose replicas to run.
          gradients: of the loss of a batch.
          variables: that are trained.
          optimizer: a built optimizer that neither clips nor accumulates.
          num_sums: of the loss.
          loss_scale: factor on the loss.
          global_step: int64, the number of steps done; on the host.
          ema: moving averages of the model's variables, or None.
          model_at: of the steps done, int64 scalar, gives a context in which the model
            is what the next step is to be traced with: the momentum of its batch norms,
            and which of its parts are frozen. None: it stays as it is.
          has_average_warmup: whether the decay of `ema` is limited at each step.
          keeper: keeps gradients of some steps; None: nobody looks at any.

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

    @tf.function(autograph=False)
    def run(self, iterator: Iterator, num_steps: tf.Tensor) -> TrainResult:
        """Trains for some steps in one call of the device.

        Args:
          iterator: of the distributed training data.
          num_steps: int32 scalar tensor; a Python number would be traced anew.

        Returns:
          The result, the same on all hosts.
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
            with self._model_at(step_before):
                gradients, step = self.gradients.of_batch(next(iterator))
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
            )

        nothing = TrainResult(
            sums=tf.zeros([self._num_sums], tf.float64),
            gradient_norm=tf.zeros([]),
            is_stopped=tf.constant(False),
            is_finite=tf.constant(True),
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
