"""`--mode=train` and `--mode=train_and_evaluate`."""

import functools
import pathlib

import tensorflow as tf
from absl import logging

from trainer import errors, loop, scoring, window
from trainer.assembly import experiment
from trainer.distributing import cluster
from trainer.run_folder import (
    checkpoint_folders,
    checkpointing,
    model_dir,
    run_lock,
    run_settings,
    summaries,
)
from trainer.running import memory, preemption, stall
from trainer.settings import config as config_lib


def run(config: config_lib.Config) -> None:
    """Trains to the end, from the newest checkpoint of the model dir if there is one.

    Raises:
      errors.RunError: if the run cannot start or go on.
      schema.DataError: if examples cannot be used.
    """
    folder = model_dir.make(config.run.model_dir)
    is_chief = cluster.is_chief(config.runtime.distribution_strategy)
    with run_lock.holding(folder, is_chief=is_chief) as lock:
        if is_chief:
            model_dir.clear(folder)
        _run_on_devices(config, lock)


def _run_on_devices(config: config_lib.Config, lock: run_lock.RunLock) -> None:
    strategy = experiment.prepare_devices(config)
    stop = preemption.StopRequest(before_exit=lock.release)
    try:
        with stop.listening():
            _run_with(config, strategy, stop, lock)
    except tf.errors.OpError as error:
        if cluster.num_workers(strategy) == 1 or memory.is_out_of_memory(error):
            raise
        # Whatever the collective that failed says: its peer is gone.
        raise errors.PeerError(
            "Another worker went away, or does not answer; start all workers again to "
            f"go on from the last checkpoint ({error.message.splitlines()[0]})"
        ) from error


def _run_with(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    stop: preemption.StopRequest,
    lock: run_lock.RunLock,
) -> None:
    is_chief = cluster.worker_index(strategy) == 0
    setup = experiment.prepare_training(
        config,
        strategy,
        stop.variable,
        has_checkpoint=checkpoint_folders.has_any(config.run.model_dir),
    )
    config = setup.config
    checkpointer = checkpointing.Checkpointer(
        config.run.model_dir,
        state=setup.checkpoint_state(),
        identity=setup.identity(),
        legacy=config_lib.legacy_values(),
        max_to_keep=config.train.max_to_keep,
        is_chief=is_chief,
        is_window=functools.partial(
            window.is_state, loss=setup.loss, num_classes=setup.info.num_classes
        ),
        check_lock=lock.check,
    )
    is_resumed = checkpointer.restore()
    cluster.check_agreement(strategy, checkpointer.saved.step, setup.model.weights)
    stop.protect(lambda: checkpointer.has_unsaved_work)
    if loop.Calendar(setup).is_done(checkpointer.saved):
        logging.info(
            "The run is done: %s holds step %d of %d. For more, raise --train_epochs "
            "or --train_steps.",
            config.run.model_dir,
            checkpointer.saved.step,
            setup.num_steps,
        )
    else:
        writer = summaries.SummaryWriter(
            config.run.model_dir, is_chief=is_chief, check_lock=lock.check
        )
        _train(config, setup, checkpointer, writer, stop, is_resumed, is_chief)
    if is_chief:
        _print_report(config, setup)


def _train(
    config: config_lib.Config,
    setup: experiment.TrainSetup,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
    stop: preemption.StopRequest,
    is_resumed: bool,
    is_chief: bool,
) -> None:
    saved = checkpointer.saved
    logging.info(
        "%s at step %d of %d: %d examples, batches of %d.",
        "Resuming" if is_resumed else "Starting",
        saved.step,
        setup.num_steps,
        len(setup.examples),
        config.train.batch_size,
    )
    if is_chief:
        if is_resumed:
            run_settings.log_changes(config.run.model_dir, config)
        run_settings.write(config.run.model_dir, config)
        # What a killed process wrote after its last save is about to be written again.
        last_evaluation = saved.step if saved.is_evaluated else saved.step - 1
        last_steps = {"train": saved.step, "eval": last_evaluation}
        summaries.drop_points_after(config.run.model_dir, last_steps)
    if not is_resumed:
        settings = "".join(
            f"    {line}\n" for line in config.to_flagfile().splitlines()
        )
        writer.write_text("train", 0, "settings", settings)

    def progress() -> tuple[int, ...]:
        calls = setup.evaluation.eval_loop.num_calls if setup.evaluation else 0
        return int(setup.global_step.numpy()), checkpointer.saved.step, calls

    with stall.watching(
        config.runtime.stall_timeout,
        progress,
        devices=setup.strategy.extended.worker_devices,
    ):
        loop.run(setup, checkpointer, writer, stop)
    writer.close()


def _print_report(config: config_lib.Config, setup: experiment.TrainSetup) -> None:
    """Prints the scores of the last step, and where to look at the run."""
    values = summaries.read_last_point(config.run.model_dir, "eval")
    if setup.evaluation and values:
        speed = summaries.read_last_point(config.run.model_dir, "train") or {}
        if "images_per_sec" in speed:
            values["train_images_per_sec"] = speed["images_per_sec"]
        print(scoring.format_table(values, setup.evaluation.eval_loop.metrics))
        picture = pathlib.Path(config.run.model_dir) / "predictions.png"
        scoring.write_picture(setup.evaluation, picture)
        print(f"\nPhotos, truths, predictions: {picture}")
    print(f"Watch the curves:            tensorboard --logdir={config.run.model_dir}")
