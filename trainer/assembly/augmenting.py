"""The random changes to training examples, as the settings say."""

import dataclasses
from collections.abc import Callable

from data import schema
from data.augmentation import augment, registry
from trainer import errors
from trainer.settings import config as config_lib


def make_augment(
    config: config_lib.Config, image_format: schema.ImageFormat
) -> Callable:
    """Returns the random changes; see `data.augmentation.augment`.

    Raises:
      errors.ConfigError: if one of them is not for such images.
    """
    settings = dataclasses.asdict(config.augmentation)
    strengths = {name: settings[name] for name in registry.CHANGES}
    if not any(strengths.values()):
        return augment.keep
    try:
        return augment.RandomAugment(
            strengths,
            global_batch_size=config.train.batch_size,
            seed=config.run.seed,
            image_format=image_format,
        )
    except ValueError as error:
        raise errors.ConfigError(f"{error}.") from error
