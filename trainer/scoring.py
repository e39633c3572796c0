"""One pass over the evaluation split, and its report."""

import contextlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from data.stores import reading
from trainer import errors, pictures
from trainer.assembly import evaluation
from trainer.metrics import metric as metric_lib
from trainer.run_folder import criterion, evaluations
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
    config: config_lib.Config, setup: evaluation.EvalSetup, precision: str
) -> evaluations.Scored:
    """Describes what models are scored on, for the line that an evaluation leaves.

    Args:
      config: all settings.
      setup: of the evaluation.
      precision: that the model computes in.
    """
    return evaluations.Scored(
        dataset=config.data.dataset,
        data_dir=config.data.data_dir,
        split=setup.examples.name,
        num_examples=len(setup.examples),
        fingerprint=setup.examples.fingerprint,
        image_size=config.data.image_size,
        eval_native_size=config.data.eval_native_size,
        uses_averages=setup.ema is not None,
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
    images, labels = setup.examples.read(ids)
    with model_to_score(setup):
        predictions = setup.eval_loop.predict(tf.constant(images)).numpy()
    shown = pictures.to_rgb(images, setup.info.image_format)
    return pictures.compare(
        shown,
        labels,
        predictions,
        class_names=setup.info.class_names,
        palette=setup.info.palette,
    )


def format_table(
    values: Mapping[str, float], metrics: Sequence[metric_lib.Metric]
) -> str:
    """Lays out scores for people.

    Args:
      values: of `evaluate`; what a metric has no number for shows as "absent", and a
        metric that was not measured is left out.
      metrics: those to show.
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
    for title, tag in (
        ("training", "train_images_per_sec"),
        ("evaluation", "images_per_sec"),
    ):
        if tag in values:
            lines.append(f"{title:<{width}}  {values[tag]:.0f} images/s")
    return "\n".join(lines)


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
    first, *others = (
        [len(cell) for cell in column] for column in zip(*rows, strict=True)
    )
    return "\n".join(
        "  ".join(
            [
                f"{row[0]:<{max(first)}}",
                *(f"{cell:>{max(w)}}" for cell, w in zip(row[1:], others, strict=True)),
            ]
        )
        for row in rows
    )


def _format(value: float | None) -> str:
    return "absent" if metric_lib.is_missing(value) else f"{value:.4f}"
