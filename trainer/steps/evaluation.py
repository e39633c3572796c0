"""The mathematics of an evaluation: from batches to scores."""

from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from trainer.losses import weighted_sum
from trainer.metrics import image_scores as image_scores_lib
from trainer.metrics import metric, predictions
from trainer.steps import loops


class EvalLoop:
    """Scores a model on the devices of a strategy."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        fetch: Callable,
        model: Callable[..., tf.Tensor],
        loss: weighted_sum.WeightedSum,
        metrics: Sequence[metric.Metric],
        merge: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        restore_size: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        image_scores: image_scores_lib.ImageScores | None = None,
    ):
        """Makes a loop; call it in the strategy's scope.

        Batches with `native_label` and `native_size` (see `data.stores.native`) are
        scored at those sizes.

        Args:
          strategy: on whose replicas to run.
          fetch: completes a replica's batch; see `data.pipeline.Examples`.
          model: from images to logits, a Keras model or an `averaging.Averaged`.
          loss: whose numbers are scores, too.
          metrics: what to score the logits with.
          merge: from labels and logits to those of the classes that the metrics score;
            see `trainer.metrics.merging`.
          restore_size: from an example's logits and native size to logits of that size;
            see `data.preparing.resizing`.
          image_scores: what to score each image with, or None.

        Attributes:
          metrics: as given.
          image_scores: as given.
          num_calls: grows with each call of `score`, to be watched.
        """
        self._strategy = strategy
        self._fetch = fetch
        self._model = model
        self._loss = loss
        self._merge = merge
        self._restore_size = restore_size
        self.metrics = tuple(metrics)
        self.image_scores = image_scores
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
        if self.image_scores:
            self.image_scores.reset()
        self._sums.assign(tf.zeros([self._loss.num_sums], tf.float64))

    def score(self, iterator: Iterator, num_batches: int) -> None:
        """Scores some batches in one call of the device.

        Args:
          iterator: of the distributed evaluation data.
          num_batches: how many.
        """
        self._run(iterator, tf.constant(num_batches))
        self.num_calls += 1

    @tf.function(autograph=False)
    def _run(self, iterator: Iterator, num_batches: tf.Tensor) -> None:
        loops.repeat(
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

    def details(self) -> dict[str, list]:
        """Returns what charts show of the metrics; see `Metric.details`."""
        return {
            name: value
            for scored in self.metrics
            for name, value in scored.details().items()
        }

    def lower_is_better(self, name: str) -> bool:
        """Tells whether a score of `result` is better the lower it is."""
        is_loss = name.partition("/")[0] == "loss"
        return is_loss or any(name in scored.lower_is_better for scored in self.metrics)

    @tf.autograph.experimental.do_not_convert
    def _replica_scores(self, batch: dict[str, tf.Tensor]) -> None:
        batch = self._fetch(batch)
        logits = self._model(batch["image"], training=False)
        if "native_label" not in batch:
            self._score_logits(logits, batch["label"], batch["counter"])
            return
        sizes, ids = batch["native_size"], batch["counter"]

        def score_row(row: tf.Tensor) -> None:
            label = batch["native_label"][row, : sizes[row, 0], : sizes[row, 1]]
            native_logits = self._restore_size(logits[row], sizes[row])
            self._score_logits(
                native_logits[tf.newaxis], label[tf.newaxis], ids[row, tf.newaxis]
            )

        loops.repeat(
            tf.shape(sizes)[0], score_row
        )  # One at a time, as photos are large.

    def _score_logits(
        self, logits: tf.Tensor, labels: tf.Tensor, ids: tf.Tensor
    ) -> None:
        sums = self._loss.sums(logits, labels)
        self._sums.assign_add(tf.cast(sums, tf.float64))
        labels, logits = self._merge(labels, logits)
        for scored in self.metrics:
            scored.update(labels, logits)
        if self.image_scores:
            self.image_scores.update(ids, labels, logits)

    @tf.function(autograph=False)
    def predict(self, images: tf.Tensor) -> tf.Tensor:
        """Predicts on one device.

        Args:
          images: as the model takes them, uint8 or uint16 [batch, height, width,
            channels].

        Returns:
          uint8 [batch, height, width], the class of each pixel.
        """
        logits = self._model(images, training=False)
        return tf.cast(predictions.most_likely_class(logits), tf.uint8)
