"""Weights from checkpoints."""

import pathlib
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from trainer import errors
from trainer.run_folder import checkpoint_folders
from trainer.run_folder import model_dir as model_dir_lib


def restore_model(
    model: tf.Module, ema: tf.Module | None, paths: Sequence[pathlib.Path]
) -> checkpoint_folders.Origin:
    """Restores the weights alone, for evaluation.

    Of damaged checkpoints the next one serves, with a warning.

    Args:
      model: the built model.
      ema: moving averages to restore as well, or None.
      paths: checkpoints that will do; see `checkpoint_folders.find`.

    Returns:
      The checkpoint restored.

    Raises:
      errors.CheckpointError: if none can be read, or none fits the model.
    """
    failures = []
    for path in paths:
        try:
            origin = _read_weights(path, model, ema)
        except Exception as error:  # Damage shows as many kinds of error.
            logging.warning("Skipping %s: it cannot be read (%s).", path, error)
            failures.append(error)
            continue
        logging.info("Restored the weights of %s.", path)
        return origin
    raise errors.CheckpointError(
        f"{paths[0]} cannot be restored ({failures[0]})"
        + (f", nor can the {len(paths) - 1} others." if paths[1:] else ".")
    ) from failures[0]


def _read_weights(
    path: pathlib.Path, model: tf.Module, ema: tf.Module | None
) -> checkpoint_folders.Origin:
    # First: a training that goes on may remove the checkpoint later.
    origin = checkpoint_folders.read_origin(path)
    global_step = tf.Variable(-1, dtype=tf.int64, trainable=False)
    state = {"model": model, "global_step": global_step}
    state |= {"ema": ema} if ema else {}
    with model_dir_lib.readable_by_tensorflow(path) as readable:
        status = tf.train.Checkpoint(**state).read(str(readable / "state"))
        status.expect_partial().assert_existing_objects_matched()
    check_step(origin.step, global_step)
    return origin


def check_step(noted_step: int, global_step: tf.Variable) -> None:
    """Checks that variables and metadata of a checkpoint belong together.

    Args:
      noted_step: the step in its metadata.
      global_step: the step in its variables.

    Raises:
      ValueError: if they do not.
    """
    step = int(global_step.numpy())
    if step != noted_step:
        raise ValueError(
            f"its variables are of step {step}, its metadata of step {noted_step}"
        )
