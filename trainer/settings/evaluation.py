"""What evaluation measures."""

import dataclasses

from trainer.metrics import registry
from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(fields.Section):
    """What evaluation measures."""

    metrics: tuple[str, ...] = fields.setting(
        (),
        "Scores of the evaluation besides those of the confusion matrix, which cost "
        f"time: {', '.join(registry.METRICS)}.",
        unused_by=("train", "doctor"),
    )

    best_metric: str = fields.setting(
        "mean_iou",
        "The score of the evaluation by which the best checkpoint is chosen, such as "
        "mean_iou, iou/NAME of a class, pixel_accuracy or loss.",
        unused_by=("train", "evaluate", "doctor", "benchmark"),
    )
    early_stopping_patience: int = fields.setting(
        0,
        "End the run after so many evaluations without a better --best_metric; 0: "
        "train to the end.",
        minimum=0,
        maximum=100_000,
        unused_by=("train", "evaluate", "doctor", "benchmark"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.metrics:
            if name not in registry.METRICS:
                fields.reject(
                    "metrics",
                    self.metrics,
                    f"{name!r} is no metric; use {', '.join(registry.METRICS)}",
                )
            if self.metrics.count(name) > 1:
                fields.reject("metrics", self.metrics, f"{name} is there twice")
