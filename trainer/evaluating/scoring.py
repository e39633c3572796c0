"""One pass over the evaluation split, and what is kept of it."""

import contextlib
import functools
import hashlib
import json
import pathlib
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data.stores import reading
from trainer import errors
from trainer.assembly import evaluation
from trainer.drawing import pictures, strips
from trainer.run_folder import criterion, evaluations
from trainer.settings import config as config_lib
from trainer.steps import evaluation as evaluation_steps


def evaluate(setup: evaluation.EvalSetup) -> dict[str, float]:
    """Scores the model on the whole split, each example once.

    Where the run keeps moving averages of the weights, those are the model.

    Returns:
      By name: `loss` and that of each term, the results of all metrics, and
      `images_per_sec`.
    """
    with model_to_score(setup):
        return _evaluate(setup)


def model_to_score(
    setup: evaluation.EvalSetup,
) -> contextlib.AbstractContextManager:
    """Returns a context in which the model has the weights that count."""
    return setup.ema.applied() if setup.ema else contextlib.nullcontext()


def _evaluate(setup: evaluation.EvalSetup) -> dict[str, float]:
    started = time.perf_counter()
    setup.eval_loop.reset()
    for first in range(0, setup.num_batches, setup.batches_per_call):
        count = min(setup.batches_per_call, setup.num_batches - first)
        read_again = functools.partial(setup.read_again, first, first + count)
        with reading.naming_bad(read_again):
            setup.eval_loop.score(setup.iterator, count)
    return {
        **setup.eval_loop.result(),
        "images_per_sec": len(setup.examples) / (time.perf_counter() - started),
    }


class Outcome(NamedTuple):
    """What an evaluation finds.

    Attributes:
      scores: by name; NaN where a metric has no number.
      confusion: counts of pixels, int64 [classes, classes]: rows are true, columns
        predicted classes.
      details: of `Metric.details`.
      image_scores: float64 [examples], of `ImageScores`.
    """

    scores: dict[str, float]
    confusion: np.ndarray
    details: dict[str, list]
    image_scores: np.ndarray


def score_all(setup: evaluation.EvalSetup) -> Outcome:
    """Scores the split and each of its images; all workers of a cluster must call it.

    Args:
      setup: made with `scores_images`.
    """
    scores = evaluate(setup)
    loop = setup.eval_loop
    counts = setup.confusion.counts()
    return Outcome(scores, counts, loop.details(), loop.image_scores.result())


def record(
    config: config_lib.Config,
    setup: evaluation.EvalSetup,
    subject: evaluations.Subject,
    scored: evaluations.Scored,
    outcome: Outcome,
) -> pathlib.Path | None:
    """Notes an evaluation in the run's folder, with pictures if photos may be kept.

    Args:
      config: all settings.
      setup: whose model predicts.
      subject: the checkpoint that was scored.
      scored: what it was scored on.
      outcome: its scores.

    Returns:
      The path of the overview, if pictures are kept.

    Raises:
      errors.WriteError: if a file cannot be written.
    """
    kept = None
    if config.train.keep_golden:
        kept = evaluations.Pictures(
            overview=draw_examples(setup),
            examples=draw_ranked(setup, outcome.image_scores),
        )
    return evaluations.record(
        config.run.model_dir,
        subject,
        scored,
        outcome.scores,
        confusion=outcome.confusion,
        class_names=setup.confusion.class_names,
        details=outcome.details,
        image_scores=outcome.image_scores,
        pictures_to_keep=kept,
    )


def find_criterion(
    name: str, eval_loop: evaluation_steps.EvalLoop
) -> criterion.Criterion:
    """Returns how the best checkpoint is chosen.

    Args:
      name: of `--best_metric`.
      eval_loop: of the evaluation.

    Raises:
      errors.ConfigError: if that is no score of the evaluation.
    """
    names = eval_loop.result().keys()
    if name not in names:
        raise errors.ConfigError(
            f"--best_metric={name}: no score of this evaluation; use one of "
            f"{', '.join(sorted(names))}."
        )
    return criterion.Criterion(name, eval_loop.lower_is_better(name))


