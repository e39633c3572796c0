"""The names of the loss terms, and weighted sums of them; light, for `--help`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.losses import weighted_sum

TERMS = {
    "ce": "trainer.losses.cross_entropy",
    "dice": "trainer.losses.dice",
}
"""By name, the module that holds a term, as `make`; see `Term` for the arguments."""


def parse(text: str) -> dict[str, float]:
    """Reads a weighted sum such as `ce+0.5*dice`.

    Returns:
      The weight of each term, in the order of the text.

    Raises:
      ValueError: if it is none; the message says the rule.
    """
    weights = {}
    for part in text.split("+"):
        factor, star, name = part.rpartition("*")
        name = name.strip()
        if name not in TERMS:
            raise ValueError(
                f"{name!r} is no loss; use one of {', '.join(TERMS)}, or a weighted "
                "sum such as ce+0.5*dice"
            )
        if name in weights:
            raise ValueError(f"{name} is there twice; give it one weight, as in 2*ce")
        weights[name] = _read_weight(factor, name) if star else 1.0
    return weights


def _read_weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(
            f"{text.strip()!r} is no weight of {name}; use a number above 0 without an "
            "exponent, as in 0.5*dice"
        )
    return weight


def format_sum(weights: Mapping[str, float]) -> str:
    """Writes the weights of terms as `parse` reads them."""
    return "+".join(
        name if weight == 1 else f"{_format_number(weight)}*{name}"
        for name, weight in weights.items()
    )


def _format_number(number: float) -> str:
    # An exponent's plus sign would look like that of a sum.
    return repr(number).replace("e+", "e")


def make(
    text: str, num_classes: int, class_weights: Sequence[float] | None = None
) -> weighted_sum.WeightedSum:
    """Makes the loss that a text names.

    Args:
      text: as `parse` reads it.
      num_classes: channels of the logits.
      class_weights: one factor for each class; None: all are 1.

    Raises:
      ValueError: if the text is no weighted sum of known terms.
    """
    from trainer.losses import weighted_sum

    terms = {}
    for name, weight in parse(text).items():
        term = importlib.import_module(TERMS[name]).make(num_classes, class_weights)
        terms[name] = weighted_sum.Weighted(weight, term)
    return weighted_sum.WeightedSum(terms)
