"""What the process that watches a training says to it: MODEL_DIR/watch.json.

`--mode=evaluate --watch` evaluates the checkpoints of a training that runs beside it.
The training removes old checkpoints, but neither the one that is read just now nor, if
it makes no evaluations of its own, the best one of those that were watched. That one
then is `--checkpoint=best`.

What is read counts only as long as the watching process gives heartbeats (watch.lock);
the best one counts for good.
"""

import contextlib
import dataclasses
import json
import pathlib

from trainer import files
from trainer.run_folder import run_lock

_NAME = "watch.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """What was watched of a training.

    Attributes:
      reading: the step of the checkpoint that is read just now, or None.
      best_step: the step of the best checkpoint, or None.
      best_score: its score.
      best_metric: the name of what that is a score of.
    """

    reading: int | None = None
    best_step: int | None = None
    best_score: float | None = None
    best_metric: str = ""


def read(model_dir: str | pathlib.Path) -> Watched:
    """Reads what was watched; a file that says nothing is as none."""
    try:
        watched = Watched(**json.loads(_path(model_dir).read_bytes()))
    except (OSError, ValueError, TypeError):
        return Watched()
    steps = (watched.reading, watched.best_step)
    is_good = all(step is None or type(step) is int for step in steps)
    return watched if is_good else Watched()


def write(model_dir: str | pathlib.Path, watched: Watched) -> None:
    """Writes what is watched, for the training to see.

    Raises:
      errors.WriteError: if that fails.
    """
    text = json.dumps(dataclasses.asdict(watched), indent=2)
    files.write_text(_path(model_dir), text + "\n")


def hold(model_dir: str | pathlib.Path, step: int) -> None:
    """Says which checkpoint is read from now on, and leaves the rest as it is.

    Raises:
      errors.WriteError: if that fails.
    """
    write(model_dir, dataclasses.replace(read(model_dir), reading=step))


def forget(model_dir: str | pathlib.Path) -> None:
    """Removes what was watched of an earlier run in the folder."""
    with contextlib.suppress(OSError):
        _path(model_dir).unlink(missing_ok=True)


class Holds:
    """The checkpoints that a training keeps for whoever watches it."""

    def __init__(self, model_dir: str | pathlib.Path):
        """Makes them; touches no file."""
        self._model_dir = model_dir
        self._pulse = run_lock.Pulse(model_dir, run_lock.WATCH_FILE_NAME)

    def steps(self, own_best: int | None) -> set[int]:
        """Returns the steps of the checkpoints to keep besides the newest ones.

        Args:
          own_best: the best one by the training's own evaluations, which counts before
            that of the watching process; None if it makes none.
        """
        watched = read(self._model_dir)
        best = watched.best_step if own_best is None else own_best
        reading = watched.reading if self._pulse.is_alive() else None
        return {step for step in (best, reading) if step is not None}


def _path(model_dir: str | pathlib.Path) -> pathlib.Path:
    return pathlib.Path(model_dir) / _NAME
