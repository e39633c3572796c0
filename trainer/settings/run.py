"""What to do, and where to keep it."""

import dataclasses

from trainer.settings import fields, modes


@dataclasses.dataclass(frozen=True)
class RunConfig(fields.Section):
    """What to do, where to keep it, and how repeatable it must be."""

    mode: str = fields.setting(
        "train_and_evaluate",
        "What to do; predict makes masks of the photos in --input by the model of "
        "--model_dir; doctor looks through the data set, trains nothing, tells what "
        "is wrong and what mends it, and, if there is a trained run in --model_dir, "
        "which masks its model doubts; plan looks through it, too, measures this "
        "machine for some minutes, and writes MODEL_DIR/plan.flags, a flagfile with "
        "reasons, for what to train in --time_budget. What you give away from its "
        "default is not planned; report makes RUN/report.html, a page that opens "
        "offline, of what the folder of a run tells, or those of several, "
        "--model_dir=RUN,RUN2.",
        choices=tuple(modes.MODES),
        is_saved=False,
    )
    model_dir: str = fields.setting(
        "",
        "Folder of the run: settings, checkpoints, TensorBoard data, pictures. With a "
        "URL (s3://, gs://, ...) the run works in a local copy, below $SEGLOOP_CACHE "
        "or the user's cache, and publishes it after each save.",
        is_saved=False,
    )
    checkpoint: str = fields.setting(
        "last",
        "What evaluation, prediction, export and doctor restore: last, best, or the "
        "folder of a checkpoint.",
        is_saved=False,
        only_with={
            "mode": ("evaluate", "predict", "export", "doctor"),
            "watch": (False,),
            "model": ("",),
        },
    )
    model: str = fields.setting(
        "",
        "An exported file in place of the run's model for --mode=evaluate and predict: "
        "the folder that --mode=export wrote, such as RUN/export/onnx. With typed data "
        "flags, it needs no --model_dir.",
        is_saved=False,
        only_with={"mode": ("evaluate", "predict"), "watch": (False,)},
    )
    seed: int = fields.setting(
        0,
        "Seed of initial weights, data order, augmentation and dropout.",
        minimum=0,
        maximum=2**31 - 1,
        identity=True,
    )
    deterministic: bool = fields.setting(
        False,
        "Use only deterministic kernels, so that two runs agree bit for bit (slower "
        "on GPUs). The data order is exact with and without it.",
        is_local=True,
        unused_by=("doctor",),
    )
