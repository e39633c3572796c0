"""Scores of photos by a trained model, on all devices of a strategy."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.preparing import resizing
from trainer.assembly import trained_model
from trainer.metrics import predictions
from trainer.predicting import outputs, tiles
from trainer.settings import variants as variants_lib
from trainer.steps import averaging

_STRIP_PIXELS = 2**20
"""How many pixels of a photo get scores at its own size at a time."""


class Predictor:
    """Predicts batches of images, whole or in tiles."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        trained: trained_model.TrainedModel,
        *,
        tta: Sequence[str],
        rows_per_replica: int,
        tile_size: int,
        tile_overlap: float,
    ):
        """Makes a predictor; call it in the strategy's scope.

        Args:
          strategy: on whose replicas to run.
          trained: the model.
          tta: words of `--tta`.
          rows_per_replica: images of a call for each replica.
          tile_size: side of tiles; 0: images come whole, at the model's size.
          tile_overlap: the share of a tile that its neighbour covers, too.
        """
        self.batch_size = rows_per_replica * strategy.num_replicas_in_sync
        self.tile_size = tile_size
        self.trained = trained
        self._strategy = strategy
        self._rows_per_replica = rows_per_replica
        self._tile_overlap = tile_overlap
        variants = variants_lib.parse(tta)
        model = trained.model
        if tile_size or variants.scales:
            model = trained.any_size_model
        self._model = averaging.Averaged(model, variants) if tta else model
        # Photos are of many sizes: with these signatures, each is traced once.
        scores = tf.TensorSpec([None, None, len(trained.class_names)])
        self._judge = tf.function(_judge, input_signature=[scores], autograph=False)
        self._restore_rows = tf.function(
            lambda logits, size, rows: resizing.restore_rows(
                logits, size, trained.resize, rows
            ),
            input_signature=[
                scores,
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([None], tf.int32),
            ],
            autograph=False,
        )

    def score(self, images: np.ndarray) -> tf.Tensor:
        """Returns the logits of images of one size.

        Args:
          images: [at most `batch_size`, height, width, channels].

        Returns:
          float32 [images, height, width, classes].
        """
        count = self._rows_per_replica
        # Always as many rows, so that nothing is traced again.
        missing = self.batch_size - len(images)
        padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])

        def of_replica(context: tf.distribute.ReplicaContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group * count
            return tf.constant(padded[first : first + count])

        values = self._strategy.experimental_distribute_values_from_function(of_replica)
        logits = self._strategy.experimental_local_results(self._run(values))
        return tf.concat(logits, axis=0)[: len(images)]

    @tf.function(autograph=False)
    def _run(self, images: tf.Tensor) -> tf.Tensor:
        return self._strategy.run(self._replica_logits, (images,))

    def _replica_logits(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._model(images, training=False), tf.float32)

    def paint(
        self, canvas: outputs.Canvas, logits: tf.Tensor, size: tuple[int, int]
    ) -> None:
        """Fills in the classes of an image at its own size.

        Args:
          canvas: to be filled, of that size.
          logits: float32 [height, width, classes], at the model's size.
          size: height and width of the image.
        """
        step = max(_STRIP_PIXELS // size[1], 1)
        for first in range(0, size[0], step):
            rows = tf.range(first, min(first + step, size[0]))
            self._fill(canvas, self._restore_rows(logits, tf.constant(size), rows))

    def paint_in_tiles(self, canvas: outputs.Canvas, image: np.ndarray) -> None:
        """Fills in the classes of an image, predicted in tiles at its own scale.

        Args:
          canvas: to be filled, of the image's size.
          image: [height, width, channels].
        """
        strips = tiles.predict_strips(
            image,
            self._rate_tiles,
            tile=self.tile_size,
            overlap=self._tile_overlap,
            batch_size=self.batch_size,
            fill_value=self.trained.image_format.fill_value,
        )
        for strip in strips:
            self._fill(canvas, tf.math.log(strip))

    def _rate_tiles(self, shown: np.ndarray) -> np.ndarray:
        """Returns the probabilities of tiles."""
        # As training does; variants of the tiles are resized before the model does it.
        if not self.trained.image_format.is_whole:
            shown = np.clip(shown, *self.trained.image_format.value_range)
        return tf.nn.softmax(self.score(shown)).numpy()

    def _fill(self, canvas: outputs.Canvas, scores: tf.Tensor) -> None:
        """Fills in the next rows of an image, by their logits."""
        labels, confidences = self._judge(scores)
        if not self.trained.gives_probabilities:
            confidences = tf.fill(tf.shape(confidences), math.nan)
        probabilities = None
        if canvas.wants_probabilities:
            probabilities = tf.nn.softmax(scores).numpy()
        canvas.add(labels.numpy(), confidences.numpy(), probabilities)


def _judge(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the likeliest classes, uint8, and their probabilities, float32.

    Args:
      scores: float32 [rows, width, classes], logits.
    """
    labels = predictions.most_likely_class(scores[tf.newaxis])[0]
    # The softmax of the largest, without those of the others.
    highest = tf.reduce_max(scores, axis=-1, keepdims=True)
    confidences = 1 / tf.reduce_sum(tf.exp(scores - highest), axis=-1)
    return tf.cast(labels, tf.uint8), confidences
