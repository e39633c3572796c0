"""`--mode=train` and `--mode=train_and_evaluate`."""

import pathlib

from absl import logging

from trainer import (
    checkpointing,
    errors,
    experiment,
    loop,
    scoring,
    summaries,
)
from trainer import config as config_lib


def run(config: config_lib.Config) -> None:
    """Trains to the end, from the newest checkpoint of the model dir if there is one.

    Raises:
      errors.RunError: if the run cannot start or go on.
      schema.DataError: if examples cannot be used.
    """
    _make_model_dir(config)
    setup = experiment.prepare_training(config)
    checkpointer = checkpointing.Checkpointer(
        config.run.model_dir,
        state=setup.checkpoint_state(),
        identity=setup.identity(),
        max_to_keep=config.train.max_to_keep,
    )
    is_resumed = checkpointer.restore()
    step = int(setup.global_step.numpy())
    if step >= setup.num_steps:
        logging.info(
            "The run is done: %s holds step %d of %d. For more, raise --train_epochs "
            "or --train_steps.",
            config.run.model_dir,
            step,
            setup.num_steps,
        )
    else:
        _write_settings(config)
        _train(config, setup, checkpointer, is_resumed)
    _print_report(config, setup)


def _train(config, setup, checkpointer, is_resumed: bool) -> None:
    step = int(setup.global_step.numpy())
    logging.info(
        "%s at step %d of %d: %d examples, batches of %d.",
        "Resuming" if is_resumed else "Starting",
        step,
        setup.num_steps,
        len(setup.examples),
        config.train.batch_size,
    )
    # What a killed process wrote after its last save is about to be written again.
    summaries.drop_points_after(config.run.model_dir, step)
    writer = summaries.SummaryWriter(config.run.model_dir)
    if not is_resumed:
        settings = "".join(
            f"    {line}\n" for line in config.to_flagfile().splitlines()
        )
        writer.write_text("train", 0, "settings", settings)
    loop.run(setup, checkpointer, writer)
    writer.close()


def _make_model_dir(config: config_lib.Config) -> None:
    """Makes the model dir and tries to write there, before any work is done."""
    folder = pathlib.Path(config.run.model_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write_probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise errors.ConfigError(
            f"--model_dir={folder}: this folder cannot be written ({error.strerror}); "
            "name another."
        ) from error


def _write_settings(config: config_lib.Config) -> None:
    """Writes the settings of the run as JSON, and as the flagfile that repeats it."""
    folder = pathlib.Path(config.run.model_dir)
    (folder / "config.json").write_text(config.to_json())
    (folder / "config.flags").write_text(config.to_flagfile())


def _print_report(config: config_lib.Config, setup: experiment.TrainSetup) -> None:
    """Prints the scores of the last step, and where to look at the run."""
    values = summaries.read_last_point(config.run.model_dir, "eval")
    if setup.evaluation and values:
        speed = summaries.read_last_point(config.run.model_dir, "train") or {}
        if "images_per_sec" in speed:
            values["train_images_per_sec"] = speed["images_per_sec"]
        print(scoring.format_table(values, setup.info.class_names))
        print(
            f"\nPhotos, truths, predictions: {scoring.write_picture(setup.evaluation)}"
        )
    print(f"Watch the curves:            tensorboard --logdir={config.run.model_dir}")
