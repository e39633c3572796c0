"""The gradients of a training step: from a batch to what the optimizer takes.

The order, the same on every number of replicas:

    sums of the loss terms on each replica -> their sum over replicas, if the gradient
    depends on it (see `trainer.losses.weighted_sum`)
    -> scaled gradients of the sums on each replica
    -> sum over replicas -> over what the gradients are a mean of, and the loss scale
    -> clip by the global norm.

With `num_parts`, the rows of a batch are taken in parts, one after the other: first
the sums, if the gradient depends on them, then the gradients, and then all that
follows as above. Only batch norm knows a part from the whole: its statistics are those
of a part.

Keras clips before the sum over replicas, so it does not do it here, and its own sum is
switched off in `trainer.optimizing.optimization`.
"""

import contextlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer import errors
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.optimizing import optimization
from trainer.steps import accumulation, loops

_MakeContext = Callable[..., contextlib.AbstractContextManager]


class Gradients:
    """Differentiates the loss of a batch on the devices of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        fetch: Callable,
        model: keras.Model,
        loss: weighted_sum.WeightedSum,
        augment: Callable,
        confusion: confusion_lib.ConfusionMatrix,
        loss_scale: optimization.LossScale,
        stop_requested: tf.Variable,
        key_by_row: _MakeContext | None = None,
        keep_statistics: _MakeContext | None = None,
        num_parts: int = 1,
        global_clipnorm: float = 0.0,
        enable_xla: bool = False,
    ):
        """Makes it of objects of the strategy's scope; call it there.

        Args:
          strategy: on whose replicas to run.
          fetch: completes a replica's batch; see `data.pipeline.Examples`.
          model: from images to logits.
          loss: what to minimize.
          augment: of images, labels and counters, gives images and labels; see
            `data.augmentation.augment`.
          confusion: counts the pixels of the training batches.
          loss_scale: factor on the loss.
          stop_requested: bool, on the host; what workers say by it is summed with the
            gradients.
          key_by_row: of the counters of rows, and the stride from one to the next,
            gives a context in which the model draws for these rows; see
            `models.randomness`. None: it draws nothing.
          keep_statistics: gives a context in which the model's batch norms leave their
            moving statistics, for where the sums of the loss are taken ahead. None: it
            has no batch norm.
          num_parts: parts that each replica's rows are split into.
          global_clipnorm: bound on the norm of all gradients together; 0: none.
          enable_xla: whether XLA compiles forward and backward pass, in which there
            must be no collective then, as synchronized batch norm is.
        """
        self._strategy = strategy
        self._fetch = fetch
        self._model = model
        self._variables = model.trainable_variables
        self._loss = loss
        self._augment = augment
        self._confusion = confusion
        self._loss_scale = loss_scale
        self._stop_requested = stop_requested
        self._key_by_row = key_by_row or (lambda *_, **__: contextlib.nullcontext())
        self._keep_statistics = keep_statistics or contextlib.nullcontext
        self._num_parts = num_parts
        self._parts = None
        if num_parts > 1:
            self._parts = accumulation.Accumulator(
                self._variables, num_parts=num_parts, num_sums=loss.num_sums
            )
        self._global_clipnorm = global_clipnorm
        self._enable_xla = enable_xla

    def of_batch(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Differentiates the global loss; call it in cross-replica context.

        Args:
          batch: of all replicas.

        Returns:
          The gradients of the model's variables on each replica, the same on all, and
          by name: `sums`, float64, of the loss over the batch; `norm`, float32, of all
          gradients together before clipping; `stops`, how many replicas are asked to
          stop.
        """
        run = self._strategy.run
        if not self._parts:
            return run(self._replica_gradients, (batch,))
        rows = run(self._replica_rows, (batch,))
        run(self._parts.reset)
        sums_of_all = None
        if not self._loss.is_mean:
            with self._keep_statistics():
                loops.repeat(
                    self._num_parts, lambda part: run(self._add_sums, (rows, part))
                )
            sums_of_all = run(self._sums_of_all)
        loops.repeat(
            self._num_parts,
            lambda part: run(self._add_gradients, (rows, part, sums_of_all)),
        )
        return run(self._sum_of_parts, (rows,))

    def drawing_for(self, counters: tf.Tensor) -> contextlib.AbstractContextManager:
        """Returns a context in which the model draws for rows, as its dropout does.

        Args:
          counters: int64 [rows], of the rows that it is called on.
        """
        return self._key_by_row(counters, stride=self._num_parts)

    # There is nothing to convert in it, and to find that out takes AutoGraph a second.
    @tf.autograph.experimental.do_not_convert
    def _replica_gradients(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns the gradients of the global loss, the same on every replica."""
        rows = self._replica_rows(batch)
        scale = self._gradient_scale(rows)
        return self._over_replicas(*self._differentiate(*rows, scale), scale)

    @tf.autograph.experimental.do_not_convert
    def _replica_rows(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns images, labels and counters to train on."""
        batch = self._fetch(batch)
        images, labels = self._augment(batch["image"], batch["label"], batch["counter"])
        return images, labels, batch["counter"]

    def _gradient_scale(self, rows: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """Returns the factor on the gradients of a replica's rows."""
        scale = self._loss_scale.value()
        if self._loss.is_mean:
            # Over the pixels, or images, of the batch, valid or not, so that float16
            # gradients are of the same size for every batch; the valid ones are known
            # after the sum.
            _, labels, _ = rows
            num_replicas = self._strategy.num_replicas_in_sync
            scale /= self._loss.num_countable(labels) * num_replicas
        return scale

    def _differentiate(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        counters: tf.Tensor,
        scale: tf.Tensor,
        sums_of_all: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns gradients and sums of rows, whose pixels it counts."""
        backpropagate = self.backpropagate
        if self._enable_xla:
            # A function of its own for each graph: it captures tensors of that graph.
            backpropagate = tf.function(backpropagate, jit_compile=True)
        with self.drawing_for(counters):
            gradients, sums, logits = backpropagate(images, labels, scale, sums_of_all)
        self._confusion.update(labels, logits)
        return gradients, sums

    @tf.autograph.experimental.do_not_convert
    def _add_sums(self, rows: tuple[tf.Tensor, ...], part: tf.Tensor) -> None:
        images, labels, counters = self._parts.rows_of(part, *rows)
        with self.drawing_for(counters):
            logits = self._model(images, training=True)
        self._parts.add_sums(self._loss.sums(logits, labels))

    @tf.autograph.experimental.do_not_convert
    def _sums_of_all(self) -> tf.Tensor:
        (sums,) = _all_reduce([self._parts.sums])
        self._parts.clear_sums()
        return sums

    @tf.autograph.experimental.do_not_convert
    def _add_gradients(
        self,
        rows: tuple[tf.Tensor, ...],
        part: tf.Tensor,
        sums_of_all: tf.Tensor | None,
    ) -> None:
        scale = self._gradient_scale(rows)
        of_part = self._parts.rows_of(part, *rows)
        self._parts.add(*self._differentiate(*of_part, scale, sums_of_all))

    @tf.autograph.experimental.do_not_convert
    def _sum_of_parts(
        self, rows: tuple[tf.Tensor, ...]
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        return self._over_replicas(
            self._parts.gradients, self._parts.sums, self._gradient_scale(rows)
        )

    def _over_replicas(
        self, gradients: list[tf.Tensor], sums: tf.Tensor, scale: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Sums what the replicas have, and returns the gradients of the loss."""
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

    def backpropagate(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        scale: tf.Tensor | float,
        sums_of_all: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Runs the model forward and backward on the rows of a replica.

        Args:
          images: [rows, height, width, channels].
          labels: uint8 [rows, height, width].
          scale: factor on the gradients.
          sums_of_all: of the loss, of the whole batch; None: the rows of all replicas
            are the batch.

        Returns:
          The gradients of the variables; their sum over replicas is `scale` times that
          of the loss, times `loss.divisor`. The sums of the loss on these rows, and the
          logits.

        Raises:
          errors.ConfigError: if the loss does not depend on some of the variables.
        """
        variables = [variable.value for variable in self._variables]
        # Left to itself, the tape also watches the variables of a frozen encoder: a
        # third of the graph, pruned only once it is traced.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self._model(images, training=True)
            sums = self._loss.sums(logits, labels)
        if sums_of_all is None:
            sums_of_all = sums
            # XLA, which compiles no collective, has one replica, whose sums are all.
            if not self._loss.is_mean and self._strategy.num_replicas_in_sync > 1:
                (sums_of_all,) = _all_reduce([sums])
        upstream = self._loss.derivative(sums_of_all) * tf.cast(scale, sums.dtype)
        gradients = tape.gradient(sums, variables, output_gradients=upstream)
        self._check_all(gradients)
        return gradients, sums, logits

    def _check_all(self, gradients: Sequence[tf.Tensor | None]) -> None:
        unused = [
            variable.path
            for variable, gradient in zip(self._variables, gradients, strict=True)
            if gradient is None
        ]
        if unused:
            raise errors.ConfigError(
                f"The loss does not depend on {len(unused)} of the trained weights, "
                f"{unused[0]} among them: use every feature map of a trained encoder "
                "in the decoder, or freeze what is left out (--freeze_encoder)."
            )


def _all_reduce(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each tensor over all replicas; call it in replica context."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))
