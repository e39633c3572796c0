"""How weights are updated."""

import dataclasses
import math

from trainer.settings import fields
from trainer.settings.train import MAX_STEPS


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(fields.Section):
    """How weights are updated."""

    optimizer: str = fields.setting(
        "adam",
        "The optimizer.",
        choices=("adam", "adamw", "sgd", "lion"),
        identity=True,
        unused_by=("evaluate", "doctor"),
        in_fit=("adam",),
    )
    learning_rate: float | None = fields.setting(
        None,
        "Peak learning rate, reached after the warm-up. Default, with b for "
        "--batch_size: 1e-3 sqrt(b / 64) for adam and adamw, a tenth of it for lion, "
        "1e-2 b / 16 for sgd.",
        minimum=0.0,
        unused_by=("evaluate", "doctor"),
    )
    encoder_lr_multiplier: float = fields.setting(
        1.0,
        "By what the learning rate and the weight decay of a trained encoder are "
        "multiplied.",
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
        "Decoupled weight decay of adamw, sgd and lion.",
        minimum=0.0,
        only_with={"optimizer": ("adamw", "sgd", "lion")},
        unused_by=("evaluate", "doctor"),
    )
    global_clipnorm: float = fields.setting(
        0.0,
        "Upper bound on the norm of all gradients together; 0: none.",
        minimum=0.0,
        unused_by=("evaluate", "doctor"),
        in_fit=(0.0,),
    )


def default_learning_rate(optimizer: str, batch_size: int) -> float:
    """Returns the learning rate of a run that names none, of three digits.

    That of Adam grows with the square root of the batch, as its steps are of one size
    and only their noise shrinks (Malladi et al., NeurIPS 2022, arXiv:2205.10287); that
    of SGD in proportion (Goyal et al., arXiv:1706.02677). Lion's steps are larger: its
    authors take a tenth to a third of Adam's rate (Chen et al., NeurIPS 2023,
    arXiv:2302.06675).

    Args:
      optimizer: a choice of `--optimizer`.
      batch_size: rows of a step, over all replicas.
    """
    rate = {
        "adam": 1e-3 * math.sqrt(batch_size / 64),
        "lion": 1e-4 * math.sqrt(batch_size / 64),
        "sgd": 1e-2 * batch_size / 16,
    }[optimizer.removesuffix("w")]
    return float(f"{rate:.3g}")
