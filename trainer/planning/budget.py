"""The length of a run that has a budget of time: measured once, then fixed."""

import dataclasses
from collections.abc import Callable

from absl import logging

from trainer import errors
from trainer.assembly import length as length_lib
from trainer.assembly import training
from trainer.distributing import cluster
from trainer.planning import costs, rehearsal
from trainer.run_folder import length as kept_length
from trainer.settings import config as config_lib
from trainer.settings import durations
from trainer.settings import train as train_settings

_STEP_SHARE, _EVALUATION_SHARE = 0.05, 0.02
"""How much of the budget goes into timing each."""
_LEAST_SECS, _MOST_SECS = 1.0, 60.0
"""For timing each."""


def settle(
    config: config_lib.Config,
    setup: training.TrainSetup,
    *,
    started: float,
    has_checkpoint: bool,
    is_chief: bool,
    check_lock: Callable[[], None] = lambda: None,
) -> config_lib.Config:
    """Fixes how many steps a run has, by `length.json` or by measuring.

    Args:
      config: all settings.
      setup: of the run; it gets its length.
      started: when the budget began to run, on the clock of `time.perf_counter`.
      has_checkpoint: whether the run has begun.
      is_chief: whether this process reads and writes the file. The chief's number
        counts for all workers.
      check_lock: called before the file is written; raises an error if the folder is no
        longer this run's.

    Returns:
      The settings with that number in place of the budget.

    Raises:
      errors.ConfigError: if the budget is too small, or is not that of the run.
      errors.LockLostError: if another run has taken the folder over.
      errors.RunError: if the file cannot be read or written.
    """
    if not config.train.time_budget:
        return config
    kept = _read(config, has_checkpoint) if is_chief else 0
    num_steps = int(cluster.from_chief(setup.strategy, kept))
    if num_steps:
        logging.info(
            "--time_budget=%s: %d steps, as length.json has them.",
            config.train.time_budget,
            num_steps,
        )
    else:
        num_steps = _measure(config, setup, started, is_chief, check_lock)
    return length_lib.fix(setup.length, config, num_steps)


def _read(config: config_lib.Config, has_checkpoint: bool) -> int:
    """Returns the number of steps that was fixed before; 0: none was."""
    folder, budget = config.run.model_dir, config.train.time_budget
    kept = kept_length.read(folder)
    if not has_checkpoint:
        # Nothing is lost: what was measured with other settings does not count.
        is_same = kept and (kept.time_budget, kept.settings) == (budget, config.saved())
        return kept.num_steps if is_same else 0
    if kept is None:
        raise errors.ConfigError(
            f"--time_budget={budget}: the run in {folder} has begun without one; say "
            "with --train_epochs or --train_steps how long it is to be."
        )
    if durations.parse(kept.time_budget) != durations.parse(budget):
        raise errors.ConfigError(
            f"--time_budget={budget}: the run in {folder} has begun, and its "
            f"{kept.num_steps} steps were fixed by --time_budget={kept.time_budget}; "
            "give that, or --train_steps for another length."
        )
    return kept.num_steps


def _measure(
    config: config_lib.Config,
    setup: training.TrainSetup,
    started: float,
    is_chief: bool,
    check_lock: Callable[[], None],
) -> int:
    """Returns how many steps fit into the budget, and writes it down.

    Raises:
      errors.ConfigError: if it is too small.
    """
    budget, warmup_steps = config.train.time_budget, config.optimizer.warmup_steps
    secs = durations.parse(budget)
    logging.info("--time_budget=%s: measuring how many steps fit into it.", budget)
    measured = rehearsal.rehearse(
        setup,
        config.run.model_dir,
        _write_script(config, secs, is_chief),
        started=started,
    )
    rhythm = make_rhythm(config.train, len(setup.examples))
    num_steps, smallest = (
        cluster.from_chief(setup.strategy, number)
        for number in choose(measured, rhythm, secs, least=warmup_steps + 1)
    )
    if not num_steps:
        steps = "one step"
        if warmup_steps:
            steps = f"{warmup_steps + 1} steps (--warmup_steps={warmup_steps})"
        raise errors.ConfigError(
            f"--time_budget={budget} is too short: on this machine it takes "
            f"{durations.describe(smallest)} to start, to measure, and to make "
            f"{steps}, one save and one evaluation; give at least that."
        )
    kept = kept_length.Length(
        time_budget=budget,
        num_steps=int(num_steps),
        measured=dataclasses.asdict(measured),
        settings=config.saved(),
    )
    if is_chief:
        check_lock()  # To measure takes minutes.
        kept_length.write(config.run.model_dir, kept)
    logging.info(
        "--time_budget=%s: %d steps, %.1f epochs. A step takes %.0f ms, an evaluation "
        "%.1f s, of which there are %d, and a save %.1f s.",
        budget,
        num_steps,
        num_steps * setup.batch_size / len(setup.examples),
        1000 * measured.step,
        measured.evaluation,
        rhythm.num_evaluations(kept.num_steps),
        measured.save,
    )
    return kept.num_steps


def _write_script(
    config: config_lib.Config, secs: float, is_chief: bool
) -> rehearsal.Script:
    """Returns what is to be measured for a budget."""
    step_secs, evaluation_secs = (
        min(max(share * secs, _LEAST_SECS), _MOST_SECS)
        for share in (_STEP_SHARE, _EVALUATION_SHARE)
    )
    return rehearsal.Script.of_run(
        config,
        step_secs=step_secs,
        evaluation_secs=evaluation_secs,
        is_chief=is_chief,
    )


def make_rhythm(train: train_settings.TrainConfig, num_examples: int) -> costs.Rhythm:
    """Returns how often the parts of a run come.

    Args:
      train: the settings.
      num_examples: of the training split.
    """
    return costs.Rhythm(
        num_examples=num_examples,
        batch_size=train.batch_size,
        epochs_between_evals=train.epochs_between_evals,
        checkpoint_interval=train.checkpoint_interval,
    )


def choose(
    measured: costs.Costs, rhythm: costs.Rhythm, secs: float, *, least: int
) -> tuple[int, float]:
    """Returns how many steps fit into a budget, and the smallest budget that works.

    Args:
      measured: what the parts of the run take.
      rhythm: how often they come.
      secs: the budget.
      least: the smallest number of steps that a run may have.

    Returns:
      The steps, 0 if they would be fewer than `least`, and the seconds of the smallest
      budget.
    """
    num_steps = costs.most_steps(
        measured, rhythm, (1 - costs.RESERVE) * secs, limit=train_settings.MAX_STEPS
    )
    smallest = costs.smallest_budget(measured, rhythm, least)
    return (num_steps if num_steps >= least else 0), smallest
