"""The scores of exported files, beside those of the checkpoint that they are of."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from data import schema
from trainer import errors
from trainer.assembly import evaluation, photos, trained_model
from trainer.evaluating import scoring
from trainer.run_folder import evaluations
from trainer.settings import config as config_lib

MOST_LOST = 0.01
"""Of the mean IoU, by a file that is published."""


class Comparison:
    """Scores files on the evaluation split of a run, if that is at hand."""

    def __init__(self, config: config_lib.Config, trained: trained_model.TrainedModel):
        """Makes a comparison; nothing is opened before the first file is scored.

        Args:
          config: all settings, for images of the model's size.
          trained: the model that the files are made of.
        """
        # Scores that cost more, and of other classes, are not asked for here.
        measured = dataclasses.replace(
            config.evaluation, metrics=(), tta=(), merge_classes=()
        )
        self._config = dataclasses.replace(config, evaluation=measured)
        self._trained = trained
        self._strategy = tf.distribute.OneDeviceStrategy("/CPU:0")

    @functools.cached_property
    def _setup(self) -> evaluation.EvalSetup | None:
        if not self._config.export.export_scores:
            return None
        try:
            return evaluation.prepare_evaluation_of(
                self._config, self._strategy, self._trained
            )
        except photos.NOT_AT_HAND as error:
            _warn("is not at hand", error)
            return None

    @functools.cached_property
    def _of_checkpoint(self) -> dict[str, float]:
        return _scores(self._setup)

    def score(
        self, name: str, load: Callable[[], trained_model.TrainedModel]
    ) -> dict[str, Any] | None:
        """Scores a file.

        Args:
          name: of its format.
          load: loads it.

        Returns:
          What `model.json` says of its scores and of those of the checkpoint, None in
          place of NaN, for which JSON has no word; None at all if the split is not at
          hand, cannot be read to its end, or shall not be scored.

        Raises:
          errors.ExportError: if the file loses too much.
        """
        if not self._setup:
            return None
        setup = evaluation.make_eval_setup(
            self._config,
            self._strategy,
            self._setup.info,
            self._setup.examples,
            load().model,
            None,
        )
        try:
            found, expected = _scores(setup), self._of_checkpoint
        except schema.DataError as error:
            # Without --cache, examples are read as they are scored.
            _warn("cannot be read", error)
            self._setup = None  # Nor for the next file.
            return None
        lost = expected["mean_iou"] - found["mean_iou"]
        if lost > MOST_LOST:
            raise errors.ExportError(
                f"--export_format={name}: its mean IoU on {setup.examples.name} is "
                f"{found['mean_iou']:.4f}, and that of the checkpoint "
                f"{expected['mean_iou']:.4f}; {MOST_LOST} is the most that a file may "
                "lose. It was not published, use another format."
            )
        return {
            "split": setup.examples.name,
            "num_examples": len(setup.examples),
            "export": evaluations.for_json(found),
            "checkpoint": evaluations.for_json(expected),
        }


def _warn(problem: str, error: Exception) -> None:
    logging.warning(
        "Scores are not compared: the evaluation split %s (%s).",
        problem,
        str(error).rstrip("."),
    )


def _scores(setup: evaluation.EvalSetup) -> dict[str, float]:
    """Returns the scores of the classes that were predicted, which every file has."""
    scores = scoring.evaluate(setup)
    names = setup.confusion.result().keys()
    return {name: scores[name] for name in names}


def describe(scores: dict[str, Any] | None) -> str:
    """Says the mean IoU of a file beside that of the checkpoint; "" without scores."""
    if not scores:
        return ""
    found, expected = (
        "unknown" if mean_iou is None else f"{mean_iou:.4f}"
        for mean_iou in (scores[of]["mean_iou"] for of in ("export", "checkpoint"))
    )
    return f", mean IoU {found} (checkpoint {expected})"
