"""Measures what some settings take, in a process of its own.

Only so is the greatest memory that of these settings alone, and the start that of a
run. `measure` starts the process, which runs `main` and writes JSON.
"""

import dataclasses
import json
import pathlib
import signal
from collections.abc import Sequence

import trainer
from data import schema
from trainer import children, errors, files, flags
from trainer.assembly import devices, training
from trainer.benchmarking import measuring
from trainer.planning import costs, notes, rehearsal
from trainer.running import memory, preemption
from trainer.settings import config as config_lib
from trainer.settings import durations

_STEP_SHARE = 0.02
"""How much of the budget goes into timing the steps of one choice of settings. The
evaluation takes half of that."""
_LEAST_SECS, _MOST_SECS = 4.0, 20.0
"""For timing the steps. Over a few steps, one other program of a moment makes the plan
too small."""
_LOG_CHARACTERS = 2000


def measure(config: config_lib.Config) -> notes.Measured | None:
    """Measures settings in a new process.

    Args:
      config: all settings; what is written goes into its model dir.

    Returns:
      What they take; None if there is not the memory.

    Raises:
      errors.ConfigError: if the process ends with another error.
    """
    folder = pathlib.Path(config.run.model_dir)
    files.make_folder(folder)
    given, found = folder / "probe.flags", folder / "probe.json"
    lines = [config.to_flagfile(), f"--time_budget={config.train.time_budget}\n"]
    files.write_text(given, "".join(lines))
    found.unlink(missing_ok=True)
    done = children.run(
        "trainer.planning.probe",
        [
            f"--mode={config.run.mode}",
            f"--model_dir={folder}",
            f"--flagfile={given}",
        ],
    )
    if done.code == -signal.SIGKILL:  # By the kernel, if nobody else did it.
        return None
    if not found.is_file():
        raise errors.ConfigError(
            f"A process that measured settings ended with code {done.code}; a "
            "training with the flags that were given may say more. Its last words: "
            f"{done.output.strip()[-_LOG_CHARACTERS:]}"
        )
    return read(json.loads(found.read_text("utf-8")))


def read(figures: dict) -> notes.Measured | None:
    """Returns what a probe has written.

    Raises:
      errors.ConfigError: if it failed, but for want of memory.
    """
    if figures.get("is_short_of_memory"):
        return None
    if "error" in figures:
        raise errors.ConfigError(figures["error"])
    return notes.Measured(
        costs=costs.Costs(**figures["costs"]), memory_bytes=figures["memory_bytes"]
    )


def run(config: config_lib.Config) -> dict:
    """Measures settings in this process.

    Args:
      config: all settings.

    Returns:
      What `read` takes.
    """
    try:
        with memory.explaining_shortage(config):
            return _run(config)
    except errors.OutOfMemoryError as error:
        return {"error": str(error), "is_short_of_memory": True}
    except (errors.RunError, schema.DataError) as error:
        return {"error": str(error)}


def _run(config: config_lib.Config) -> dict:
    strategy = devices.prepare_devices(config)
    setup = training.prepare_training(
        config, strategy, preemption.StopRequest().variable
    )
    step_secs = _secs_for_steps(durations.parse(config.train.time_budget))
    script = rehearsal.Script.of_run(
        config, step_secs=step_secs, evaluation_secs=step_secs / 2
    )
    found = rehearsal.rehearse(
        setup, config.run.model_dir, script, started=trainer.STARTED
    )
    device = strategy.extended.worker_devices[0].rpartition("device:")[2]
    return {
        # The run itself does not measure.
        "costs": dataclasses.asdict(
            dataclasses.replace(
                found, start=found.start - found.measuring, measuring=0.0
            )
        ),
        "memory_bytes": measuring.peak_memory_bytes(device),
    }


def _secs_for_steps(budget_secs: int) -> float:
    return min(max(_STEP_SHARE * budget_secs, _LEAST_SECS), _MOST_SECS)


def main(arguments: Sequence[str]) -> None:
    """Measures the settings of a command line, and writes MODEL_DIR/probe.json."""
    config = flags.read_config(arguments).config
    path = pathlib.Path(config.run.model_dir) / "probe.json"
    files.write_text(path, json.dumps(run(config)))
