"""The length of a run: known from the settings, or measured before the first step."""

import dataclasses

import tensorflow as tf

from data import pipeline
from trainer import errors
from trainer.settings import config as config_lib
from trainer.settings import train as train_settings


def make(config: config_lib.Config, num_examples: int) -> tf.Variable:
    """Makes the length of a run; with a budget of time, it is provisional.

    It is a variable, so that the step can be traced before the length is known, and is
    the same graph whether that was given or measured.

    Args:
      config: all settings.
      num_examples: of the training split.

    Returns:
      An int64 variable on the host.

    Raises:
      errors.ConfigError: if the warm-up does not fit into it.
    """
    num_steps = train_settings.MAX_STEPS
    if not config.train.time_budget:
        num_steps = config.train.train_steps or pipeline.epoch_end(
            config.train.train_epochs,
            num_examples=num_examples,
            global_batch_size=config.train.batch_size,
        )
        _check_warmup(config, num_steps)
    with tf.device("/CPU:0"):
        return tf.Variable(num_steps, trainable=False, dtype=tf.int64, name="length")


def fix(
    length: tf.Variable, config: config_lib.Config, num_steps: int
) -> config_lib.Config:
    """Gives a run that has a budget of time its length, before its first step.

    Args:
      length: of `make`.
      config: all settings.
      num_steps: the length.

    Returns:
      The settings with the length in place of the budget.

    Raises:
      errors.ConfigError: if the warm-up does not fit into it.
    """
    _check_warmup(config, num_steps)
    length.assign(num_steps)
    train = dataclasses.replace(config.train, time_budget="", train_steps=num_steps)
    return dataclasses.replace(config, train=train)


def find_encoder_start(
    config: config_lib.Config, num_examples: int, length: tf.Variable
) -> int:
    """Returns the step from which on a trained encoder is trained.

    Args:
      config: all settings.
      num_examples: of the training split.
      length: of the run.

    Raises:
      errors.ConfigError: if the run ends before.
    """
    epochs = config.model.unfreeze_encoder_at
    if epochs is None:
        return 0
    step = pipeline.epoch_end(
        epochs, num_examples=num_examples, global_batch_size=config.train.batch_size
    )
    num_steps = int(length.numpy())
    if step >= num_steps:
        raise errors.ConfigError(
            f"--unfreeze_encoder_at={epochs}: that is after {step} steps, and the run "
            f"ends after {num_steps}; unfreeze the encoder earlier, train for longer, "
            "or say --freeze_encoder."
        )
    return step


def _check_warmup(config: config_lib.Config, num_steps: int) -> None:
    if config.optimizer.warmup_steps >= num_steps:
        raise errors.ConfigError(
            f"--warmup_steps={config.optimizer.warmup_steps} is not less than the "
            f"{num_steps} steps of the run; warm up for less or train for longer."
        )
