"""A plan as a flagfile: each flag with the reason for it in a comment above."""

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.planning import notes, search
from trainer.settings import durations, fields

_WIDTH = 88


def describe(
    plan: search.Plan,
    given: Mapping[str, Any],
    *,
    path: str,
    time_budget: str,
    machine: str,
    warnings: Sequence[str] = (),
) -> str:
    """Returns the text of the file.

    Args:
      plan: what was chosen.
      given: the other settings that are not as they would be, by name.
      path: of the file.
      time_budget: that was planned for.
      machine: where it was measured.
      warnings: what is said of the data set.
    """
    lines = [
        f"# What fits into --time_budget={time_budget} on {machine}.",
        "#",
        f"#   python -m trainer.main --flagfile={shlex.quote(path)} "
        "--model_dir=runs/NAME",
        "#",
        f"# Predicted: {durations.describe(plan.secs)} from start to end, "
        f"{plan.memory_bytes / 2**30:.1f} GiB of memory.",
        "",
    ]
    for warning in warnings:
        lines += [*_comment(f"The data: {warning}."), ""]
    if given:
        lines += ["# As given.", *(_flag(n, value) for n, value in given.items()), ""]
    for names in _group(plan.choices):
        reasons = [plan.choices[name].reason for name in names]
        lines += _comment("; ".join(filter(None, reasons)) or "The recipe")
        lines += [_flag(name, plan.choices[name].value) for name in names]
    return "\n".join(lines) + "\n"


def _group(choices: Mapping[str, notes.Choice]) -> Iterator[list[str]]:
    """Yields names of settings; those without a reason follow one that has theirs."""
    group: list[str] = []
    for name, choice in choices.items():
        if choice.reason and group:
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)]


def _flag(name: str, value: Any) -> str:
    return f"--{name}={fields.format_value(value)}"
