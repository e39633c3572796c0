"""The model of a run and what updates it, built as its settings say."""

import keras
import tensorflow as tf
from absl import logging

from data import schema
from models import encoders, factory, scaling
from trainer import errors
from trainer.optimizing import optimization, schedules
from trainer.settings import model as model_settings
from trainer.settings import optimizer as optimizer_settings


def build_model(
    settings: model_settings.ModelConfig,
    *,
    image_size: tuple[int | None, int | None],
    image_format: schema.ImageFormat,
    num_classes: int,
    num_replicas: int,
    has_checkpoint: bool,
) -> keras.Model:
    """Builds the model; call it in the scope of the strategy.

    Args:
      settings: of the model.
      image_size: height and width of what it is shown; None: any.
      image_format: channels and values of that.
      num_classes: channels of the logits.
      num_replicas: devices that share each batch, on all hosts.
      has_checkpoint: whether a checkpoint will give the model its weights, so that none
        are looked for.

    Raises:
      errors.ConfigError: if weights or a package cannot be had.
    """
    try:
        model = factory.build_model(
            encoder=settings.encoder,
            encoder_options=settings.encoder_options(),
            encoder_weights="none" if has_checkpoint else settings.encoder_weights,
            encoder_bn_momentum=settings.encoder_bn_momentum,
            freeze_encoder=settings.freeze_encoder,
            freeze_encoder_stages=settings.freeze_encoder_stages,
            decoder=settings.decoder,
            decoder_filters=settings.decoder_filters,
            decoder_options=settings.decoder_options(),
            image_size=image_size,
            images=describe_images(image_format, settings),
            num_classes=num_classes,
            synchronized_batch_norm=num_replicas > 1,
        )
    except encoders.WeightsError as error:
        raise errors.ConfigError(
            f"--encoder_weights={settings.encoder_weights}: {error}."
        ) from error
    except ImportError as error:
        raise errors.ConfigError(f"--decoder={settings.decoder}: {error}.") from error
    logging.info(
        "%s on %s: %s parameters, %s of them trainable.",
        settings.decoder,
        settings.encoder,
        f"{model.count_params():,}",
        f"{sum(v.value.shape.num_elements() for v in model.trainable_variables):,}",
    )
    return model


def describe_images(
    image_format: schema.ImageFormat, settings: model_settings.ModelConfig
) -> scaling.Images:
    """Returns what images a model takes."""
    return scaling.Images(
        num_channels=image_format.num_channels,
        value_range=image_format.value_range,
        is_measured=settings.image_normalization == "measured",
    )


def build_optimizer(
    settings: optimizer_settings.OptimizerConfig, num_steps: int | tf.Variable
) -> keras.Optimizer:
    """Makes the optimizer of a run; it has no variables yet.

    Args:
      settings: of the optimizer.
      num_steps: length of the run, which may be a variable.
    """
    schedule = schedules.WarmupSchedule(
        settings.learning_rate,
        decay=settings.lr_schedule,
        num_steps=num_steps,
        warmup_steps=settings.warmup_steps,
        power=settings.polynomial_power,
    )
    return optimization.build_optimizer(
        settings.optimizer,
        schedule,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
