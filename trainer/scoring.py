"""One pass over the evaluation split, and its report."""

import contextlib
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data.stores import reading
from trainer import errors, pictures, strips
from trainer.assembly import evaluation
from trainer.metrics import metric as metric_lib
from trainer.run_folder import criterion, evaluations
from trainer.running import colors
from trainer.settings import config as config_lib
from trainer.steps import evaluation as evaluation_steps

_MOST_COLUMNS = 12
"""A wider table would not fit on a screen."""


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
        try:
            setup.eval_loop.score(setup.iterator, count)
        except reading.READ_ERRORS:
            setup.read_again(first, first + count)
            raise
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


def describe(
    config: config_lib.Config, setup: evaluation.EvalSetup
) -> evaluations.Scored:
    """Describes what models are scored on, for the line that an evaluation leaves."""
    return evaluations.Scored(
        dataset=config.data.dataset,
        data_dir=config.data.data_dir,
        split=setup.examples.name,
        num_examples=len(setup.examples),
        fingerprint=setup.examples.fingerprint,
        image_size=config.data.image_size,
        eval_native_size=config.data.eval_native_size,
        uses_averages=setup.ema is not None,
        precision=setup.model.dtype_policy.name,
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
      scores: float64 [examples], better the higher; NaN counts for none.
      count: how many of each, at most; none is there twice.

    Returns:
      Ids by `best`, the best one first; `typical`, those around the median; and
      `worst`, the worst one first. Of fewer than three examples, all are typical.
    """
    num_scored = np.count_nonzero(~np.isnan(scores))
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


def format_table(
    values: Mapping[str, float],
    metrics: Sequence[metric_lib.Metric],
    counts: np.ndarray | None = None,
) -> str:
    """Lays out scores for people: those of all pixels, of each class, and the speed.

    Args:
      values: of `evaluate`; what a metric has no number for shows as "absent", of a
        class as "-", and a metric that was not measured is left out.
      metrics: those to show.
      counts: of the confusion matrix, for the classes' shares of the pixels, or None.
    """
    metrics = [m for m in metrics if not values.keys().isdisjoint(m.titles)]
    rows = [
        (title, values.get(tag), metric.remarks(values).get(tag))
        for metric in metrics
        for tag, title in metric.titles.items()
    ]
    width = max((len(title) for title, _, _ in rows), default=0)
    lines = [
        f"{title:<{width}}  {_format(value)}" + (f"  ({remark})" if remark else "")
        for title, value, remark in rows
    ]
    lines += ["", *_lay_out_classes(values, metrics, counts), ""]
    for title, tag in (
        ("training", "train_images_per_sec"),
        ("evaluation", "images_per_sec"),
    ):
        if tag in values:
            lines.append(f"{title:<{width}}  {values[tag]:.0f} images/s")
    return "\n".join(lines).strip()


def _lay_out_classes(
    values: Mapping[str, float],
    metrics: Sequence[metric_lib.Metric],
    counts: np.ndarray | None,
) -> list[str]:
    """Makes a table of the classes in rows, and their scores in columns."""
    columns = {tag: title for m in metrics for tag, title in m.class_titles.items()}
    if not columns:
        return []
    shares, heads = None, ["class", *columns.values()]
    if counts is not None:
        heads.append("of pixels")
        shares = counts.sum(axis=1) / max(counts.sum(), 1)
    remarks = {k: v for m in metrics for k, v in m.remarks(values).items()}
    rows, said = [heads], [""]
    for index, name in enumerate(metrics[0].class_names):
        scores = [values.get(f"{tag}/{name}") for tag in columns]
        row = [name, *("-" if metric_lib.is_missing(s) else _format(s) for s in scores)]
        rows.append(row if shares is None else [*row, f"{shares[index]:.1%}"])
        said.append(f"  ({remarks[name]})" if name in remarks else "")
    head, *others = map("".join, zip(_align(rows), said, strict=True))
    return [colors.paint(head, colors.BOLD, sys.stdout), *others]


def format_confusion(counts: np.ndarray, class_names: Sequence[str]) -> str:
    """Lays out a confusion matrix: what share of each true class is taken for which.

    Args:
      counts: of pixels, [classes, classes]: rows are true, columns predicted classes.
      class_names: of the classes; of more than 12, the table is left out.

    Returns:
      A line with the predicted classes, and one for each true class; empty without a
      table.
    """
    if len(class_names) > _MOST_COLUMNS:
        return ""
    rows = [["true \\ predicted", *class_names]]
    for name, row in zip(class_names, counts, strict=True):
        total = row.sum()
        rows.append([name, *(f"{n / total:.1%}" if total else "-" for n in row)])
    head, *others = _align(rows)
    return "\n".join([colors.paint(head, colors.BOLD, sys.stdout), *others])


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Makes lines of rows, the first column to the left, the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join(
            [
                f"{name:<{first}}",
                *(f"{cell:>{w}}" for cell, w in zip(cells, others, strict=True)),
            ]
        )
        for name, *cells in rows
    ]


def _format(value: float | None) -> str:
    return "absent" if metric_lib.is_missing(value) else f"{value:.4f}"