def hash_subject(config: config_lib.Config, setup: evaluation.EvalSetup) -> str:
    """Returns a short hash of what a training scores, and how.

    Scores with two hashes cannot be compared. What else changes a score of the same
    weights is fixed once a run has begun.

    Args:
      config: all settings.
      setup: of the evaluation.
    """
    subject = (
        setup.examples.fingerprint,
        config.data.eval_native_size,
        config.evaluation.variants,
    )
    return hashlib.sha256(json.dumps(subject).encode()).hexdigest()[:16]


def describe(
    config: config_lib.Config,
    setup: evaluation.EvalSetup,
    *,
    precision: str,
    uses_averages: bool,
) -> evaluations.Scored:
    """Describes what models are scored on, for the line that an evaluation leaves.

    Args:
      config: all settings.
      setup: of the evaluation.
      precision: that the model computes in.
      uses_averages: whether its weights are moving averages.
    """
    return evaluations.Scored(
        dataset=config.data.dataset,
        data_dir=config.data.data_dir,
        split=setup.examples.name,
        num_examples=len(setup.examples),
        fingerprint=setup.examples.fingerprint,
        image_size=config.data.image_size,
        eval_native_size=config.data.eval_native_size,
        uses_averages=uses_averages,
        precision=precision,
        tta=config.evaluation.tta,
        merge_classes=config.evaluation.merge_classes,
    )


def draw_examples(setup: evaluation.EvalSetup, num_examples: int = 6) -> np.ndarray:
    """Draws photo, truth, prediction and errors of examples from all over the split.

    Args:
      setup: whose model predicts.
      num_examples: rows of the picture, at most.

    Returns:
      uint8 [rows, columns, 3].
    """
    num_examples = min(num_examples, len(setup.examples))
    ids = np.linspace(0, len(setup.examples) - 1, num_examples, dtype=np.int64)
    with model_to_score(setup):
        return pictures.compare(
            *_predict(setup, ids),
            class_names=setup.info.class_names,
            palette=setup.info.palette,
        )


def draw_ranked(
    setup: evaluation.EvalSetup, scores: np.ndarray
) -> list[evaluations.Example]:
    """Draws the best, typical and worst examples of a split.

    Args:
      setup: whose model predicts.
      scores: float64 [examples], of `ImageScores`.
    """
    examples = []
    with model_to_score(setup):
        for kind, ids in rank(scores).items():
            images, labels, predictions = _predict(setup, ids)
            for row, index in enumerate(ids):
                name = setup.examples.names[int(index)]
                strip = strips.draw(
                    images[row], labels[row], predictions[row], setup.info.palette
                )
                score = float(scores[index])
                examples.append(evaluations.Example(kind, str(name), score, strip))
    return examples


def rank(scores: np.ndarray, count: int = 4) -> dict[str, np.ndarray]:
    """Finds the best, typical and worst examples.

    Args:
      scores: float64 [examples], the higher the better; NaN: not scored.
      count: how many of each, at most; no example is there twice.

    Returns:
      Ids by `best`, the best one first; `typical`, those around the median; and
      `worst`, the worst one first. Of fewer than three examples, all are typical; of
      none that is scored, nothing is there.
    """
    num_scored = np.count_nonzero(~np.isnan(scores))
    if not num_scored:
        return {}
    order = np.argsort(scores, kind="stable")[:num_scored]  # NaN comes last.
    count = min(count, num_scored // 3)
    if not count:
        return {"typical": order}
    first = (num_scored - count) // 2
    return {
        "best": order[::-1][:count],
        "typical": order[first : first + count],
        "worst": order[:count],
    }


def _predict(
    setup: evaluation.EvalSetup, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns photos fit to be seen, labels and predictions of some examples."""
    images, labels = setup.examples.read(ids)
    predict = setup.eval_loop.predict
    predictions = [  # One at a time: the model was traced for no batch of this size.
        predict(tf.constant(images[row : row + 1])).numpy() for row in range(len(ids))
    ]
    shown = pictures.to_rgb(images, setup.info.image_format)
    return shown, labels, np.concatenate(predictions)
