"""Standard streams that are closed, as `2>&-` of a shell leaves them."""

import os
import sys

from absl import logging


def open_closed() -> None:
    """Lets each standard stream that is closed lead to nowhere; call it first of all.

    Python has None for such a stream, which most of what writes to it does not expect.
    And the next file that is opened would get its number: what TensorFlow says from C++
    would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number: this one.
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
            if name == "stderr":  # Which absl asked for when it was imported.
                logging.get_absl_handler().python_handler.setStream(stream)
