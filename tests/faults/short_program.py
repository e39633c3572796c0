"""The program with the encoder of `tests.shallow`: `python -m` starts it.

For tests that start many processes. `tests.faults.run` starts the program itself.

With SECS_PER_EXAMPLE in the environment, a picture takes that long to be drawn.
"""

import os
import time

import pytest

from data.sources import synthetic
from tests import shallow
from trainer import main


def _slow_down(patch: pytest.MonkeyPatch, secs: float) -> None:
    draw = synthetic.draw_example

    def draw_slowly(*args):
        time.sleep(secs)
        return draw(*args)

    patch.setattr(synthetic, "draw_example", draw_slowly)


if __name__ == "__main__":
    shallow.shorten(pytest.MonkeyPatch())
    if "SECS_PER_EXAMPLE" in os.environ:
        _slow_down(pytest.MonkeyPatch(), float(os.environ["SECS_PER_EXAMPLE"]))
    main.run()
