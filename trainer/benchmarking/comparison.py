"""What `--against=fit` compares with: Keras' own loop, layers and loss."""

import functools

import keras
import tensorflow as tf

from data import pipeline, schema
from models import scaling
from trainer.assembly import model as model_lib
from trainer.assembly import training as training_lib
from trainer.benchmarking import plain
from trainer.settings import config as config_lib
from trainer.settings import model as model_settings


def build_model(
    config: config_lib.Config, setup: training_lib.TrainSetup, policy: str
) -> keras.Model:
    """Builds the model of a run as the tutorial's user has it, compiled for `fit`.

    Args:
      config: all settings, with `--against=fit`.
      setup: of the run, whose weights it gets.
      policy: Keras dtype policy.
    """
    own_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_twin(
            config.model,
            image_size=config.data.image_size,
            images=model_lib.describe_images(setup.info.image_format, config.model),
            num_classes=setup.info.num_classes,
        )
    finally:
        keras.config.set_dtype_policy(own_policy)
    give_weights(setup.state.model, model)
    model.compile(
        keras.optimizers.Adam(config.optimizer.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def give_weights(model: keras.Model, twin: keras.Model) -> None:
    """Gives the weights of a model to its twin, which has them in the same order."""
    values = zip(model.get_weights(), twin.weights, strict=True)
    # The kernel of a depthwise convolution has another shape in a grouped one.
    twin.set_weights([value.reshape(weight.shape) for value, weight in values])


def build_twin(
    settings: model_settings.ModelConfig,
    *,
    image_size: tuple[int, int],
    images: scaling.Images,
    num_classes: int,
) -> keras.Model:
    """Builds the model that settings ask for of Keras' own layers, weights random."""
    return plain.build_keras_unet(
        encoder=settings.encoder,
        encoder_options=settings.encoder_options(),
        freeze_encoder=settings.freeze_encoder,
        decoder_filters=settings.decoder_filters,
        image_size=image_size,
        images=images,
        num_classes=num_classes,
    )


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
    # Keras makes an iterator for each call, whose end is no time of a step.
    return (
        training.map(functools.partial(to_pair, setup.examples)),
        pipeline.end_at_once(evaluation.map(functools.partial(to_pair, eval_examples))),
    )
