"""What to do, and where to keep it."""

import dataclasses

from trainer.settings import fields, modes


@dataclasses.dataclass(frozen=True)
class RunConfig(fields.Section):
    """What to do, where to keep it, and how repeatable it must be."""

    mode: str = fields.setting(
        "train_and_evaluate",
        "What to do. train_and_evaluate: train, and evaluate every "
        "--epochs_between_evals epochs; train: train only; evaluate: score a "
        "checkpoint of the run in --model_dir; predict: make masks of the photos in "
        "--input; export: write the model as files for other programs; benchmark: "
        "measure how fast training is, and what limits it; doctor: look through the "
        "data set, and tell what is wrong and what mends it, and, if there is a "
        "trained run in --model_dir, which masks its model doubts; plan: look through "
        "the data set, measure this machine for some minutes, and write "
        "MODEL_DIR/plan.flags, a flagfile with reasons, for what to train in "
        "--time_budget (what you give away from its default stays as it is); report: "
        "make RUN/report.html, a page about the run that opens offline, or one about "
        "several with --model_dir=RUN,RUN2.",
        choices=tuple(modes.MODES),
        is_saved=False,
    )
    model_dir: str = fields.setting(
        "",
        "Folder of the run: settings, checkpoints, TensorBoard data, pictures. At a "
        "URL (s3://, gs://, ...) the run works in a local copy, below $SEGLOOP_CACHE "
        "or the user's cache, and uploads what it adds after each save.",
        is_saved=False,
    )
    checkpoint: str = fields.setting(
        "last",
        "Which checkpoint evaluation, prediction, export and doctor restore: last, "
        "best, or the folder of a checkpoint.",
        is_saved=False,
        only_with={
            "mode": ("evaluate", "predict", "export", "doctor"),
            "watch": (False,),
            "model": ("",),
        },
    )
    model: str = fields.setting(
        "",
        "The folder of an exported file, such as RUN/export/onnx, which "
        "--mode=evaluate and predict then use in place of the run's model. If the "
        "flags of a data set are typed, it needs no --model_dir.",
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
        "on GPUs). The order of the examples is the same in two runs with or without "
        "this flag.",
        is_local=True,
        unused_by=("doctor",),
    )
