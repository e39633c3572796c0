"""The objects of a run, made from its settings.

The one place that sees configuration, data and models together; what it hands on are
plain objects that know no flag.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from data import (
    augment,
    balance,
    device_store,
    labels,
    mask_values,
    pipeline,
    preprocessing,
    schema,
    sources,
    store,
    streaming,
)
from models import encoders, factory
from trainer import (
    cluster,
    distribution,
    errors,
    losses,
    metrics,
    optimization,
    schedules,
    steps,
)
from trainer import config as config_lib
from trainer import ema as ema_lib


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
      ema: moving averages to evaluate in place of the weights, or None.
    """

    config: config_lib.Config
    strategy: tf.distribute.Strategy
    info: schema.DatasetInfo
    examples: pipeline.Examples
    model: keras.Model
    eval_loop: steps.EvalLoop
    ema: ema_lib.ExponentialMovingAverage | None

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
                    global_batch_size=self.config.train.batch_size,
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
        batch_size = self.config.train.batch_size
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
    loss_scale: optimization.LossScale
    global_step: tf.Variable
    ema: ema_lib.ExponentialMovingAverage | None
    confusion: metrics.ConfusionMatrix
    train_loop: steps.TrainLoop
    num_steps: int

    @property
    def num_replicas(self) -> int:
        """Devices that share each batch, on all hosts."""
        return self.strategy.num_replicas_in_sync

    def epoch_end(self, epoch: int) -> int:
        """Returns the first step count at which `epoch` epochs have been seen."""
        return pipeline.epoch_end(
            epoch,
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


@dataclasses.dataclass(frozen=True)
class InspectionSetup:
    """What looking through a data set needs.

    Attributes:
      train: the split to train on; its files may have problems.
      evaluation: the one to evaluate on, None if it cannot be opened.
      evaluation_error: why it cannot.
      info: classes of the data set; None if it is not known how many there are.
      preprocessor: how examples become arrays; None without `info`.
      convention: what the settings say of mask values.
      augment: the random changes to training examples.
    """

    train: schema.Source
    evaluation: schema.Source | None
    evaluation_error: schema.DataError | None
    info: schema.DatasetInfo | None
    preprocessor: preprocessing.Preprocessor | None
    convention: mask_values.Convention
    augment: Callable


def prepare_inspection(config: config_lib.Config) -> InspectionSetup:
    """Makes what `--mode=doctor` needs.

    Args:
      config: all settings.

    Raises:
      schema.DataError: if there is no split to train on, or settings and files
        contradict each other.
    """
    train = _open_source(config, is_training=True, allow_problems=True)
    evaluation, evaluation_error = None, None
    try:
        evaluation = _open_source(config, is_training=False, allow_problems=True)
    except schema.DataError as error:
        evaluation_error = error
    info, preprocessor = None, None
    convention = mask_values.Convention(None, ignore_label=config.data.ignore_label)
    try:
        info = _resolve_info(config, train)
    except schema.DataError as error:
        if error.kind != "classes_unknown":
            raise
    else:
        preprocessor = _make_preprocessor(config, info)
        convention = preprocessor.convention
    return InspectionSetup(
        train=train,
        evaluation=evaluation,
        evaluation_error=evaluation_error,
        info=info,
        preprocessor=preprocessor,
        convention=convention,
        augment=_make_augment(config),
    )


def prepare_evaluation(
    config: config_lib.Config, strategy: tf.distribute.Strategy
) -> EvalSetup:
    """Makes what `--mode=evaluate` needs.

    Args:
      config: all settings.
      strategy: of `prepare_devices`.

    Raises:
      errors.ConfigError: if settings do not fit the devices or files.
      schema.DataError: if examples cannot be used.
    """
    source = _open_source(config, is_training=False)
    info = _resolve_info(config, source)
    (opening,) = _open_in_background(config, strategy, info, [source])
    with strategy.scope():
        model = _build_model(config, info, strategy)
        ema = _make_ema(config, model)
    return _make_eval_setup(config, strategy, info, opening.result(), model, ema)


def prepare_training(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    stop_requested: tf.Variable,
) -> TrainSetup:
    """Makes what training needs, with evaluation if the mode asks for it.

    Args:
      config: all settings.
      strategy: of `prepare_devices`.
      stop_requested: ends the training loop; see `trainer.preemption`.

    Raises:
      errors.ConfigError: if settings do not fit each other, the devices or files.
      schema.DataError: if examples cannot be used.
    """
    source = _open_source(config, is_training=True)
    info = _resolve_info(config, source)
    num_steps = _count_steps(config, len(source))
    used = [source]
    if config.run.mode != "train":
        used.append(_open_source(config, is_training=False))
    opening, *eval_opening = _open_in_background(
        config, strategy, info, used, is_training=True
    )
    with strategy.scope():
        model = _build_model(config, info, strategy)
        optimizer = _build_optimizer(config.optimizer, num_steps)
        optimizer.build(model.trainable_variables)
        is_float16 = model.dtype_policy.name == "mixed_float16"
        loss_scale = optimization.LossScale(is_dynamic=is_float16)
        ema = _make_ema(config, model)
        confusion = metrics.ConfusionMatrix(info.num_classes)
    with tf.device("/CPU:0"):  # Another thread reads it while the devices work.
        global_step = tf.Variable(
            0, trainable=False, dtype=tf.int64, name="global_step"
        )
    examples = opening.result()
    train_loop = steps.TrainLoop(
        strategy,
        fetch=examples.fetch,
        model=model,
        optimizer=optimizer,
        loss=losses.cross_entropy,
        augment=_make_augment(config),
        confusion=confusion,
        loss_scale=loss_scale,
        global_step=global_step,
        stop_requested=stop_requested,
        ema=ema,
        global_clipnorm=config.optimizer.global_clipnorm,
        enable_xla=config.runtime.enable_xla,
    )
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
      errors.ConfigError: if settings do not fit the devices.
    """
    strategy = distribution.create_strategy(config.runtime)
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


def _open_source(
    config: config_lib.Config, *, is_training: bool, allow_problems: bool = False
) -> schema.Source:
    data = config.data
    return sources.open_source(
        data.dataset,
        split=data.train_split if is_training else data.eval_split,
        is_training=is_training,
        image_size=data.image_size,
        data_dir=data.data_dir,
        image_key=data.image_key,
        label_key=data.label_key,
        image_pattern=data.images,
        mask_pattern=data.masks,
        train_fraction=data.train_fraction,
        seed=config.run.seed,
        allow_problems=allow_problems,
    )


def _resolve_info(
    config: config_lib.Config, source: schema.Source
) -> schema.DatasetInfo:
    data = config.data
    return labels.resolve_info(
        source.info,
        class_names=data.class_names,
        num_classes=data.num_classes,
        label_offset=data.label_offset,
        label_colors=data.label_colors,
        label_map=data.label_map,
    )


def _open_in_background(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    used: Sequence[schema.Source],
    *,
    is_training: bool = False,
) -> list[concurrent.futures.Future]:
    """Opens stores one after the other, while the caller builds the model.

    With `is_training` the first of them is the split to train on, and is checked.
    """

    def open_store(index, source):
        examples = _open_store(config, strategy, info, source)
        if is_training and index == 0:
            _check_classes(config, info, examples)
        return examples

    executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    openings = [executor.submit(open_store, *item) for item in enumerate(used)]
    if cluster.num_workers(strategy) > 1:
        # Workers exchange what they decoded, and the variables of the model: all must
        # come in the same order everywhere.
        concurrent.futures.wait(openings)
    executor.shutdown(wait=False)
    return openings


def _open_store(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    source: schema.Source,
) -> pipeline.Examples:
    """Opens the examples of a source where `--cache` wants them."""
    preprocessor = _make_preprocessor(config, info)
    if config.data.cache == "none":
        return streaming.StreamingStore(source, preprocessor)
    examples = store.open_store(
        source,
        preprocessor,
        cache="disk" if config.data.cache == "disk" else "memory",
        cache_dir=config.data.cache_dir,
        share=store.Share(
            index=cluster.worker_index(strategy),
            count=cluster.num_workers(strategy),
            add_up=functools.partial(cluster.sum_over_workers, strategy),
        ),
    )
    if config.data.cache == "device":
        return device_store.place(examples, strategy)
    return examples


def _make_preprocessor(
    config: config_lib.Config, info: schema.DatasetInfo
) -> preprocessing.Preprocessor:
    return preprocessing.Preprocessor(
        image_size=config.data.image_size,
        num_classes=info.num_classes,
        label_offset=info.label_offset,
        ignore_label=config.data.ignore_label,
        label_map=info.label_map,
        label_colors=info.label_colors,
    )


def _check_classes(
    config: config_lib.Config, info: schema.DatasetInfo, examples: pipeline.Examples
) -> None:
    """Refuses to train on a split with pixels of fewer than two classes.

    Raises:
      schema.DataError: if there are not more.
    """
    if config.data.cache == "none":
        return  # To count is to decode the whole split.
    counts = balance.count_labels(examples)
    diagnosis = mask_values.diagnose_classes(
        counts,
        _make_preprocessor(config, info).convention,
        class_names=info.class_names,
        has_label_colors=bool(info.label_colors),
    )
    if diagnosis:
        raise schema.DataError(f"{examples.name}: {diagnosis}.", kind=diagnosis.kind)
    absent = np.flatnonzero(counts[: info.num_classes] == 0)
    if absent.size:
        logging.warning(
            "%s has no pixel of %s; nothing is learned of them. --mode=doctor tells "
            "more.",
            examples.name,
            ", ".join(info.class_names[label] for label in absent),
        )


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
) -> keras.Model:
    settings = config.model
    try:
        model = factory.build_model(
            encoder=settings.encoder,
            encoder_alpha=settings.encoder_alpha,
            encoder_weights=settings.encoder_weights,
            encoder_bn_momentum=settings.encoder_bn_momentum,
            freeze_encoder=settings.freeze_encoder,
            decoder=settings.decoder,
            decoder_filters=settings.decoder_filters,
            decoder_dropout=settings.decoder_dropout,
            image_size=config.data.image_size,
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
        "U-Net with %s: %s parameters, %s of them trainable.",
        settings.encoder,
        f"{model.count_params():,}",
        f"{sum(v.value.shape.num_elements() for v in model.trainable_variables):,}",
    )
    return model


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


def _make_augment(config: config_lib.Config):
    data = config.data
    changes = {
        "flip": data.horizontal_flip,
        "scale": data.random_scale,
        "brightness": data.random_brightness,
        "contrast": data.random_contrast,
        "saturation": data.random_saturation,
    }
    if not any(changes.values()):
        return augment.keep
    return augment.RandomAugment(
        global_batch_size=config.train.batch_size, seed=config.run.seed, **changes
    )


def _make_ema(
    config: config_lib.Config, model: keras.Model
) -> ema_lib.ExponentialMovingAverage | None:
    if not config.train.ema_decay:
        return None
    return ema_lib.ExponentialMovingAverage(model, config.train.ema_decay)


def _make_eval_setup(config, strategy, info, examples, model, ema) -> EvalSetup:
    with strategy.scope():
        eval_loop = steps.EvalLoop(
            strategy,
            fetch=examples.fetch,
            model=model,
            loss=losses.cross_entropy,
            num_classes=info.num_classes,
        )
    return EvalSetup(
        config=config,
        strategy=strategy,
        info=info,
        examples=examples,
        model=model,
        eval_loop=eval_loop,
        ema=ema,
    )
