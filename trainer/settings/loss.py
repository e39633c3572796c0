"""What training minimizes."""

import dataclasses
import math

from trainer.losses import registry
from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class LossConfig(fields.Section):
    """What training minimizes."""

    loss: str = fields.setting(
        "ce",
        f"Loss: one of {', '.join(registry.TERMS)}, or a weighted sum of them, e.g. "
        "ce+0.5*dice. Each has a curve of its own.",
        identity=True,
        unused_by=("doctor",),
        in_fit=("ce",),
    )
    class_weights: tuple[str, ...] = fields.setting(
        (),
        "Weights of the classes in the training loss: balanced (inverse of their "
        "pixels in the training split), inverse_sqrt (of the square root of these), or "
        "one number for each class; empty: all the same.",
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
