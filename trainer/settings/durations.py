"""Durations as people write them: 90s, 30m, 1h30m."""

import math
import re

_UNITS = {"h": 3600, "m": 60, "s": 1}
_PATTERN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

MAX_SECS = 30 * 24 * 3600
"""A month."""


def parse(text: str) -> int:
    """Returns the seconds that a duration stands for.

    Args:
      text: whole numbers with h, m or s, the greater unit first, such as 1h30m.

    Raises:
      ValueError: if it is none, or is not between a second and a month.
    """
    match = _PATTERN.fullmatch(text)
    if not match or not text:
        hint = f", {text}m for minutes" if text.isdecimal() else ""
        raise ValueError(
            "give hours, minutes or seconds as whole numbers with their unit, e.g. "
            f"90s, 30m or 1h30m{hint}"
        )
    secs = sum(
        int(number or 0) * unit
        for number, unit in zip(match.groups(), _UNITS.values(), strict=True)
    )
    if not 1 <= secs <= MAX_SECS:
        raise ValueError(f"must be between 1s and {MAX_SECS // 3600}h")
    return secs


def describe(secs: float) -> str:
    """Returns a duration that `parse` takes and that is not shorter, e.g. 1h30m."""
    rest, text = max(1, math.ceil(secs)), ""
    for unit, length in _UNITS.items():
        count, rest = divmod(rest, length)
        text += f"{count}{unit}" if count else ""
    return text
