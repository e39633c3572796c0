"""What evaluation measures."""

import dataclasses

from trainer.metrics import groups, registry
from trainer.settings import fields
from trainer.settings import variants as variants_lib


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(fields.Section):
    """What evaluation measures."""

    metrics: tuple[str, ...] = fields.setting(
        (),
        "Scores of the evaluation besides those of the confusion matrix, which cost "
        f"time: {', '.join(registry.METRICS)}.",
        unused_by=("train", "doctor"),
    )
    tta: tuple[str, ...] = fields.setting(
        (),
        "Test-time augmentation: evaluation and prediction take the mean of the "
        "probabilities for the image and variants of it: flip, its mirror image; "
        "numbers from 0.25 to 4, the image resized by each, mirrored, too, beside "
        "flip. E.g. "
        "flip,0.75,1.25; each variant takes one more pass through the model.",
        unused_by=("train", "doctor"),
        in_fit=((),),
    )

    merge_classes: tuple[str, ...] = fields.setting(
        (),
        "Groups of classes that are scored as one, NAME=CLASS+CLASS,..., e.g. "
        "foreground=body+border: their probabilities are summed, and all scores are "
        "of the groups and of the classes in none; the loss stays that of the trained "
        "classes.",
        is_saved=False,
        unused_by=(
            "train",
            "train_and_evaluate",
            "benchmark",
            "doctor",
        ),
    )

    watch: bool = fields.setting(
        False,
        "Let --mode=evaluate score each new checkpoint of a training that runs in "
        "--model_dir in another process, and end when that has ended, or gives no "
        "heartbeat any more. Where there is no checkpoint yet it waits, for ten "
        "minutes if no training is there, either. If the training makes no evaluations "
        "(--mode=train), the best checkpoint is the best of these.",
        is_saved=False,
        only_with={
            "mode": ("evaluate",),
            "distribution_strategy": ("mirrored", "one_device"),
        },
    )
    best_metric: str = fields.setting(
        "mean_iou",
        "The score of the evaluation by which the best checkpoint is chosen, such as "
        "mean_iou, iou/NAME of a class, pixel_accuracy or loss.",
        unused_by=("train", "evaluate", "doctor", "benchmark"),
        used_with="watch",
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
        fields.check_names("metrics", self.metrics, registry.METRICS, "metric")
        try:
            variants_lib.parse(self.tta)
        except ValueError as error:
            fields.reject("tta", self.tta, str(error))

        try:
            groups.parse(self.merge_classes)
        except ValueError as error:
            fields.reject("merge_classes", self.merge_classes, str(error))

    @property
    def variants(self) -> variants_lib.Variants:
        """What `tta` stands for."""
        return variants_lib.parse(self.tta)
