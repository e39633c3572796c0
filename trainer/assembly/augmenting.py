"""The random changes to training examples, as the settings say."""

from collections.abc import Callable

from data import schema
from data.augmentation import augment
from trainer import errors
from trainer.settings import config as config_lib


def make_augment(
    config: config_lib.Config, image_format: schema.ImageFormat
) -> Callable:
    """Returns the random changes; see `data.augmentation.augment`.

    Raises:
      errors.ConfigError: if one of them is not for such images.
    """
    settings = config.augmentation
    changes = {
        "flip": settings.horizontal_flip,
        "scale": settings.random_scale,
        "brightness": settings.random_brightness,
        "contrast": settings.random_contrast,
        "saturation": settings.random_saturation,
    }
    if not any(changes.values()):
        return augment.keep
    for name in ("brightness", "contrast", "saturation"):
        if changes[name] and image_format != schema.RGB:
            raise errors.ConfigError(
                f"--random_{name}={changes[name]}: it is for RGB images of 8 bits, and "
                f"these have {image_format.num_channels} channels of "
                f"{image_format.bits} bits (--image_channels, --image_range); leave it "
                "out."
            )
    return augment.RandomAugment(
        global_batch_size=config.train.batch_size,
        seed=config.run.seed,
        fill_value=image_format.fill_value,
        **changes,
    )
