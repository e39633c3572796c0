"""How long to train, and what happens how often."""

import dataclasses

from trainer import errors
from trainer.settings import durations, fields

DEFAULT_TRAIN_EPOCHS = 20

MAX_STEPS = 10**8
"""Three years of a step a second; a greater number is a slip of the keyboard."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(fields.Section):
    """How long to train, and what happens how often."""

    batch_size: int = fields.setting(
        64,
        "Examples in a step, over all replicas.",
        minimum=1,
        identity=True,
        maximum=65536,
    )
    gradient_accumulation_steps: int = fields.setting(
        1,
        "Parts into which each device's share of a batch is split, one after the "
        "other, for the memory of one part; --batch_size counts all of them. Only "
        "batch norm differs, whose statistics are those of a part.",
        minimum=1,
        maximum=65536,
        unused_by=("evaluate", "doctor"),
        in_fit=(1,),
    )
    train_epochs: int | None = fields.setting(
        None,
        f"Passes over the training split; default: {DEFAULT_TRAIN_EPOCHS}, unless "
        "--train_steps or --time_budget is given.",
        minimum=0,
        maximum=100_000,
        replaces=("train_steps", "time_budget"),
        unused_by=("evaluate", "doctor"),
    )
    train_steps: int | None = fields.setting(
        None,
        "Steps to train, in place of --train_epochs.",
        minimum=0,
        maximum=MAX_STEPS,
        replaces=("train_epochs", "time_budget"),
        unused_by=("evaluate", "doctor"),
    )
    time_budget: str = fields.setting(
        "",
        "How long the run may take from the start of the process to its end, "
        "evaluations and saves included, such as 90s, 30m or 1h30m, in place of "
        "--train_epochs. What a step, an evaluation and a save take is measured at the "
        "start of a new run; the number of steps that follows is fixed once, in "
        "MODEL_DIR/length.json. A run that was killed trains to that step, however "
        "long it takes then. Where the machine grows slower, so does the run.",
        replaces=("train_epochs", "train_steps"),
        is_saved=False,
        unused_by=("evaluate", "benchmark", "doctor"),
    )
    steps_per_loop: int = fields.setting(
        20,
        "Most steps that run on the device for one call from Python.",
        minimum=1,
        maximum=100_000,
        unused_by=("doctor",),
    )
    epochs_between_evals: int = fields.setting(
        1,
        "Epochs from one evaluation, with a save, to the next.",
        minimum=1,
        maximum=100_000,
        unused_by=("evaluate", "doctor"),
    )
    log_steps: int = fields.setting(
        20,
        "Steps from one log line and TensorBoard point to the next.",
        minimum=1,
        maximum=MAX_STEPS,
        unused_by=("evaluate", "doctor"),
    )
    checkpoint_interval: int = fields.setting(
        0,
        "Steps from one save to the next, besides those at each evaluation; 0: none.",
        minimum=0,
        maximum=MAX_STEPS,
        unused_by=("evaluate", "doctor"),
    )
    max_to_keep: int = fields.setting(
        3,
        "Newest checkpoints to keep, besides the best one.",
        minimum=1,
        maximum=10_000,
        unused_by=("evaluate", "doctor"),
    )
    ema_decay: float = fields.setting(
        0.0,
        "Decay of the moving averages of the weights, which are then what is "
        "evaluated, e.g. 0.999; 0: none.",
        minimum=0.0,
        maximum=0.999999,
        identity=True,
        unused_by=("doctor",),
        in_fit=(0.0,),
    )
    moving_average_warmup: bool = fields.setting(
        True,
        "Limit the momentum of batch norm and --ema_decay to (1 + t) / (10 + t) at "
        "step t, so that initial values are soon forgotten, in short runs too.",
        identity=True,
        legacy=False,
        unused_by=("evaluate", "doctor"),
    )
    summary_images: int = fields.setting(
        4,
        "Evaluation examples shown as pictures in TensorBoard.",
        minimum=0,
        maximum=1000,
        unused_by=("train", "evaluate", "doctor"),
        used_with="watch",
    )

    keep_golden: bool = fields.setting(
        True,
        "Keep eight evaluation photos in MODEL_DIR/golden, by which --mode=export "
        "proves that a file computes what was trained, and pictures of what the model "
        "predicts; --nokeep_golden if nobody may have photos who has the run (for "
        "TensorBoard, --summary_images=0).",
        unused_by=("train", "predict", "export", "doctor", "benchmark"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_budget:
            self._check_budget()
            return
        if self.train_epochs and self.train_steps:
            raise errors.ConfigError(
                f"--train_epochs={self.train_epochs} and "
                f"--train_steps={self.train_steps} both say how long to train; set one "
                "of them to 0."
            )
        if not self.train_epochs and not self.train_steps:
            if self.train_epochs is not None or self.train_steps is not None:
                raise errors.ConfigError(
                    "--train_epochs and --train_steps leave nothing to train; give "
                    "one of them, at least 1."
                )
            object.__setattr__(self, "train_epochs", DEFAULT_TRAIN_EPOCHS)

    def _check_budget(self) -> None:
        try:
            durations.parse(self.time_budget)
        except ValueError as error:
            fields.reject("time_budget", self.time_budget, str(error))
        for name in ("train_epochs", "train_steps"):
            if getattr(self, name):
                raise errors.ConfigError(
                    f"--time_budget={self.time_budget} and "
                    f"--{name}={getattr(self, name)} both say how long to train; leave "
                    "one of them out."
                )
