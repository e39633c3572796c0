"""What `--against=fit` compares with: Keras' own loop, layers and loss."""

import functools

import keras
import tensorflow as tf

from data import pipeline, schema
from trainer import errors
from trainer.assembly import model as model_lib
from trainer.assembly import training as training_lib
from trainer.benchmarking import plain
from trainer.settings import config as config_lib

_MIRRORED_DECODERS = ("pix2pix", "tensorflow_examples")
"""The decoders that `plain.build_keras_unet` has: the two are the same network."""


def check(config: config_lib.Config) -> None:
    """Checks that there is something to compare a run with.

    Raises:
      errors.ConfigError: if Keras' twin of the model would be another model.
    """
    settings = config.model
    if settings.decoder not in _MIRRORED_DECODERS:
        raise errors.ConfigError(
            f"--decoder={settings.decoder}: --against=fit compares with a U-Net of "
            "Keras' own layers; use --decoder=pix2pix, or leave --against out."
        )
    if settings.decoder_dropout:
        raise errors.ConfigError(
            f"--decoder_dropout={settings.decoder_dropout}: --against=fit compares "
            "with a U-Net without dropout; leave one of the two out."
        )
    if settings.decoder_norm != "batch":
        raise errors.ConfigError(
            f"--decoder_norm={settings.decoder_norm}: --against=fit compares with a "
            "U-Net with batch norm; leave one of the two out."
        )


def build_model(
    config: config_lib.Config, setup: training_lib.TrainSetup, policy: str
) -> keras.Model:
    """Builds the model of a run as the tutorial's user has it, compiled for `fit`.

    Args:
      config: all settings.
      setup: of the run, whose weights it gets.
      policy: Keras dtype policy.
    """
    settings = config.model
    own_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = plain.build_keras_unet(
            encoder=settings.encoder,
            encoder_options=settings.encoder_options(),
            freeze_encoder=settings.freeze_encoder,
            decoder_filters=settings.decoder_filters,
            image_size=config.data.image_size,
            images=model_lib.describe_images(setup.info.image_format, settings),
            num_classes=setup.info.num_classes,
        )
    finally:
        keras.config.set_dtype_policy(own_policy)
    model.set_weights(setup.state.model.get_weights())
    model.compile(
        keras.optimizers.Adam(config.optimizer.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_datasets(
    setup: training_lib.TrainSetup,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Returns the batches of a run, for training and evaluation, as `fit` takes them.

    Ignored pixels, which Keras' plain loss does not know, become class 0. The last
    batch of an evaluation is a smaller one.
    """

    def to_pair(
        examples: pipeline.Examples, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch = examples.fetch(batch)
        label = batch["label"]
        is_ignored = tf.equal(label, schema.IGNORE_LABEL)
        return batch["image"], tf.where(is_ignored, tf.zeros_like(label), label)

    training = pipeline.make_train_dataset(
        setup.examples, global_batch_size=setup.batch_size, seed=setup.seed
    )
    eval_examples = setup.evaluation.examples
    ids = tf.data.Dataset.range(len(eval_examples)).batch(setup.batch_size)
    evaluation = eval_examples.feed(ids.map(lambda batch: {"id": batch}))
    # Keras makes an iterator for each call, whose end waits until the autotuner wakes
    # up, 5 seconds after it began, or 10: no time of a step.
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        training.map(functools.partial(to_pair, setup.examples)).with_options(options),
        evaluation.map(functools.partial(to_pair, eval_examples)).with_options(options),
    )
