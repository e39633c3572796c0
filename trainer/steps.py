"""The mathematics of a step: from a batch to an update, and from a batch to scores.

The order of a training step, on every number of replicas the same:

    sums of the loss terms on each replica -> their sum over replicas, if the gradient
    depends on it (see `trainer.losses.weighted_sum`)
    -> scaled gradients of the sums on each replica
    -> sum over replicas -> over what the gradients are a mean of, and the loss scale
    -> finite? -> clip by the global norm -> optimizer update.

Keras clips and checks before the sum over replicas, so it does neither here, and its
own sum is switched off in `trainer.optimization`.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer import ema as ema_lib
from trainer import optimization
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.metrics import metric, predictions


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
        limit_momentum: Callable[[tf.Tensor], contextlib.AbstractContextManager]
        | None = None,
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
            `data.augment`.
          confusion: counts the pixels of the training batches.
          loss_scale: factor on the loss.
          global_step: int64, the number of steps done; on the host.
          stop_requested: bool, on the host; once it is True on any worker, the loop
            ends after the step that all are at.
          ema: moving averages of the model's variables, or None.
          limit_momentum: of the most that a moving average may keep at a step, gives a
            context in which the model's batch norms keep no more; the decay of `ema` is
            then limited, too. None: neither is.
          global_clipnorm: bound on the norm of all gradients together; 0: none.
          enable_xla: whether XLA compiles forward and backward pass; the model must
            then have no collective, as synchronized batch norm is.
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
        self._limit_momentum = limit_momentum
        self._global_clipnorm = global_clipnorm
        self._enable_xla = enable_xla

    @tf.function(autograph=False)
    def run(self, iterator, num_steps: tf.Tensor) -> TrainResult:
        """Trains for some steps in one call of the device.

        Args:
          iterator: of the distributed training data.
          num_steps: int32 scalar tensor; a Python number would be traced anew.

        Returns:
          The result, the same on all hosts.
        """

        def goes_on(steps_done: tf.Tensor, result: TrainResult) -> tf.Tensor:
            return (steps_done < num_steps) & result.is_finite & ~result.is_stopped

        def train_step(steps_done: tf.Tensor, result: TrainResult):
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

    def prepare(self, iterator) -> None:
        """Traces and optimizes `run` ahead, without a step.

        Args:
          iterator: of batches like those to come, in shape and kind.
        """
        self.run(iterator, tf.constant(0))

    # There is nothing to convert in it, and to find that out takes AutoGraph a second.
    @tf.autograph.experimental.do_not_convert
    def _replica_gradients(self, batch):
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
    def _replica_update(self, gradients, limit: tf.Tensor | None) -> None:
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


class EvalLoop:
    """Scores a model on the devices of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        fetch: Callable,
        model: keras.Model,
        loss: weighted_sum.WeightedSum,
        metrics: Sequence[metric.Metric],
        restore_size: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    ):
        """Makes a loop; call it in the strategy's scope.

        Batches with `native_label` and `native_size` (see `data.native`) are scored at
        those sizes.

        Args:
          strategy: on whose replicas to run.
          fetch: completes a replica's batch; see `data.pipeline.Examples`.
          model: from images to logits.
          loss: whose numbers are scores, too.
          metrics: what to score the logits with.
          restore_size: from an example's logits and native size to logits of that size;
            see `data.resizing`.

        Attributes:
          metrics: as given.
          num_calls: grows with each call of `score`, to be watched.
        """
        self._strategy = strategy
        self._fetch = fetch
        self._model = model
        self._loss = loss
        self._restore_size = restore_size
        self.metrics = tuple(metrics)
        self.num_calls = 0
        self._sums = tf.Variable(
            tf.zeros([loss.num_sums], tf.float64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="loss_sums",
        )

    def reset(self) -> None:
        """Forgets what was scored."""
        for scored in self.metrics:
            scored.reset()
        self._sums.assign(tf.zeros([self._loss.num_sums], tf.float64))

    def score(self, iterator, num_batches: int) -> None:
        """Scores some batches in one call of the device.

        Args:
          iterator: of the distributed evaluation data.
          num_batches: how many.
        """
        self._run(iterator, tf.constant(num_batches))
        self.num_calls += 1

    @tf.function(autograph=False)
    def _run(self, iterator, num_batches: tf.Tensor) -> None:
        _repeat(
            num_batches,
            lambda _: self._strategy.run(self._replica_scores, (next(iterator),)),
        )

    def result(self) -> dict[str, float]:
        """Returns `loss` and `loss/NAME` of each term, and the scores of the metrics.

        All workers of a cluster must call it.
        """
        values = self._loss.scores(self._sums.read_value().numpy())
        for scored in self.metrics:
            values |= scored.result()
        return values

    @tf.autograph.experimental.do_not_convert
    def _replica_scores(self, batch) -> None:
        batch = self._fetch(batch)
        logits = self._model(batch["image"], training=False)
        if "native_label" not in batch:
            self._score_logits(logits, batch["label"])
            return
        sizes = batch["native_size"]

        def score_row(row: tf.Tensor) -> None:
            label = batch["native_label"][row, : sizes[row, 0], : sizes[row, 1]]
            native_logits = self._restore_size(logits[row], sizes[row])
            self._score_logits(native_logits[tf.newaxis], label[tf.newaxis])

        _repeat(tf.shape(sizes)[0], score_row)  # One at a time, as photos are large.

    def _score_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> None:
        sums = self._loss.sums(logits, labels)
        self._sums.assign_add(tf.cast(sums, tf.float64))
        for scored in self.metrics:
            scored.update(labels, logits)

    @tf.function(autograph=False)
    def predict(self, images: tf.Tensor) -> tf.Tensor:
        """Predicts on one device.

        Args:
          images: uint8 [batch, height, width, 3].

        Returns:
          uint8 [batch, height, width], the class of each pixel.
        """
        logits = self._model(images, training=False)
        return tf.cast(predictions.most_likely_class(logits), tf.uint8)


def _all_reduce(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each tensor over all replicas; call it in replica context."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def _repeat(count: tf.Tensor, run: Callable[[tf.Tensor], None]) -> None:
    """Calls a function of the numbers from 0 on, one after the other, on the device."""

    def step(index: tf.Tensor) -> tuple[tf.Tensor]:
        run(index)
        return (index + 1,)

    tf.while_loop(lambda index: index < count, step, (0,))
