"""What training minimizes."""

import dataclasses
import math

from trainer.losses import registry
from trainer.settings import fields


def _describe_terms() -> str:
    """Returns what `--help` says of the terms."""
    return "; ".join(f"{name}: {row.about}" for name, row in registry.TERMS.items())


def _terms_in(text: str) -> tuple[str, ...] | None:
    """Returns the names of the terms in a sum, None if it is none."""
    try:
        return tuple(registry.parse(text))
    except ValueError:
        return None


@dataclasses.dataclass(frozen=True)
class LossConfig(fields.Section):
    """What training minimizes.

    What the registry names as an option of a term is a setting of the same name here,
    that has a meaning only where the sum has a term that takes it.
    """

    loss: str = fields.setting(
        "ce",
        "Loss: one of the following, or a weighted sum of them, e.g. ce+0.5*dice. Each "
        f"has a curve of its own. {_describe_terms()}.",
        parts=_terms_in,
        identity=True,
        unused_by=("doctor",),
        in_fit=("ce",),
    )
    label_smoothing: float = fields.setting(
        0.0,
        "For ce: the share of a pixel's label that is shared equally by all classes.",
        minimum=0.0,
        maximum=0.95,
        identity=True,
        only_with={"loss": registry.terms_with("label_smoothing")},
        unused_by=("doctor",),
        in_fit=(0.0,),
    )
    loss_top_k: float = fields.setting(
        1.0,
        "For ce: the share of the valid pixels of each image that count, those with "
        "the highest loss; 1: all of them.",
        minimum=0.001,
        maximum=1.0,
        identity=True,
        only_with={"loss": registry.terms_with("loss_top_k")},
        unused_by=("doctor",),
        in_fit=(1.0,),
    )
    focal_gamma: float = fields.setting(
        2.0,
        "For focal: the cross-entropy of a pixel is multiplied by (1 - p)^gamma, "
        "where p is the probability of its class.",
        minimum=0.0,
        maximum=20.0,
        identity=True,
        only_with={"loss": registry.terms_with("focal_gamma")},
        unused_by=("doctor",),
    )
    boundary_weight: float = fields.setting(
        5.0,
        "For boundary: how many times a pixel near a boundary counts.",
        minimum=1.0,
        maximum=1000.0,
        identity=True,
        only_with={"loss": registry.terms_with("boundary_weight")},
        unused_by=("doctor",),
    )
    boundary_width: int = fields.setting(
        3,
        "For boundary: a pixel is near a boundary if a pixel of another class is at "
        "most so many pixels away.",
        minimum=1,
        maximum=1024,
        identity=True,
        only_with={"loss": registry.terms_with("boundary_width")},
        unused_by=("doctor",),
    )
    tversky_alpha: float = fields.setting(
        0.3,
        "For tversky: the weight of false positives. With 0.5 and 0.5 for alpha and "
        "beta it is dice, with 1 and 1 jaccard.",
        minimum=0.0,
        maximum=100.0,
        identity=True,
        only_with={"loss": registry.terms_with("tversky_alpha")},
        unused_by=("doctor",),
    )
    tversky_beta: float = fields.setting(
        0.7,
        "For tversky: the weight of false negatives.",
        minimum=0.01,
        maximum=100.0,
        identity=True,
        only_with={"loss": registry.terms_with("tversky_beta")},
        unused_by=("doctor",),
    )
    class_weights: tuple[str, ...] = fields.setting(
        (),
        "Weights of the classes in the training loss. balanced: the inverse of their "
        "pixels in the training split; inverse_sqrt: the inverse of the square root "
        "of these; or one number for each class. Empty: all the same.",
        unused_by=("evaluate",),
        in_fit=((),),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            weights = registry.parse(self.loss)
        except ValueError as error:
            fields.reject("loss", self.loss, str(error))
        # A run of `ce` is the same as one of `1*ce`.
        object.__setattr__(self, "loss", registry.format_sum(weights))
        self._check_class_weights()

    def options(self) -> dict[str, object]:
        """Returns what the terms take of these settings, by the registry's names."""
        names = registry.options_of(registry.parse(self.loss))
        return {name: getattr(self, name) for name in names}

    def _check_class_weights(self) -> None:
        if self.class_weights in ((), ("balanced",), ("inverse_sqrt",)):
            return
        try:
            numbers = [float(item) for item in self.class_weights]
        except ValueError:
            numbers = []
        is_usable = all(math.isfinite(n) and n >= 0 for n in numbers) and any(numbers)
        if not is_usable:
            fields.reject(
                "class_weights",
                self.class_weights,
                "use balanced, inverse_sqrt, or numbers from 0 on that are not all 0",
            )
