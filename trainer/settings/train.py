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
        "Into how many parts each device splits its share of a batch. It takes one "
        "part after the other, in the memory of one. --batch_size counts all parts. "
        "Only batch norm differs: its statistics are those of a part.",
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
        "Steps to train, in place of --train_epochs. Default: none.",
        minimum=0,
        maximum=MAX_STEPS,
        replaces=("train_epochs", "time_budget"),
        unused_by=("evaluate", "doctor"),
    )
    time_budget: str = fields.setting(
        "",
        "How long the run may take, from the start of the process to its end, with "
        "evaluations and saves, such as 90s, 30m or 1h30m; in place of "
        "--train_epochs. A new run measures what a step, an evaluation and a save "
        "take, and notes in MODEL_DIR/length.json how many steps fit. This number "
        "stays: a run that is killed, or whose machine grows slower, trains to that "
        "step and takes longer.",
        replaces=("train_epochs", "train_steps"),
        is_saved=False,
        unused_by=("evaluate", "benchmark", "doctor"),
    )
    steps_per_loop: int = fields.setting(
        20,
        "How many steps, at most, run on the device in one call from Python.",
        minimum=1,
        maximum=100_000,
        unused_by=("doctor",),
    )
    epochs_between_evals: int = fields.setting(
        1,
        "Evaluate, and save before it, every so many epochs; with --mode=train only "
        "save.",
        minimum=1,
        maximum=100_000,
        unused_by=("evaluate", "doctor"),
    )
    log_steps: int = fields.setting(
        20,
        "Write a log line and a TensorBoard point every so many steps.",
        minimum=1,
        maximum=MAX_STEPS,
        unused_by=("evaluate", "doctor"),
    )
    checkpoint_interval: int = fields.setting(
        0,
        "Save every so many steps, besides at each evaluation; 0: only there.",
        minimum=0,
        maximum=MAX_STEPS,
        unused_by=("evaluate", "doctor"),
    )
    max_to_keep: int = fields.setting(
        3,
        "How many checkpoints to keep: the newest ones, and besides them the best one.",
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
        "step t, so that short runs forget the initial values, too.",
        identity=True,
        legacy=False,
        unused_by=("evaluate", "doctor"),
    )
    summary_images: int = fields.setting(
        4,
        "How many evaluation examples TensorBoard shows as pictures.",
        minimum=0,
        maximum=1000,
        unused_by=("train", "evaluate", "doctor"),
        used_with="watch",
    )

    keep_golden: bool = fields.setting(
        True,
        "Keep eight evaluation photos in MODEL_DIR/golden, with which --mode=export "
        "proves that a file computes what was trained, and pictures of what the model "
        "predicts. Give --nokeep_golden if whoever gets the run must not get photos, "
        "and then --summary_images=0 for TensorBoard. What earlier starts kept stays, "
        "named in a warning.",
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
