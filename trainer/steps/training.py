"""The mathematics of a training step: from a batch to an update.

The order, the same on every number of replicas:

    sums of the loss terms on each replica -> their sum over replicas, if the gradient
    depends on it (see `trainer.losses.weighted_sum`)
    -> scaled gradients of the sums on each replica
    -> sum over replicas -> over what the gradients are a mean of, and the loss scale
    -> finite? -> clip by the global norm -> optimizer update.

Keras clips and checks before the sum over replicas, so it does neither here, and its
own sum is switched off in `trainer.optimizing.optimization`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.optimizing import ema as ema_lib
from trainer.optimizing import optimization

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
        fetch: Callable,
        model: keras.Model,
        optimizer: keras.Optimizer,
        loss: weighted_sum.WeightedSum,
        augment: Callable,
        confusion: confusion_lib.ConfusionMatrix,
        loss_scale: optimization.LossScale,
        global_step: tf.Variable,
        stop_requested: tf.Variable,
        ema: ema_lib.ExponentialMovingAverage | None = None,
        key_by_row: _MakeContext | None = None,
        limit_momentum: _MakeContext | None = None,
        global_clipnorm: float = 0.0,
        enable_xla: bool = False,
    ):
        """Makes a loop of objects that were made in the strategy's scope.

        Args:
          strategy: on whose replicas to run.
          fetch: completes a replica's batch; see `data.pipeline.Examples`.
          model: from images to logits.
          optimizer: a built optimizer that neither clips nor accumulates.
          loss: what to minimize.
          augment: of images, labels and counters, gives images and labels; see
            `data.augmentation.augment`.
          confusion: counts the pixels of the training batches.
          loss_scale: factor on the loss.
          global_step: int64, the number of steps done; on the host.
          stop_requested: bool, on the host; once it is True on any worker, the loop of
            all ends after a step.
          ema: moving averages of the model's variables, or None.
          key_by_row: of the counters of a replica's rows, gives a context in which the
            model draws for these rows; see `models.randomness`. None: it draws nothing.
          limit_momentum: of the most that a moving average may keep at a step, gives a
            context in which the model's batch norms keep no more; the decay of `ema` is
            then limited, too. None: neither is.
          global_clipnorm: bound on the norm of all gradients together; 0: none.
          enable_xla: whether XLA compiles forward and backward pass, in which there
            must be no collective then, as synchronized batch norm is.
        """
        self._strategy = strategy
        self._fetch = fetch
        self._model = model
        self._variables = model.trainable_variables
        self._optimizer = optimizer
        self._loss = loss
        self._augment = augment
        self._confusion = confusion
        self._loss_scale = loss_scale
        self._global_step = global_step
        self._stop_requested = stop_requested
        self._ema = ema
        self._key_by_row = key_by_row or (lambda _: contextlib.nullcontext())
        self._limit_momentum = limit_momentum
        self._global_clipnorm = global_clipnorm
        self._enable_xla = enable_xla

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
            limit, context = None, contextlib.nullcontext()
            if self._limit_momentum:
                limit = ema_lib.decay_limit(self._global_step.read_value())
                context = self._limit_momentum(limit)
            with context:
                gradients, step = self._strategy.run(
                    self._replica_gradients, (next(iterator),)
                )
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
            sums=tf.zeros([self._loss.num_sums], tf.float64),
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

    # There is nothing to convert in it, and to find that out takes AutoGraph a second.
    @tf.autograph.experimental.do_not_convert
    def _replica_gradients(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns the gradients of the global loss, the same on every replica."""
        batch = self._fetch(batch)
        images, labels = self._augment(batch["image"], batch["label"], batch["counter"])
        scale = self._loss_scale.scale.read_value()
        if self._loss.is_mean:
            # Over the pixels of the batch, valid or not, so that float16 gradients are
            # of the same size for every batch; the valid ones are known after the sum.
            num_replicas = self._strategy.num_replicas_in_sync
            scale /= labels.shape.num_elements() * num_replicas
        backpropagate = self.backpropagate
        if self._enable_xla:
            # A function of its own for each graph: it captures tensors of that graph.
            backpropagate = tf.function(backpropagate, jit_compile=True)
        with self._key_by_row(batch["counter"]):
            gradients, sums, logits = backpropagate(images, labels, scale)
        self._confusion.update(labels, logits)
        stops = tf.cast(self._stop_requested.read_value(), tf.float32)
        *gradients, sums, stops = _all_reduce([*gradients, sums, stops])
        divisor = self._loss.divisor(sums) * tf.cast(scale, sums.dtype)
        gradients = [g / tf.cast(divisor, g.dtype) for g in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self._global_clipnorm:
            gradients, _ = tf.clip_by_global_norm(
                gradients, self._global_clipnorm, use_norm=norm
            )
        step = {
            "sums": tf.cast(sums, tf.float64),
            "norm": tf.cast(norm, tf.float32),
            "stops": stops,
        }
        return gradients, step

    @tf.autograph.experimental.do_not_convert
    def _replica_update(
        self, gradients: list[tf.Tensor], limit: tf.Tensor | None
    ) -> None:
        self._optimizer.apply(gradients, self._variables)
        if self._ema:
            self._ema.update(limit)

    def backpropagate(
        self, images: tf.Tensor, labels: tf.Tensor, scale: tf.Tensor | float
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Runs the model forward and backward on the rows of a replica.

        Args:
          images: [rows, height, width, channels].
          labels: uint8 [rows, height, width].
          scale: factor on the gradients.

        Returns:
          The gradients of the variables; their sum over replicas is `scale` times that
          of the loss, times `loss.divisor`. The sums of the loss on these rows, and the
          logits.
        """
        variables = [variable.value for variable in self._variables]
        # Left to itself, the tape also watches the variables of a frozen encoder: a
        # third of the graph, pruned only once it is traced.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self._model(images, training=True)
            sums = self._loss.sums(logits, labels)
        sums_of_all = sums
        # XLA, which compiles no collective, has one replica, whose sums are all.
        if not self._loss.is_mean and self._strategy.num_replicas_in_sync > 1:
            (sums_of_all,) = _all_reduce([sums])
        upstream = self._loss.derivative(sums_of_all) * tf.cast(scale, sums.dtype)
        gradients = tape.gradient(sums, variables, output_gradients=upstream)
        return gradients, sums, logits


def _all_reduce(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each tensor over all replicas; call it in replica context."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
