"""One pass over the evaluation split, and its report."""

import contextlib
import pathlib
import time

import numpy as np
import tensorflow as tf

from data import store
from trainer import experiment, metrics, pictures

_REPORT_EXAMPLES = 6
"""Rows of the picture that ends a run."""


def evaluate(setup: experiment.EvalSetup) -> dict[str, float]:
    """Scores the model on the whole split, each example once.

    Where the run keeps moving averages of the weights, those are the model.

    Returns:
      `loss`, `images_per_sec` and what `metrics.scores` gives, by name.
    """
    with _model_to_score(setup):
        return _evaluate(setup)


def _model_to_score(setup: experiment.EvalSetup):
    """Returns a context in which the model has the weights that count."""
    return setup.ema.applied() if setup.ema else contextlib.nullcontext()


def _evaluate(setup: experiment.EvalSetup) -> dict[str, float]:
    started = time.perf_counter()
    setup.eval_loop.reset()
    steps_per_loop = setup.config.train.steps_per_loop
    for first in range(0, setup.num_batches, steps_per_loop):
        count = min(steps_per_loop, setup.num_batches - first)
        try:
            setup.eval_loop.score(setup.iterator, count)
        except store.READ_ERRORS:
            setup.read_again(first, first + count)
            raise
    loss, confusion = setup.eval_loop.result()
    return {
        "loss": loss,
        **metrics.scores(confusion, setup.info.class_names),
        "images_per_sec": len(setup.examples) / (time.perf_counter() - started),
    }


def draw_examples(setup: experiment.EvalSetup, num_examples: int) -> np.ndarray:
    """Draws photo, truth and prediction of examples from all over the split.

    Returns:
      uint8 [rows, columns, 3].
    """
    num_examples = min(num_examples, len(setup.examples))
    ids = np.linspace(0, len(setup.examples) - 1, num_examples, dtype=np.int64)
    images, labels = setup.examples.read(ids)
    with _model_to_score(setup):
        predictions = setup.eval_loop.predict(tf.constant(images)).numpy()
    return pictures.compare(images, labels, predictions, setup.info.palette)


def write_picture(setup: experiment.EvalSetup, path: pathlib.Path) -> None:
    """Writes a picture of a few examples.

    Raises:
      errors.WriteError: if that fails.
    """
    pictures.write_png(path, draw_examples(setup, _REPORT_EXAMPLES))


def format_table(values: dict[str, float], class_names: tuple[str, ...]) -> str:
    """Lays out scores for people.

    Args:
      values: of `evaluate`; what is missing shows as "absent".
      class_names: the name of each class.
    """
    titles = {"pixel_accuracy": "pixel accuracy", "mean_iou": "mean IoU"}
    titles |= {f"iou/{name}": f"IoU {name}" for name in class_names}
    width = max(map(len, titles.values()))
    remarks = _remark_on_classes(values, class_names)
    lines = []
    for tag, title in titles.items():
        remark = f"  ({remarks[tag]})" if tag in remarks else ""
        lines.append(f"{title:<{width}}  {_format(values.get(tag))}{remark}")
    for title, tag in (
        ("training", "train_images_per_sec"),
        ("evaluation", "images_per_sec"),
    ):
        if tag in values:
            lines.append(f"{title:<{width}}  {values[tag]:.0f} images/s")
    return "\n".join(lines)


def _remark_on_classes(
    values: dict[str, float], class_names: tuple[str, ...]
) -> dict[str, str]:
    """Says by tag which classes have no pixel in the masks, and what that means."""
    remarks, num_counted = {}, 0
    for name in class_names:
        if _is_absent(values.get(f"iou/{name}")):
            remarks[f"iou/{name}"] = "neither in the masks nor predicted"
            continue
        num_counted += 1
        if _is_absent(values.get(f"recall/{name}")):
            remarks[f"iou/{name}"] = "predicted, but not in the masks"
    if remarks:
        remarks["mean_iou"] = f"of {num_counted} of the {len(class_names)} classes"
    return remarks


def _is_absent(value: float | None) -> bool:
    return value is None or np.isnan(value)


def _format(value: float | None) -> str:
    return "absent" if _is_absent(value) else f"{value:.4f}"
