"""The scores of an evaluation as tables, for people at a terminal."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.metrics import metric as metric_lib
from trainer.running import colors

_MOST_COLUMNS = 12
"""A wider table would not fit on a screen."""


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
