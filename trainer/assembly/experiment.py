"""The objects of a run, made from its settings.

The one place that sees configuration, data and models together; what it hands on are
plain objects that know no flag.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from data import pipeline, schema
from data.preparing import balance, resizing, statistics
from models import encoders, factory, scaling
from models.fast import normalization
from trainer import errors
from trainer.assembly import inputs
from trainer.distributing import cluster, distribution
from trainer.losses import registry as loss_registry
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.metrics import registry as metric_registry
from trainer.optimizing import ema as ema_lib
from trainer.optimizing import optimization, schedules
from trainer.settings import config as config_lib
from trainer.settings import fields
from trainer.steps import evaluation as evaluation_steps
from trainer.steps import training as training_steps


@dataclasses.dataclass(frozen=True)
class EvalSetup:
    """What scoring a model needs.

    Attributes:
      config: all settings.
      strategy: the devices.
      info: classes of the data set, as the labels in the stores have them.
      examples: the split to evaluate on.
      model: from images to logits.
      eval_loop: scores batches.
      confusion: that of the metrics of `eval_loop` that is always there.
      ema: moving averages to evaluate in place of the weights, or None.
    """

    config: config_lib.Config
    strategy: tf.distribute.Strategy
    info: schema.DatasetInfo
    examples: pipeline.Examples
    model: keras.Model
    eval_loop: evaluation_steps.EvalLoop
    confusion: confusion_lib.ConfusionMatrix
    ema: ema_lib.ExponentialMovingAverage | None

    @property
    def batch_size(self) -> int:
        """Rows of a batch over all replicas: up to --batch_size."""
        return pipeline.eval_batch_size(
            len(self.examples),
            max_batch_size=self.config.train.batch_size,
            num_replicas=self.strategy.num_replicas_in_sync,
        )

    @property
    def num_batches(self) -> int:
        """Batches of one pass."""
        return pipeline.num_eval_batches(len(self.examples), self.batch_size)

    @functools.cached_property
    def iterator(self) -> Iterator:
        """Distributed evaluation batches, pass after pass.

        One for all evaluations: making one takes a third of a second, and to end one
        that still reads ahead may take seconds.
        """
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda context: pipeline.make_eval_dataset(
                    self.examples,
                    global_batch_size=self.batch_size,
                    shard=pipeline.Shard.from_context(context),
                    num_passes=-1,
                )
            )
        )

    def read_again(self, start: int, stop: int) -> None:
        """Reads the examples of batches of which one failed.

        Raises:
          schema.DataError: if an example is to blame; it names the first such.
        """
        batch_size = self.batch_size
        for first in range(start * batch_size, stop * batch_size, batch_size):
            last = min(first + batch_size, len(self.examples))
            self.examples.read(np.arange(first, last))


@dataclasses.dataclass(frozen=True)
class TrainSetup:
    """What training needs besides.

    Attributes:
      evaluation: the part for scoring; None if the run has no evaluation.
      config: all settings.
      strategy: the devices.
      info: classes of the data set.
      examples: the split to train on.
      model: from images to logits.
      optimizer: built.
      loss: what is minimized.
      loss_scale: of float16.
      global_step: int64 variable on the host, steps done.
      ema: moving averages of the weights, or None.
      confusion: of the training batches.
      train_loop: trains on batches.
      num_steps: length of the run.
    """

    evaluation: EvalSetup | None
    config: config_lib.Config
    strategy: tf.distribute.Strategy
    info: schema.DatasetInfo
    examples: pipeline.Examples
    model: keras.Model
    optimizer: keras.Optimizer
    loss: weighted_sum.WeightedSum
    loss_scale: optimization.LossScale
    global_step: tf.Variable
    ema: ema_lib.ExponentialMovingAverage | None
    confusion: confusion_lib.ConfusionMatrix
    train_loop: training_steps.TrainLoop
    num_steps: int

    @property
    def num_replicas(self) -> int:
        """Devices that share each batch, on all hosts."""
        return self.strategy.num_replicas_in_sync

    def epochs_done(self, step: int) -> int:
        """Returns how many epochs have been seen whole after a number of steps."""
        return pipeline.epochs_done(
            step,
            num_examples=len(self.examples),
            global_batch_size=self.config.train.batch_size,
        )

    def make_iterator(self, start_step: int, *, is_one_batch: bool = False) -> Iterator:
        """Returns an iterator over distributed training batches.

        Args:
          start_step: the step whose batch comes first.
          is_one_batch: whether that batch comes again and again, for benchmarks.
        """

        def make_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
            shard = pipeline.Shard.from_context(context)
            dataset = pipeline.make_train_dataset(
                self.examples,
                global_batch_size=self.config.train.batch_size,
                seed=self.config.run.seed,
                start_step=start_step,
                shard=shard,
            )
            if not is_one_batch:
                return dataset
            return dataset.take(shard.num_local_replicas).cache().repeat()

        return iter(self.strategy.distribute_datasets_from_function(make_dataset))

    def step_ids(self, step: int) -> np.ndarray:
        """Returns the ids, int64 [batch_size], of the examples of a step."""
        return pipeline.step_ids(
            step,
            num_examples=len(self.examples),
            global_batch_size=self.config.train.batch_size,
            seed=self.config.run.seed,
        )

    def read_again(self, stop: int) -> None:
        """Reads the examples of the steps from `global_step` on, of which one failed.

        Args:
          stop: the step after the last one that may have failed.

        Raises:
          schema.DataError: if an example is to blame; it names the first such.
        """
        for step in range(int(self.global_step.numpy()), stop):
            self.examples.read(self.step_ids(step))

    def checkpoint_state(self) -> dict[str, object]:
        """Returns all that a checkpoint must hold, by name."""
        state = {
            "model": self.model,
            "optimizer": self.optimizer,
            "loss_scale": self.loss_scale,
            "global_step": self.global_step,
            # Of dropout; `tf.train.Checkpoint` passes over the ones inside layers.
            "seeds": [
                variable.value
                for variable in self.model.non_trainable_variables
                if "seed_generator_state" in variable.path
            ],
        }
        return {**state, "ema": self.ema} if self.ema else state

    def identity(self) -> dict[str, object]:
        """Returns what must not change from one start of a run to the next."""
        return {
            **self.config.identity(),
            "class_names": list(self.info.class_names),
            "train_examples": self.examples.fingerprint,
        }


def prepare_evaluation(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    class_names: tuple[str, ...],
) -> EvalSetup:
    """Makes what `--mode=evaluate` needs; the weights are random.

    Args:
      config: all settings.
      strategy: of `prepare_devices`.
      class_names: those that the model was trained with.

    Raises:
      errors.ConfigError: if settings do not fit the devices or files.
      schema.DataError: if examples cannot be used.
    """
    source = inputs.open_source(config, is_training=False)
    info = inputs.resolve_info(config, source, class_names)
    config = inputs.with_image_range(config, info)
    (opening,) = inputs.open_in_background(config, strategy, info, {"eval": source})
    with strategy.scope():
        model = _build_model(config, info, strategy, has_checkpoint=True)
        ema = _make_ema(config, model)
    return _make_eval_setup(config, strategy, info, opening.result(), model, ema)


def prepare_training(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    stop_requested: tf.Variable,
    *,
    has_checkpoint: bool = False,
) -> TrainSetup:
    """Makes what training needs, with evaluation if the mode asks for it.

    Args:
      config: all settings.
      strategy: of `prepare_devices`.
      stop_requested: ends the training loop; see `trainer.running.preemption`.
      has_checkpoint: whether a checkpoint will give the model its weights, so that none
        are looked for.

    Raises:
      errors.ConfigError: if settings do not fit each other, the devices or files.
      schema.DataError: if examples cannot be used.
    """
    source = inputs.open_source(config, is_training=True)
    info = inputs.resolve_info(config, source)
    config = inputs.with_image_range(config, info)
    num_steps = _count_steps(config, len(source))
    used = {"train": source}
    if config.run.mode != "train":
        used["eval"] = inputs.open_source(config, is_training=False)
    opening, *eval_opening = inputs.open_in_background(config, strategy, info, used)
    with strategy.scope():
        model = _build_model(config, info, strategy, has_checkpoint=has_checkpoint)
        optimizer = _build_optimizer(config.optimizer, num_steps)
        optimizer.build(model.trainable_variables)
        is_float16 = model.dtype_policy.name == "mixed_float16"
        loss_scale = optimization.LossScale(is_dynamic=is_float16)
        ema = _make_ema(config, model)
        confusion = confusion_lib.ConfusionMatrix(info.class_names)
    with tf.device("/CPU:0"):  # Another thread reads it while the devices work.
        global_step = tf.Variable(
            0, trainable=False, dtype=tf.int64, name="global_step"
        )
    loss = _make_loss(config, info, opening)
    # Of the examples on the devices, `fetch` is known once they are there.
    is_on_device = config.data.cache == "device"
    train_loop = training_steps.TrainLoop(
        strategy,
        fetch=opening.result().fetch if is_on_device else pipeline.take_whole,
        model=model,
        optimizer=optimizer,
        loss=loss,
        augment=inputs.make_augment(config),
        confusion=confusion,
        loss_scale=loss_scale,
        global_step=global_step,
        stop_requested=stop_requested,
        ema=ema,
        limit_momentum=functools.partial(normalization.limited_momentum, model)
        if config.train.moving_average_warmup
        else None,
        global_clipnorm=config.optimizer.global_clipnorm,
        enable_xla=config.runtime.enable_xla,
    )
    if not opening.done():  # Other threads decode them, mostly without Python.
        train_loop.prepare(_make_blank_iterator(config, strategy, info))
    examples = opening.result()
    if not has_checkpoint:
        with strategy.scope():
            _measure_images(model, ema, examples)
    evaluation = None
    if eval_opening:
        eval_examples = eval_opening[0].result()
        evaluation = _make_eval_setup(config, strategy, info, eval_examples, model, ema)
    return TrainSetup(
        evaluation=evaluation,
        config=config,
        strategy=strategy,
        info=info,
        examples=examples,
        model=model,
        optimizer=optimizer,
        loss=loss,
        loss_scale=loss_scale,
        global_step=global_step,
        ema=ema,
        confusion=confusion,
        train_loop=train_loop,
        num_steps=num_steps,
    )


def prepare_devices(config: config_lib.Config) -> tf.distribute.Strategy:
    """Sets what holds for the whole process, and makes the strategy.

    Raises:
      errors.ConfigError: if settings do not fit the devices, or those of the other
        workers.
    """
    strategy = distribution.create_strategy(config.runtime)
    cluster.check_settings(strategy, config.as_dict())
    num_replicas = strategy.num_replicas_in_sync
    distribution.check_batch_size(config.train.batch_size, num_replicas)
    distribution.check_xla(config.runtime.enable_xla, num_replicas)
    if config.run.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.run.seed)
    policy = distribution.resolve_precision(config.runtime.mixed_precision)
    keras.config.set_dtype_policy(policy)
    logging.info("%d replicas, precision %s.", num_replicas, policy)
    return strategy


def _count_steps(config: config_lib.Config, num_examples: int) -> int:
    """Returns the length of the run, and checks that the warm-up fits into it."""
    num_steps = config.train.train_steps or pipeline.epoch_end(
        config.train.train_epochs,
        num_examples=num_examples,
        global_batch_size=config.train.batch_size,
    )
    if config.optimizer.warmup_steps >= num_steps:
        raise errors.ConfigError(
            f"--warmup_steps={config.optimizer.warmup_steps} is not less than the "
            f"{num_steps} steps of the run; warm up for less or train for longer."
        )
    return num_steps


def _build_model(
    config: config_lib.Config,
    info: schema.DatasetInfo,
    strategy: tf.distribute.Strategy,
    *,
    has_checkpoint: bool,
) -> keras.Model:
    settings = config.model
    try:
        model = factory.build_model(
            encoder=settings.encoder,
            encoder_options=settings.encoder_options(),
            encoder_weights="none" if has_checkpoint else settings.encoder_weights,
            encoder_bn_momentum=settings.encoder_bn_momentum,
            freeze_encoder=settings.freeze_encoder,
            decoder=settings.decoder,
            decoder_filters=settings.decoder_filters,
            decoder_options=settings.decoder_options(),
            image_size=config.data.image_size,
            images=describe_images(config, info),
            num_classes=info.num_classes,
            synchronized_batch_norm=strategy.num_replicas_in_sync > 1,
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
    config: config_lib.Config, info: schema.DatasetInfo
) -> scaling.Images:
    """Returns what images the model of a run takes."""
    return scaling.Images(
        num_channels=info.image_format.num_channels,
        value_range=info.image_format.value_range,
        is_measured=config.model.image_normalization == "measured",
    )


def _measure_images(
    model: keras.Model,
    ema: ema_lib.ExponentialMovingAverage | None,
    examples: pipeline.Examples,
) -> None:
    """Normalizes the channels that no pretrained scaling is for by what they hold."""
    layer = scaling.find_image_scaling(model)
    if not layer.num_measured:
        return
    measured = statistics.measure_channels(examples)
    layer.set_statistics(*measured)
    if ema:
        ema.start_over()
    first = len(measured.mean) - layer.num_measured
    named = [
        f"{channel}: {measured.mean[channel]:.4g} ± {measured.deviation[channel]:.4g}"
        for channel in range(first, len(measured.mean))
    ]
    logging.info("Channels, mean and deviation: %s.", ", ".join(named))


def _build_optimizer(
    settings: config_lib.OptimizerConfig, num_steps: int
) -> keras.Optimizer:
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


def _make_blank_iterator(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
) -> Iterator:
    """Returns an iterator over distributed training batches without examples."""
    rows = config.train.batch_size // strategy.num_replicas_in_sync
    return iter(
        strategy.distribute_datasets_from_function(
            lambda _: pipeline.make_blank_dataset(
                rows, config.data.image_size, info.image_format
            )
        )
    )


def _make_loss(
    config: config_lib.Config,
    info: schema.DatasetInfo,
    opening: concurrent.futures.Future,
) -> weighted_sum.WeightedSum:
    """Returns the loss of training, its class weights worked out.

    Args:
      config: all settings.
      info: the classes.
      opening: gives the examples, which are waited for if their labels count.
    """
    given = config.loss.class_weights
    if not given:
        return loss_registry.make(config.loss.loss, info.num_classes)
    if given[0] in balance.METHODS:
        counts = balance.count_labels(opening.result())[: info.num_classes]
        weights = balance.class_weights(counts, given[0])
    elif len(given) == info.num_classes:
        weights = np.array(given, np.float64)
    else:
        raise errors.ConfigError(
            f"--class_weights={fields.format_value(given)}: these are {len(given)} "
            f"numbers for {info.num_classes} classes "
            f"({', '.join(info.class_names[:5])}{', ...' * (info.num_classes > 5)}); "
            "give one for each."
        )
    named = zip(info.class_names, weights, strict=True)
    text = ", ".join(f"{name} {weight:.4g}" for name, weight in named)
    logging.info("Class weights: %s.", text)
    return loss_registry.make(config.loss.loss, info.num_classes, weights)


def _make_ema(
    config: config_lib.Config, model: keras.Model
) -> ema_lib.ExponentialMovingAverage | None:
    if not config.train.ema_decay:
        return None
    return ema_lib.ExponentialMovingAverage(model, config.train.ema_decay)


def _make_eval_setup(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    examples: pipeline.Examples,
    model: keras.Model,
    ema: ema_lib.ExponentialMovingAverage | None,
) -> EvalSetup:
    eval_loop, confusion = make_eval_loop(
        strategy,
        examples=examples,
        model=model,
        class_names=info.class_names,
        loss=config.loss.loss,
        metrics=config.evaluation.metrics,
        resize=config.data.resize,
    )
    return EvalSetup(
        config=config,
        strategy=strategy,
        info=info,
        examples=examples,
        model=model,
        eval_loop=eval_loop,
        confusion=confusion,
        ema=ema,
    )


def make_eval_loop(
    strategy: tf.distribute.Strategy,
    *,
    examples: pipeline.Examples,
    model: keras.Model,
    class_names: Sequence[str],
    loss: str,
    metrics: Sequence[str],
    resize: str,
) -> tuple[evaluation_steps.EvalLoop, confusion_lib.ConfusionMatrix]:
    """Makes what scores a model.

    Args:
      strategy: on whose replicas to run.
      examples: the split to evaluate on.
      model: from images to logits.
      class_names: the name of each class.
      loss: as `trainer.losses.registry` reads it; without class weights, which belong
        to the training split.
      metrics: names of metrics besides the confusion matrix.
      resize: how the examples were brought to one size.

    Returns:
      The loop, and the confusion matrix among its metrics.
    """
    with strategy.scope():
        confusion = confusion_lib.ConfusionMatrix(class_names)
        loop = evaluation_steps.EvalLoop(
            strategy,
            fetch=examples.fetch,
            model=model,
            loss=loss_registry.make(loss, len(class_names)),
            metrics=[confusion, *metric_registry.make(metrics, class_names)],
            restore_size=functools.partial(resizing.restore_size, method=resize),
        )
    return loop, confusion
