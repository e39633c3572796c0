"""The mathematics of a step: from a batch to an update, and from a batch to scores.

The order of a training step, on every number of replicas the same:

    gradients of the scaled sum of the losses on each replica
    -> sum over replicas -> over (global count of valid pixels * loss scale)
    -> finite? -> clip by the global norm -> optimizer update.

Keras clips and checks before the sum over replicas, so it does neither here, and its
own sum is switched off in `trainer.optimization`.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer import ema as ema_lib
from trainer import measuring, metrics, optimization


class TrainResult(NamedTuple):
    """What a loop of training steps leaves for the host; all scalars.

    Attributes:
      total: float64, sum of the losses of all valid pixels of all steps.
      count: float64, number of those pixels, or the sum of their weights.
      gradient_norm: float32, of the last step, before clipping.
      is_stopped: bool; True if the loop ended early because a stop was requested.
      is_finite: bool; False if the loop stopped before the update of a step with a
        loss or gradient that is NaN or infinite. `global_step` is then the number of
        that step.
    """

    total: tf.Tensor
    count: tf.Tensor
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
        loss: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        augment: Callable,
        confusion: metrics.ConfusionMatrix,
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
          loss: of logits and labels, gives (total, count); see `trainer.losses`.
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
            is_finite = tf.math.is_finite(step["total"]) & is_allowed
            tf.cond(
                is_finite & is_update,
                lambda: self._strategy.run(self._replica_update, (gradients, limit)),
                lambda: None,
            )
            self._loss_scale.update(is_update)
            self._global_step.assign_add(tf.cast(is_finite, tf.int64))
            return steps_done + 1, TrainResult(
                total=result.total + step["total"],
                count=result.count + step["count"],
                gradient_norm=step["norm"],
                is_stopped=step["stops"] > 0,
                is_finite=is_finite,
            )

        nothing = TrainResult(
            total=tf.zeros([], tf.float64),
            count=tf.zeros([], tf.float64),
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
        """Returns the gradients of the global mean loss, the same on every replica."""
        batch = self._fetch(batch)
        images, labels = self._augment(batch["image"], batch["label"], batch["counter"])
        # Over the pixels of the batch, valid or not, so that float16 gradients are of
        # the same size for every batch; the valid ones are known after the sum only.
        num_pixels = labels.shape.num_elements() * self._strategy.num_replicas_in_sync
        scale = self._loss_scale.scale.read_value() / num_pixels
        backpropagate = self._backpropagate
        if self._enable_xla:
            # A function of its own for each graph: it captures tensors of that graph.
            backpropagate = tf.function(backpropagate, jit_compile=True)
        gradients, total, count, logits = backpropagate(images, labels, scale)
        self._confusion.update(labels, logits)
        stops = tf.cast(self._stop_requested.read_value(), tf.float32)
        context = tf.distribute.get_replica_context()
        *gradients, total, count, stops = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [*gradients, total, count, stops]
        )
        # Of a batch without a valid pixel, total and gradients are zero.
        divisor = tf.where(count > 0, count, 1) * tf.cast(scale, count.dtype)
        gradients = [g / tf.cast(divisor, g.dtype) for g in gradients]
        norm = tf.linalg.global_norm(gradients)
        if self._global_clipnorm:
            gradients, _ = tf.clip_by_global_norm(
                gradients, self._global_clipnorm, use_norm=norm
            )
        step = {
            "total": tf.cast(total, tf.float64),
            "count": tf.cast(count, tf.float64),
            "norm": tf.cast(norm, tf.float32),
            "stops": stops,
        }
        return gradients, step

    @tf.autograph.experimental.do_not_convert
    def _replica_update(self, gradients, limit: tf.Tensor | None) -> None:
        self._optimizer.apply(gradients, self._variables)
        if self._ema:
            self._ema.update(limit)

    def _backpropagate(self, images, labels, scale):
        """Returns the gradients of the scaled total loss; needs no other replica."""
        variables = [variable.value for variable in self._variables]
        # Left to itself, the tape also watches the variables of a frozen encoder: a
        # third of the graph, pruned only once it is traced.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self._model(images, training=True)
            total, count = self._loss(logits, labels)
            scaled = total * tf.cast(scale, total.dtype)
        gradients = tape.gradient(scaled, variables)
        return gradients, total, count, logits

    def count_work(self, rows: int, image_size: tuple[int, int]) -> measuring.Work:
        """Counts what forward and backward pass of a step compute, on all replicas.

        Args:
          rows: of the batch, on each replica.
          image_size: height and width.
        """
        work = measuring.count_work(
            lambda images, labels: self._backpropagate(images, labels, 1.0)[:2],
            tf.TensorSpec([rows, *image_size, 3], tf.uint8),
            tf.TensorSpec([rows, *image_size], tf.uint8),
        )
        return work._replace(flops=work.flops * self._strategy.num_replicas_in_sync)


class EvalLoop:
    """Scores a model on the devices of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        fetch: Callable,
        model: keras.Model,
        loss: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        num_classes: int,
        restore_size: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    ):
        """Makes a loop; call it in the strategy's scope.

        Batches with `native_label` and `native_size` (see `data.native`) are scored at
        those sizes.

        Args:
          strategy: on whose replicas to run.
          fetch: completes a replica's batch; see `data.pipeline.Examples`.
          model: from images to logits.
          loss: of logits and labels, gives (total, count); see `trainer.losses`.
          num_classes: channels of the logits.
          restore_size: from an example's logits and native size to logits of that size;
            see `data.resizing`.

        Attributes:
          num_calls: grows with each call of `score`, to be watched.
        """
        self._strategy = strategy
        self._fetch = fetch
        self._model = model
        self._loss = loss
        self._restore_size = restore_size
        self._confusion = metrics.ConfusionMatrix(num_classes)
        self.num_calls = 0
        self._totals = tf.Variable(  # Loss total and pixel count.
            tf.zeros([2], tf.float64),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
            name="loss_totals",
        )

    def reset(self) -> None:
        """Forgets what was scored."""
        self._confusion.reset()
        self._totals.assign(tf.zeros([2], tf.float64))

    def score(self, iterator, num_batches: int) -> None:
        """Scores some batches in one call of the device.

        Args:
          iterator: of the distributed evaluation data.
          num_batches: how many.
        """
        self._run(iterator, tf.constant(num_batches))
        self.num_calls += 1

    @tf.function
    def _run(self, iterator, num_batches: tf.Tensor) -> None:
        for _ in tf.range(num_batches):
            self._strategy.run(self._replica_scores, (next(iterator),))

    def result(self) -> tuple[float, np.ndarray]:
        """Returns the mean loss, and the confusion matrix, int64 [classes, classes]."""
        total, count = self._totals.read_value().numpy()
        return total / (count or 1), self._confusion.result()

    def _replica_scores(self, batch):
        batch = self._fetch(batch)
        logits = self._model(batch["image"], training=False)
        if "native_label" not in batch:
            self._score_logits(logits, batch["label"])
            return
        sizes = batch["native_size"]
        for row in tf.range(tf.shape(sizes)[0]):  # One at a time, as photos are large.
            label = batch["native_label"][row, : sizes[row, 0], : sizes[row, 1]]
            native_logits = self._restore_size(logits[row], sizes[row])
            self._score_logits(native_logits[tf.newaxis], label[tf.newaxis])

    def _score_logits(self, logits, labels) -> None:
        total, count = self._loss(logits, labels)
        self._confusion.update(labels, logits)
        self._totals.assign_add(tf.cast(tf.stack([total, count]), tf.float64))

    @tf.function
    def predict(self, images: tf.Tensor) -> tf.Tensor:
        """Predicts on one device.

        Args:
          images: uint8 [batch, height, width, 3].

        Returns:
          uint8 [batch, height, width], the class of each pixel.
        """
        logits = self._model(images, training=False)
        return tf.cast(metrics.most_likely_class(logits), tf.uint8)
