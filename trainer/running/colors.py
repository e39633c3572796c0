"""Colours of what is written to a terminal, and to nothing else."""

import os
from typing import TextIO

RED, GREEN, YELLOW, BOLD = 31, 32, 33, 1


def paint(text: str, code: int, stream: TextIO) -> str:
    """Colours a text, if its reader sits before a terminal and wants colours.

    Args:
      text: in one line or several.
      code: one of those above.
      stream: where it is about to be written. With `NO_COLOR` in the environment
        (no-color.org) or a terminal that is dumb, there are no colours.
    """
    is_wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if is_wanted and stream.isatty():
        return f"\x1b[{code}m{text}\x1b[0m"
    return text
