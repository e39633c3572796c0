"""`--mode=train` and `--mode=train_and_evaluate`."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from absl import logging

import trainer
from trainer import errors
from trainer.assembly import devices, inputs, trackers, training
from trainer.distributing import cluster, stragglers
from trainer.evaluating import closing, scoring
from trainer.loop import loop, timetable, window
from trainer.planning import budget
from trainer.remote import mirrors
from trainer.run_folder import (
    boards,
    checkpoint_folders,
    checkpointing,
    criterion,
    dataset,
    encoder,
    environment,
    golden,
    identities,
    model_dir,
    run_lock,
    run_settings,
    scalars,
    summaries,
)
from trainer.running import preemption, profiling, stall
from trainer.settings import config as config_lib
from trainer.settings import fields
from trainer.tracking import fan

_STOP_SECS = 5.0
"""For trackers, when the process is ended: somebody waits for that."""


def run(config: config_lib.Config, *, started: float = trainer.STARTED) -> None:
    """Trains to the end, from the newest checkpoint of the model dir if there is one.

    Args:
      config: all settings.
      started: when a `--time_budget` began to run, on the clock of
        `time.perf_counter`; of a program that trains one run, its own start.

    Raises:
      errors.RunError: if the run cannot start or go on.
      schema.DataError: if examples cannot be used.
    """
    folder = model_dir.make(config.run.model_dir)
    is_chief = cluster.is_chief(config.runtime.distribution_strategy)
    with (
        run_lock.holding(folder, is_chief=is_chief) as lock,
        mirrors.publishing(folder, is_chief=is_chief),
    ):
        if is_chief:
            trackers.check_installed(config)
            model_dir.clear(folder)
        strategy = _run_on_devices(config, lock, started)
    # A chief that is killed while it draws or uploads needs the others once more.
    cluster.wait_for_chief(strategy)


def _run_on_devices(
    config: config_lib.Config, lock: run_lock.RunLock, started: float
) -> tf.distribute.Strategy:
    strategy = devices.prepare_devices(config)
    mirrors.catch_up(config.run.model_dir)
    stop = preemption.StopRequest(before_exit=lock.release)
    with stop.listening():
        _run_with(config, strategy, stop, lock, started)
    return strategy


def _run_with(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    stop: preemption.StopRequest,
    lock: run_lock.RunLock,
    started: float,
) -> None:
    is_chief = cluster.worker_index(strategy) == 0
    identities.check_settings(config)
    saved_step = checkpoint_folders.newest_step(config.run.model_dir)
    setup = training.prepare_training(
        config, strategy, stop.variable, saved_step=saved_step
    )
    config = budget.settle(
        config,
        setup,
        started=started,
        has_checkpoint=saved_step is not None,
        is_chief=is_chief,
        check_lock=lock.check,
    )
    config = inputs.with_image_range(config, setup.info)  # As it turned out to be.
    checkpointer = _make_checkpointer(config, setup, lock, is_chief=is_chief)
    is_resumed = checkpointer.restore()
    cluster.check_start(strategy, checkpointer.saved.step, setup.state.model.weights)
    stop.protect(lambda: checkpointer.has_unsaved_work)
    settings = timetable.read_settings(config)
    if timetable.make_calendar(settings, setup).is_done(checkpointer.saved):
        if is_chief:
            run_settings.log_changes(config.run.model_dir, config)
        closing.say_done(config, checkpointer.saved.step, setup.num_steps)
    else:
        _check_profile(config, setup.num_steps)
        sent_to = fan.Fan({})
        if is_chief:
            lock.check()  # Who has the lock by now has opened them, too.
            sent_to = trackers.open_all(
                config, is_resumed=is_resumed, is_lost=lock.is_lost
            )
        stop.call_before_exit(lambda: sent_to.close("stopped", secs=_STOP_SECS))
        writer = summaries.SummaryWriter(
            config.run.model_dir,
            is_chief=is_chief,
            check_lock=lock.check,
            trackers=sent_to,
        )
        with _telling_end(config, setup, writer, sent_to):
            lock.check()  # A tracker may have kept this process waiting.
            _note_start(config, setup, checkpointer, writer, is_resumed, is_chief)
            mirrors.publish(config.run.model_dir)  # For others to see that it runs.
            _train(config, setup, settings, checkpointer, writer, stop)
    if is_chief:
        lock.check()
        checkpointer.prune()
        closing.print_report(config, setup)
        closing.warn_of_pictures(config)


def _make_checkpointer(
    config: config_lib.Config,
    setup: training.TrainSetup,
    lock: run_lock.RunLock,
    *,
    is_chief: bool,
) -> checkpointing.Checkpointer:
    return checkpointing.Checkpointer(
        config.run.model_dir,
        state=setup.state.to_save(),
        identity={
            **config.identity(),
            "class_names": list(setup.info.class_names),
            identities.TRAIN_EXAMPLES: setup.examples.fingerprint,
        },
        legacy=config_lib.legacy_values(),
        max_to_keep=config.train.max_to_keep,
        best=_choose_best(config, setup),
        is_chief=is_chief,
        is_window=functools.partial(
            window.is_state, loss=setup.loss, num_classes=setup.info.num_classes
        ),
        check_lock=lock.check,
        publish=functools.partial(mirrors.publish, config.run.model_dir),
    )


def _check_profile(config: config_lib.Config, num_steps: int) -> None:
    """Checks that the run has the steps to trace.

    Raises:
      errors.ConfigError: if not.
    """
    steps = config.monitoring.profile_steps
    if steps and steps[0] > num_steps:
        fields.reject(
            "profile_steps",
            steps,
            f"the run has {num_steps} steps; name some of them, or leave the flag out",
        )


@contextlib.contextmanager
def _telling_end(
    config: config_lib.Config,
    setup: training.TrainSetup,
    writer: summaries.SummaryWriter,
    sent_to: fan.Fan,
) -> Iterator[None]:
    """Tells trackers and the table of runs how the run inside has ended.

    Of one that stands still and is ended, trackers alone are told: what it waits for
    may be the disk of its folder.
    """
    status = "failed"
    try:
        with stall.calling_before_end(lambda: sent_to.close("failed", secs=_STOP_SECS)):
            yield
        status = "finished"
    except errors.Stopped:
        status = "stopped"
        raise
    finally:
        if status == "stopped":
            sent_to.close(status, secs=_STOP_SECS)
        else:
            # Whoever has taken the folder over writes there now.
            with contextlib.suppress(errors.LockLostError):
                scores = _final_scores(config.run.model_dir)
                writer.end_session(status, setup.step, scores)
                writer.close()
            sent_to.close(status)


def _final_scores(folder: str) -> dict[str, float]:
    """Returns the scores of the newest points that the table of runs shows."""
    found = {}
    for split in ("eval", "train"):
        point = scalars.read_last_point(folder, split) or {}
        for tag in ("loss", "mean_iou", "pixel_accuracy"):
            if tag in point:
                found[f"{split}_{tag}"] = point[tag]
    return found


def _choose_best(
    config: config_lib.Config, setup: training.TrainSetup
) -> criterion.Criterion | None:
    """Returns how the best checkpoint is chosen; None: without evaluations, none is.

    Raises:
      errors.ConfigError: if that is no score of the evaluation.
    """
    if not setup.evaluation:
        return None
    best = scoring.find_criterion(
        config.evaluation.best_metric, setup.evaluation.eval_loop
    )
    return best._replace(subject=scoring.hash_subject(config, setup.evaluation))


def _note_start(
    config: config_lib.Config,
    setup: training.TrainSetup,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
    is_resumed: bool,
    is_chief: bool,
) -> None:
    """Says where the run starts, and brings its folder up to that."""
    saved = checkpointer.saved
    logging.info(
        "%s at step %d of %d: %d examples, batches of %d.",
        "Resuming" if is_resumed else "Starting",
        saved.step,
        setup.num_steps,
        len(setup.examples),
        setup.batch_size,
    )
    if is_chief:
        if is_resumed:
            run_settings.log_changes(config.run.model_dir, config)
        run_settings.write(config.run.model_dir, config)
        described = dataset.describe(
            setup.info,
            dataset=config.data.dataset,
            split=setup.examples.name,
            ignore_label=config.data.ignore_label,
        )
        dataset.write(config.run.model_dir, described)
        if not is_resumed:  # Of a run that was here before, nothing is to be used.
            golden.forget(config.run.model_dir)
        if config.train.keep_golden and setup.evaluation:
            examples = setup.evaluation.examples
            golden.write_once(
                config.run.model_dir, len(examples), examples.read, examples.names
            )
        environment.write(
            config.run.model_dir,
            environment.describe(
                devices.describe(setup.strategy), keras.config.dtype_policy().name
            ),
        )
        if setup.architecture:
            encoder.write(config.run.model_dir, setup.architecture)
        # What a killed process wrote after its last save is about to be written again.
        last_evaluation = saved.step if saved.is_evaluated else saved.step - 1
        last_steps = {"train": saved.step, "eval": last_evaluation}
        if not is_resumed:
            last_steps["watch"] = 0
        summaries.drop_points_after(config.run.model_dir, last_steps)
    if not is_resumed:
        settings = "".join(
            f"    {line}\n" for line in config.to_flagfile().splitlines()
        )
        writer.write_text("train", 0, "settings", settings)
        writer.write_layout("train", 0)
    writer.begin_session(boards.select_settings(config))


def _train(
    config: config_lib.Config,
    setup: training.TrainSetup,
    settings: timetable.Settings,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
    stop: preemption.StopRequest,
) -> None:
    profiler = profiling.Profiler(
        pathlib.Path(config.run.model_dir) / "profile",
        is_chief=cluster.worker_index(setup.strategy) == 0,
    )
    stop.protect(lambda: checkpointer.has_unsaved_work or profiler.is_open)

    def progress() -> tuple[int, ...]:
        calls = setup.evaluation.eval_loop.num_calls if setup.evaluation else 0
        return setup.step, checkpointer.saved.step, calls, mirrors.num_transfers()

    with stall.watching(
        config.runtime.stall_timeout,
        progress,
        devices=setup.strategy.extended.worker_devices,
    ):
        comparison = stragglers.make_comparison(setup.strategy)
        loop.Loop(setup, settings, checkpointer, writer, profiler, comparison).run()
