"""Weights & Biases."""

import os
from collections.abc import Mapping
from typing import Any

from trainer.tracking import tracker

_DEFAULT_PROJECT = "segloop"
_AXIS = "step"
"""A value in each row, which the charts of all curves have as their axis."""
_EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 143}


class WandbRun:
    """A run as WANDB_MODE says: sent, or kept in the run's folder to be sent later."""

    def __init__(self, run: Any):
        """Takes a run that is open.

        Args:
          run: of `wandb.init`.
        """
        self._run = run
        self.run_id = run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `tracker.Tracker`."""
        # Without `step=`: a run that is opened again ignores all rows of its last step.
        # The evaluation at which it was stopped would never arrive.
        self._run.log({**values, _AXIS: step})

    def close(self, status: tracker.Status) -> None:
        """See `tracker.Tracker`."""
        if status == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=_EXIT_CODES[status])


def open_run(
    run_id: str | None, *, name: str, folder: str, settings: Mapping[str, Any]
) -> WandbRun:
    """Opens a run in the project WANDB_PROJECT, `segloop` without it.

    Args:
      run_id: of the run to go on with.
      name: of a new run.
      folder: where it keeps files, below `wandb`.
      settings: the configuration.
    """
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or _DEFAULT_PROJECT,
        id=run_id,
        resume="allow" if run_id else None,
        name=name,
        dir=folder,
        # What is printed here stays as it is: a bar of progress, a table.
        settings=wandb.Settings(console="off"),
    )
    run.define_metric("*", step_metric=_AXIS)
    run.config.update(dict(settings), allow_val_change=True)
    return WandbRun(run)
