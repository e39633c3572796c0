"""The names of the loss terms, and weighted sums of them; light, for `--help`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from trainer.losses import weighted_sum


class Row(NamedTuple):
    """What is known of a term before it is made.

    Attributes:
      module: what holds the term, as `make`; see `Term` for the arguments.
      about: what `--help` says of it.
      options: names of what `make` takes besides, as keywords; each is the name of a
        setting, too.
    """

    module: str
    about: str
    options: tuple[str, ...] = ()


TERMS = {
    "ce": Row(
        "trainer.losses.cross_entropy",
        "cross-entropy",
        options=("label_smoothing", "loss_top_k"),
    ),
    "focal": Row(
        "trainer.losses.focal",
        "cross-entropy that counts pixels less that are predicted well already",
        options=("focal_gamma",),
    ),
    "boundary": Row(
        "trainer.losses.boundary",
        "cross-entropy that counts pixels more that are near a boundary of classes",
        options=("boundary_weight", "boundary_width"),
    ),
    "dice": Row("trainer.losses.dice", "soft Dice of the batch of all devices"),
    "jaccard": Row("trainer.losses.jaccard", "soft IoU of the batch of all devices"),
    "tversky": Row(
        "trainer.losses.tversky",
        "Dice with one weight for false positives and one for false negatives",
        options=("tversky_alpha", "tversky_beta"),
    ),
    "lovasz": Row(
        "trainer.losses.lovasz",
        "Lovasz-Softmax, the IoU of each image (slower: it sorts)",
    ),
}


def terms_with(option: str) -> tuple[str, ...]:
    """Returns the names of the terms that take an option."""
    return tuple(name for name, row in TERMS.items() if option in row.options)


def options_of(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the options that terms take, each once."""
    taken = [option for name in names for option in TERMS[name].options]
    return tuple(dict.fromkeys(taken))


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
    text: str,
    num_classes: int,
    class_weights: Sequence[float] | None = None,
    options: Mapping[str, object] | None = None,
) -> weighted_sum.WeightedSum:
    """Makes the loss that a text names.

    Args:
      text: as `parse` reads it.
      num_classes: channels of the logits.
      class_weights: one factor for each class; None: all are 1.
      options: of the terms, by the registry's names; those that are missing are as the
        terms have them by default.

    Raises:
      ValueError: if the text is no weighted sum of known terms, or if none of its terms
        takes an option.
    """
    from trainer.losses import weighted_sum

    weights, options = parse(text), options or {}
    if unknown := sorted(set(options) - set(options_of(weights))):
        raise ValueError(f"{text} does not take {', '.join(unknown)}")
    terms = {}
    for name, weight in weights.items():
        row = TERMS[name]
        taken = {key: options[key] for key in row.options if key in options}
        module = importlib.import_module(row.module)
        term = module.make(num_classes, class_weights, **taken)
        terms[name] = weighted_sum.Weighted(weight, term)
    return weighted_sum.WeightedSum(terms)
