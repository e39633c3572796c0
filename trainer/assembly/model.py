"""The model of a run and what updates it, built as its settings say."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf
from absl import logging

from data import schema
from models import encoders, factory, registry, scaling
from trainer import errors
from trainer.optimizing import optimization, schedules
from trainer.remote import mirrors
from trainer.run_folder import encoder as encoder_file
from trainer.settings import model as model_settings
from trainer.settings import optimizer as optimizer_settings


def open_preset(
    settings: model_settings.ModelConfig, run: str = ""
) -> encoders.Preset | None:
    """Opens the preset that the encoder is built of; None: it is built of none.

    Args:
      settings: of the model.
      run: the folder of a run that tells the architecture, and whose checkpoint will
        give the weights; empty: there is none.

    Raises:
      errors.CheckpointError: if the run's folder does not tell.
      errors.ConfigError: if the preset is not there or does not serve.
    """
    if not registry.library_of(settings.encoder):
        return None
    if run:
        return encoders.Preset(encoder_file.read(run))
    weights = mirrors.fetch_file(settings.encoder_weights, "encoder_weights")
    with _explaining(settings):
        preset = encoders.open_preset(settings.encoder, weights)
    if preset.remark:
        logging.warning("--encoder=%s: %s.", settings.encoder, preset.remark)
    settings.check_strides(preset.strides)
    settings.filters_for(preset.strides)
    return preset


@contextlib.contextmanager
def _explaining(settings: model_settings.ModelConfig) -> Iterator[None]:
    """Makes errors of the settings of those that the models raise."""
    try:
        yield
    except encoders.PresetError as error:
        raise errors.ConfigError(f"--encoder={settings.encoder}: {error}.") from error
    except encoders.WeightsError as error:
        raise errors.ConfigError(
            f"--encoder_weights={settings.encoder_weights}: {error}."
        ) from error
    except ImportError as error:
        raise errors.ConfigError(f"--decoder={settings.decoder}: {error}.") from error


def build_model(
    settings: model_settings.ModelConfig,
    *,
    image_size: tuple[int | None, int | None],
    image_format: schema.ImageFormat,
    num_classes: int,
    num_replicas: int,
    has_checkpoint: bool,
    preset: encoders.Preset | None = None,
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
      preset: of `open_preset`.

    Raises:
      errors.ConfigError: if weights or a package cannot be had.
    """
    weights = "none"
    if not has_checkpoint:
        weights = mirrors.fetch_file(settings.encoder_weights, "encoder_weights")
    with _explaining(settings):
        model = factory.build_model(
            encoder=settings.encoder,
            encoder_options=settings.encoder_options(),
            encoder_weights=weights,
            encoder_preset=preset,
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
