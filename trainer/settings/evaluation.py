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
        "More scores of the evaluation, which cost time: "
        f"{', '.join(registry.METRICS)}.",
        unused_by=("train", "doctor"),
    )
    tta: tuple[str, ...] = fields.setting(
        (),
        "Test-time augmentation: evaluation and prediction take the mean of the "
        "probabilities for the image and for variants of it. flip: its mirror image; "
        "numbers from 0.25 to 4: the image resized by each, with flip mirrored, too. "
        "E.g. flip,0.75,1.25. Each variant takes one more pass through the model.",
        unused_by=("train", "doctor"),
        in_fit=((),),
    )

    merge_classes: tuple[str, ...] = fields.setting(
        (),
        "Groups of classes that are scored as one, NAME=CLASS+CLASS,..., e.g. "
        "foreground=body+border. Their probabilities are summed. All scores are those "
        "of the groups and of the classes in none; the loss is still that of the "
        "trained classes.",
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
        "Let --mode=evaluate score each new checkpoint of a training that another "
        "process runs in --model_dir, and end when the training has ended, or no "
        "longer gives a heartbeat. It waits for the first checkpoint, but only ten "
        "minutes if nobody trains. If the training makes no evaluations "
        "(--mode=train), these scores choose its best checkpoint.",
        is_saved=False,
        only_with={
            "mode": ("evaluate",),
            "distribution_strategy": ("mirrored", "one_device"),
        },
    )
    best_metric: str = fields.setting(
        "mean_iou",
        "The score of the evaluation that chooses the best checkpoint, such as "
        "mean_iou, iou/NAME of a class, pixel_accuracy or loss.",
        unused_by=("train", "evaluate", "doctor", "benchmark"),
        used_with="watch",
    )
    early_stopping_patience: int = fields.setting(
        0,
        "End the run after so many evaluations in a row without a better "
        "--best_metric; 0: train to the end.",
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
