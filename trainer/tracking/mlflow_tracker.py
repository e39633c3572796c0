"""MLflow, by its client alone: no global run, and none of its own settings touched."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from trainer.tracking import tracker

_DEFAULT_EXPERIMENT = "segloop"
_MOST_PARAMS = 100
"""That MLflow takes in a call."""
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_UNWRITABLE = re.compile(r"[^/\w.\- :]")
"""What MLflow does not allow in the name of a curve."""


class MlflowRun:
    """A run at `MLFLOW_TRACKING_URI`."""

    def __init__(self, client: Any, run_id: str):
        """Takes a run that is there.

        Args:
          client: an `mlflow.MlflowClient`.
          run_id: of the run.
        """
        self._client = client
        self.run_id = run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `tracker.Tracker`."""
        from mlflow import entities

        now = round(time.time() * 1000)
        metrics = [
            entities.Metric(_name_curve(tag), value, now, step)
            for tag, value in values.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self, status: tracker.Status) -> None:
        """See `tracker.Tracker`."""
        self._client.set_terminated(self.run_id, _STATUSES[status])


def open_run(
    run_id: str | None, *, name: str, folder: str, settings: Mapping[str, Any]
) -> MlflowRun:
    """Opens a run in the experiment MLFLOW_EXPERIMENT_NAME, `segloop` without it.

    Args:
      run_id: of the run to go on with. Its parameters cannot change any more: settings
        that did are tags of the run.
      name: of a new run.
      folder: not used.
      settings: the parameters.
    """
    import mlflow

    del folder
    client = mlflow.MlflowClient()
    texts = {key: _format(value) for key, value in settings.items()}
    if run_id:
        known = client.get_run(run_id).data.params
        client.update_run(run_id, status="RUNNING")
        for key, text in texts.items():
            if known.get(key, text) != text:
                client.set_tag(run_id, f"changed.{key}", text)
        return MlflowRun(client, run_id)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    run = MlflowRun(client, client.create_run(number, run_name=name).info.run_id)
    params = [mlflow.entities.Param(key, text) for key, text in texts.items()]
    for first in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run.run_id, params=params[first : first + _MOST_PARAMS])
    return run


def _name_curve(tag: str) -> str:
    """Returns what MLflow can call a curve, `train/loss.ce` for `train/loss/ce`.

    Its store of files keeps `train/loss` in a file, where then no folder can be.
    """
    split, _, rest = tag.partition("/")
    return _UNWRITABLE.sub("_", f"{split}/{rest.replace('/', '.')}")


def _format(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
