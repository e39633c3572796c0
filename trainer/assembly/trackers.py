"""The trackers of a training: opened, and noted in the run's folder."""

import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from trainer import errors
from trainer.run_folder import scalars, tracker_runs
from trainer.settings import config as config_lib
from trainer.settings import fields
from trainer.tracking import fan, registry, tracker


def check_installed(config: config_lib.Config) -> None:
    """Checks, before there is any work done, that the trackers asked for are there.

    Raises:
      errors.ConfigError: if not.
    """
    for name in config.monitoring.tracker:
        package = registry.TRACKERS[name].package
        if importlib.util.find_spec(package) is None:
            fields.reject_missing(
                "tracker", config.monitoring.tracker, name, package, "trackers"
            )


def open_all(
    config: config_lib.Config,
    *,
    is_resumed: bool,
    is_lost: Callable[[], bool] = lambda: False,
) -> fan.Fan:
    """Opens a run in each tracker; call it before points of the folder are dropped.

    A run that was killed goes on in the runs that it had, from its first save or
    before: the same settings in the same folder are the same run.

    Args:
      config: all settings.
      is_resumed: whether the run goes on from a checkpoint.
      is_lost: see `fan.Fan`.

    Raises:
      errors.ConfigError: if a tracker that has no run yet gives none. One that has is
        given up with a warning.
      errors.WriteError: if what was opened cannot be noted.
    """
    names, folder = config.monitoring.tracker, config.run.model_dir
    if not names:
        return fan.Fan({})
    settings = config.saved()
    note = tracker_runs.read(folder)
    if note and not is_resumed and note.settings != settings:
        note = None
    known = dict(note.run_ids) if note else {}
    last_steps = scalars.read_last_steps(folder)
    sent = {
        name: _later(note.sent.get(name, {}), last_steps) if name in known else {}
        for name in {*known, *names}
    }
    opened = {}
    try:
        for name in names:
            if run := _open(name, known.get(name), folder, settings):
                opened[name], known[name] = run, run.run_id
                tracker_runs.write(folder, tracker_runs.Note(known, sent, settings))
    except errors.RunError:
        fan.Fan(opened, is_lost=is_lost).close("failed")
        raise
    return fan.Fan(opened, sent, is_lost=is_lost)


def _later(some: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {
        split: max(some.get(split, -1), others.get(split, -1))
        for split in {*some, *others}
    }


def _open(
    name: str, run_id: str | None, folder: str, settings: Mapping[str, Any]
) -> tracker.Tracker | None:
    module = importlib.import_module(registry.TRACKERS[name].module)
    path = pathlib.Path(folder)
    try:
        return module.open_run(
            run_id, name=path.absolute().name, folder=folder, settings=settings
        )
    except Exception as error:  # Of whatever kind a foreign package has.
        if run_id:
            logging.warning(
                "The run %s cannot be opened in %s again (%s); training goes on "
                "without.",
                run_id,
                name,
                error,
            )
            return None
        raise errors.ConfigError(
            f"--tracker={name}: no run can be opened there ({error}); see that it can "
            "be reached, or leave the flag out."
        ) from error
