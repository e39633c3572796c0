"""The names of the metrics that can be asked for; light, for `--help`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.metrics import metric

METRICS = {
    "boundary_iou": "trainer.metrics.boundary_iou",
    "calibration": "trainer.metrics.calibration",
    "image_iou": "trainer.metrics.image_iou",
}
"""By name, the module that holds a metric, as `make`; see `Metric` for the arguments.

The confusion matrix is not among them: it is always there.
"""


def make(names: Sequence[str], class_names: Sequence[str]) -> list[metric.Metric]:
    """Makes metrics; call it in the scope of the strategy.

    Args:
      names: keys of `METRICS`.
      class_names: the name of each class.
    """
    return [importlib.import_module(METRICS[name]).make(class_names) for name in names]
