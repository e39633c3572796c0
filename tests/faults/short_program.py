"""The program with the encoder of `tests.shallow`: `python -m` starts it.

For tests that start many processes. `tests.faults.run` starts the program itself.

What the environment asks for besides keeps a test from having to be quick:

  SECS_PER_EXAMPLE  a picture takes that long to be drawn
  SECS_PER_FILE     a file that is whole takes that long to get its name
  DRAWN_FILE        is made once `MANY_DRAWN` pictures are drawn
  HOLD_AT, HOLD_IN  steps, such as 0,20, and a folder: after so many steps the program
                    waits; see `Hold`
  HOLD_REPORT       a file; is made once a training is about to tell its scores, and
                    waits to be killed
  HOLD_EXPORT       an export waits to be killed before it publishes
  MEASURING_SECS    a part of a run is measured for so long, whatever the budget
"""

import itertools
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from data.sources import synthetic
from trainer import main

MANY_DRAWN = 400
"""More than are read ahead of the steps."""
_POLL_SECS = 0.02
_PATIENCE_SECS = 900.0
"""For a test that has itself come to an end."""


class Hold:
    """Where a run waits, as a test sees it: what it then does finds the run there."""

    def __init__(self, folder: pathlib.Path, steps: str):
        """Makes a folder for the notes of both sides.

        Args:
          folder: to be made.
          steps: after which the program waits, once each; 0: before the first.
        """
        folder.mkdir()
        self._folder = folder
        self.environment = {"HOLD_AT": steps, "HOLD_IN": str(folder)}

    def is_held(self, step: int, count: int = 1) -> bool:
        """Tells whether so many processes wait after a step."""
        return len(list(self._folder.glob(f"held-{step}-*"))) >= count

    def release(self, step: int, *, watch_speed: int = 1) -> None:
        """Lets all go on from a step.

        Args:
          step: where they wait, or will come by.
          watch_speed: how many times as fast time goes by from then on for the watch
            that ends a run without progress.
        """
        partial = self._folder / "partial"
        partial.write_text(str(watch_speed))
        partial.rename(self._folder / f"go-{step}")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("Nobody lets this program go on.")
        time.sleep(_POLL_SECS)


def _hold_at(patch: pytest.MonkeyPatch, steps: set[int], folder: pathlib.Path) -> None:
    from trainer.loop import loop

    advance = loop.Loop._advance

    def hold_and_advance(self, batches):
        step = self._setup.step
        if step in steps and not (folder / f"go-{step}").exists():
            _wait_for_release(folder, step)
        advance(self, batches)

    patch.setattr(loop.Loop, "_advance", hold_and_advance)


def _wait_for_release(folder: pathlib.Path, step: int) -> None:
    from trainer.running import stall

    go = folder / f"go-{step}"
    (folder / f"held-{step}-{os.getpid()}").touch()
    _wait_until(go.exists)
    is_over, speed = stall._current._is_over, int(go.read_text())
    wait = is_over.wait
    is_over.wait = lambda secs: wait(secs / speed)


def _hold_export(patch: pytest.MonkeyPatch) -> None:
    from trainer.exporting import publishing

    patch.setattr(publishing, "publish", lambda *_: _wait_until(lambda: False))


def _hold_report(patch: pytest.MonkeyPatch, file: pathlib.Path) -> None:
    from trainer.evaluating import closing

    def hold(*_):
        file.touch()
        _wait_until(lambda: False)

    patch.setattr(closing, "print_report", hold)


def _slow_down(
    patch: pytest.MonkeyPatch, owner: object, name: str, secs: float
) -> None:
    original, turn = getattr(owner, name), threading.Lock()

    def do_slowly(*args):
        with turn:  # Or many at a time would be as fast as before.
            time.sleep(secs)
        return original(*args)

    patch.setattr(owner, name, do_slowly)


def _note_drawing(patch: pytest.MonkeyPatch, file: pathlib.Path) -> None:
    draw, numbers = synthetic.draw_example, itertools.count(1)

    def draw_and_note(*args):
        if next(numbers) == MANY_DRAWN:
            file.touch()
        return draw(*args)

    patch.setattr(synthetic, "draw_example", draw_and_note)


def _measure_for(patch: pytest.MonkeyPatch, secs: float) -> None:
    from trainer.planning import budget

    patch.setattr(budget, "_MOST_SECS", secs)


def _change(patch: pytest.MonkeyPatch, asked: Mapping[str, str]) -> None:
    """Changes the program as the environment asks for."""
    if "SECS_PER_EXAMPLE" in asked:
        secs = float(asked["SECS_PER_EXAMPLE"])
        _slow_down(patch, synthetic, "draw_example", secs)
    if "SECS_PER_FILE" in asked:
        _slow_down(patch, pathlib.Path, "replace", float(asked["SECS_PER_FILE"]))
    if "DRAWN_FILE" in asked:
        _note_drawing(patch, pathlib.Path(asked["DRAWN_FILE"]))
    if "HOLD_AT" in asked:
        steps = set(map(int, asked["HOLD_AT"].split(",")))
        _hold_at(patch, steps, pathlib.Path(asked["HOLD_IN"]))
    if "HOLD_REPORT" in asked:
        _hold_report(patch, pathlib.Path(asked["HOLD_REPORT"]))
    if "HOLD_EXPORT" in asked:
        _hold_export(patch)
    if "MEASURING_SECS" in asked:
        _measure_for(patch, float(asked["MEASURING_SECS"]))


if __name__ == "__main__":
    shallow = main._import_at_once("tests.shallow")  # With TensorFlow.
    shallow.shorten(pytest.MonkeyPatch())
    _change(pytest.MonkeyPatch(), os.environ)
    main.run()
