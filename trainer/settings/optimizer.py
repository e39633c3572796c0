"""How weights are updated."""

import dataclasses

from trainer.settings import fields
from trainer.settings.train import MAX_STEPS


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(fields.Section):
    """How weights are updated."""

    optimizer: str = fields.setting(
        "adam",
        "The optimizer.",
        choices=("adam", "adamw", "sgd"),
        identity=True,
        unused_by=("evaluate", "doctor"),
        in_fit=("adam",),
    )
    learning_rate: float = fields.setting(
        1e-3,
        "Peak learning rate, reached after the warm-up.",
        minimum=0.0,
        unused_by=("evaluate", "doctor"),
    )
    encoder_lr_multiplier: float = fields.setting(
        1.0,
        "What multiple of the learning rate a trained encoder has, weight decay "
        "included.",
        minimum=1e-6,
        maximum=1e3,
        only_with={"freeze_encoder": (False,)},
        unused_by=("evaluate", "doctor"),
        in_fit=(1.0,),
    )
    lr_schedule: str = fields.setting(
        "constant",
        "Course of the learning rate after the warm-up; cosine and polynomial end at "
        "0.",
        choices=("constant", "cosine", "polynomial"),
        unused_by=("evaluate", "doctor"),
        in_fit=("constant",),
    )
    polynomial_power: float = fields.setting(
        0.9,
        "Exponent of --lr_schedule=polynomial.",
        minimum=0.0,
        only_with={"lr_schedule": ("polynomial",)},
        unused_by=("evaluate", "doctor"),
    )
    warmup_steps: int = fields.setting(
        0,
        "Steps over which the learning rate rises linearly from 0.",
        minimum=0,
        maximum=MAX_STEPS,
        unused_by=("evaluate", "doctor"),
        in_fit=(0,),
    )
    momentum: float = fields.setting(
        0.9,
        "Momentum of --optimizer=sgd.",
        minimum=0.0,
        maximum=1.0,
        only_with={"optimizer": ("sgd",)},
        unused_by=("evaluate", "doctor"),
    )
    weight_decay: float = fields.setting(
        0.0,
        "Decoupled weight decay of adamw and sgd.",
        minimum=0.0,
        only_with={"optimizer": ("adamw", "sgd")},
        unused_by=("evaluate", "doctor"),
    )
    global_clipnorm: float = fields.setting(
        0.0,
        "Bound on the norm of all gradients together; 0: none.",
        minimum=0.0,
        unused_by=("evaluate", "doctor"),
        in_fit=(0.0,),
    )
