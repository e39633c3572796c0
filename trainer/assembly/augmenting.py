"""The random changes to training examples, as the settings say."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from data import schema
from data.augmentation import augment, registry
from trainer import errors
from trainer.settings import config as config_lib


def make_augment(
    config: config_lib.Config,
    image_format: schema.ImageFormat,
    *,
    num_classes: int = schema.MAX_CLASSES,
    num_replicas: int,
) -> Callable:
    """Returns the random changes; see `data.augmentation.augment`.

    Args:
      config: all settings.
      image_format: of the training images.
      num_classes: of their labels.
      num_replicas: which share the rows of a batch.

    Raises:
      errors.ConfigError: if one of them is not for such images or batches.
    """
    if not has_changes(config):
        return augment.keep
    strengths = _strengths(config)
    try:
        made = augment.RandomAugment(
            strengths,
            global_batch_size=config.train.batch_size,
            seed=config.run.seed,
            image_format=image_format,
            crop_size=config.augmentation.crop_size or None,
            crop_rare_classes=config.augmentation.crop_rare_classes,
            num_classes=num_classes,
        )
    except ValueError as error:
        raise errors.ConfigError(f"{error}.") from error
    num_rows = config.train.batch_size // num_replicas
    if made.mixers and num_rows % 2:
        name = made.mixers[0]
        raise errors.ConfigError(
            f"--batch_size={config.train.batch_size}: --{name}={strengths[name]} mixes "
            f"examples in pairs, and each replica has {num_rows} of them; use a "
            f"multiple of {2 * num_replicas}."
        )
    return made


def has_changes(config: config_lib.Config) -> bool:
    """Tells whether a run changes its training examples, or takes windows of them."""
    return any(_strengths(config).values()) or bool(config.augmentation.crop_size)


def _strengths(config: config_lib.Config) -> dict[str, Any]:
    """Returns how strong each change of the registry is, by its name."""
    settings = dataclasses.asdict(config.augmentation)
    return {name: settings[name] for name in registry.CHANGES}


def make_stand_in(config: config_lib.Config) -> Callable:
    """Returns what takes no time in place of the random changes of a run.

    It leaves the corner of each example, of the size that the model is trained on.
    """
    height, width = config.training_size

    def cut(
        images: tf.Tensor, labels: tf.Tensor, counters: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del counters
        return images[:, :height, :width], labels[:, :height, :width]

    return cut
