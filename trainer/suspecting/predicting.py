"""Every usable example of a split with what a model makes of it."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import schema
from data.doctor import inspection
from data.preparing import preprocessing
from data.sources import halves
from data.stores import reading
from trainer.predicting import predictor


class Prediction(NamedTuple):
    """An example and what a model makes of it.

    Attributes:
      index: its place in the source.
      name: of the example.
      image: uint8 or uint16 [height, width, channels], at the model's size.
      label: uint8 [height, width].
      probabilities: float32 [height, width, classes].
    """

    index: int
    name: str
    image: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray


class _PassOver:
    """Passes over examples that cannot be used, which the doctor has named."""

    replaces = True

    def handle(self, index: int, error: schema.DataError) -> None:
        """Takes no note."""


class Judges:
    """One model for all masks; or two, each for those that it was not trained on."""

    def __init__(
        self,
        predictors: Sequence[predictor.Predictor],
        preprocessor: preprocessing.Preprocessor,
    ):
        """Takes the models.

        Args:
          predictors: one; or that trained on half 0 and that trained on half 1.
          preprocessor: how examples become arrays.
        """
        self._predictors = predictors
        self._preprocessor = preprocessor

    def predict(self, source: schema.Source) -> Iterator[Prediction]:
        """Yields all usable examples of a split, about in their order."""
        ids = range(len(source))
        decoded = reading.decode_examples(
            source, self._preprocessor, source.examples(), ids, _PassOver()
        )
        yield from self._predict(source, zip(ids, decoded, strict=True))

    def predict_some(
        self, source: schema.Source, ids: Sequence[int]
    ) -> Iterator[Prediction]:
        """Yields some examples of a split, each once, about in their order."""
        ids = sorted(set(ids))
        preprocess = tf.function(self._preprocessor, autograph=False)
        decoded = (
            {
                key: value.numpy()
                for key, value in preprocess(
                    {name: tf.constant(value) for name, value in example.items()}
                ).items()
            }
            for example in inspection.read_examples(source, ids)
        )
        yield from self._predict(source, zip(ids, decoded, strict=True))

    def _predict(
        self, source: schema.Source, examples: Iterator[tuple[int, dict]]
    ) -> Iterator[Prediction]:
        judges = np.zeros([len(source)], np.int64)
        if len(self._predictors) > 1:
            judges = 1 - halves.find_halves(source)
        waiting = collections.defaultdict(list)
        for index, example in examples:
            if example["problem"]:
                continue
            judge = int(judges[index])
            waiting[judge].append((index, example))
            if len(waiting[judge]) == self._predictors[judge].batch_size:
                yield from self._predict_batch(judge, waiting.pop(judge))
        for judge, batch in waiting.items():
            yield from self._predict_batch(judge, batch)

    def _predict_batch(
        self, judge: int, batch: list[tuple[int, dict]]
    ) -> Iterator[Prediction]:
        images = np.stack([example["image"] for _, example in batch])
        logits = self._predictors[judge].score(images)
        probabilities = tf.nn.softmax(logits).numpy()
        for (index, example), of_image in zip(batch, probabilities, strict=True):
            name = reading.name_as_text(example["name"])
            yield Prediction(index, name, example["image"], example["label"], of_image)
