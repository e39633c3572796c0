"""What training needs, made from the settings."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from data import pipeline, schema
from models import encoders
from trainer import tensorflow_private
from trainer.assembly import augmenting, initializing, inputs, losses
from trainer.assembly import evaluation as evaluation_lib
from trainer.assembly import length as length_lib
from trainer.assembly import model as model_lib
from trainer.assembly import state as state_lib
from trainer.assembly import train_loop as train_loop_lib
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.settings import config as config_lib
from trainer.steps import phases


@dataclasses.dataclass(frozen=True)
class TrainSetup:
    """What training needs.

    Attributes:
      evaluation: the part for scoring; None if the run has no evaluation.
      strategy: the devices.
      info: classes of the data set.
      examples: the split to train on.
      state: the variables.
      loss: what is minimized.
      confusion: of the training batches.
      train_loop: trains on batches.
      length: int64 variable on the host, the steps of the run; see `length.py`.
      batch_size: rows of a step, over all replicas.
      seed: of the order of examples.
      architecture: of the encoder, if it is built of a preset; see `encoders.Preset`.
    """

    evaluation: evaluation_lib.EvalSetup | None
    strategy: tf.distribute.Strategy
    info: schema.DatasetInfo
    examples: pipeline.Examples
    state: state_lib.State
    loss: weighted_sum.WeightedSum
    confusion: confusion_lib.ConfusionMatrix
    train_loop: phases.PhasedLoop
    length: tf.Variable
    batch_size: int
    seed: int
    architecture: Mapping[str, Any] | None

    @property
    def num_steps(self) -> int:
        """Length of the run."""
        return int(self.length.numpy())

    @property
    def step(self) -> int:
        """How many steps are done."""
        return int(self.state.global_step.numpy())

    def epochs_done(self, step: int) -> int:
        """Returns how many epochs have been seen whole after a number of steps."""
        return pipeline.epochs_done(
            step, num_examples=len(self.examples), global_batch_size=self.batch_size
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
                global_batch_size=self.batch_size,
                seed=self.seed,
                start_step=start_step,
                shard=shard,
            )
            if not is_one_batch:
                return dataset
            return dataset.take(shard.num_local_replicas).cache().repeat()

        return tensorflow_private.distribute(self.strategy, make_dataset)

    def step_ids(self, step: int) -> np.ndarray:
        """Returns the ids, int64 [batch_size], of the examples of a step."""
        return pipeline.step_ids(
            step,
            num_examples=len(self.examples),
            global_batch_size=self.batch_size,
            seed=self.seed,
        )

    def read_again(self, start: int, stop: int) -> None:
        """Reads the examples of steps of which one failed.

        Raises:
          schema.DataError: if an example is to blame; it names the first such.
        """
        for step in range(start, stop):
            self.examples.read(self.step_ids(step))


def prepare_training(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    stop_requested: tf.Variable,
    *,
    saved_step: int | None = None,
) -> TrainSetup:
    """Makes what training needs, with evaluation if the mode asks for it.

    Args:
      config: all settings.
      strategy: of `devices.prepare_devices`.
      stop_requested: ends the training loop; see `trainer.running.preemption`.
      saved_step: of the checkpoint that will give the variables their values, or None.

    Raises:
      errors.RunError: if settings do not fit each other, devices, files, another run.
      schema.DataError: if examples cannot be used.
    """
    source = inputs.open_source(config, is_training=True)
    info = inputs.resolve_info(config, source)
    length = length_lib.make(config, len(source))
    encoder_start = length_lib.find_encoder_start(config, len(source), length)
    is_new = saved_step is None
    preset = _open_preset(config, info, is_new)
    used = _open_used(config, source)
    opening, *eval_opening = inputs.open_in_background(config, strategy, info, used)
    state = _make_state(config, strategy, info, length, not is_new, preset)
    loss = losses.make_loss(config, info, opening)
    changes = _make_changes(config, strategy, info, opening)
    train_loop, confusion = _make_loop(
        config, strategy, info, state, loss, stop_requested, encoder_start, **changes
    )
    if not opening.done():  # Other threads decode them, mostly without Python.
        blank = _make_blank_iterator(config, strategy, info)
        train_loop.prepare(blank, saved_step or 0)
    examples = opening.result()
    if is_new:
        _begin(state, strategy, config, info, examples)
    return TrainSetup(
        evaluation=_make_evaluation(config, strategy, info, eval_opening, state),
        strategy=strategy,
        info=info,
        examples=examples,
        state=state,
        loss=loss,
        confusion=confusion,
        train_loop=train_loop,
        length=length,
        batch_size=config.train.batch_size,
        seed=config.run.seed,
        architecture=preset and preset.architecture,
    )


def _open_preset(
    config: config_lib.Config, info: schema.DatasetInfo, is_new: bool
) -> encoders.Preset | None:
    """Opens the encoder's preset, if it has one; checks what a new run takes over."""
    if not is_new:
        return model_lib.open_preset(config.model, config.run.model_dir)
    initializing.check(config, info.class_names)
    return model_lib.open_preset(config.model, initializing.folder_of(config))


def _open_used(
    config: config_lib.Config, source: schema.Source
) -> dict[str, schema.Source]:
    """Returns the splits that the mode has a use for; one is given."""
    if config.run.mode == "train":
        return {"train": source}
    return {"train": source, "eval": inputs.open_source(config, is_training=False)}


def _make_evaluation(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    opening: Sequence[concurrent.futures.Future],
    state: state_lib.State,
) -> evaluation_lib.EvalSetup | None:
    """Returns the part for scoring; None if there are no examples for it."""
    if not opening:
        return None
    return evaluation_lib.make_eval_setup(
        config, strategy, info, opening[0].result(), state.model, state.ema
    )


def _begin(
    state: state_lib.State,
    strategy: tf.distribute.Strategy,
    config: config_lib.Config,
    info: schema.DatasetInfo,
    examples: pipeline.Examples,
) -> None:
    """Gives the variables of a new run what its encoder's weights do not bring."""
    if config.model.init_checkpoint:
        initializing.take_over(state, strategy, config, info)
    else:
        state_lib.measure_images(state, strategy, examples)


def _make_state(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    length: tf.Variable,
    has_checkpoint: bool,
    preset: encoders.Preset | None,
) -> state_lib.State:
    # Evaluation sees more than a window, and images at other scales.
    takes_any_size = config.augmentation.crop_size or (
        config.run.mode != "train" and config.evaluation.variants.scales
    )
    return state_lib.make_state(
        strategy,
        lambda: model_lib.build_model(
            config.model,
            image_size=(None, None) if takes_any_size else config.data.image_size,
            image_format=info.image_format,
            num_classes=info.num_classes,
            num_replicas=strategy.num_replicas_in_sync,
            has_checkpoint=has_checkpoint or bool(config.model.init_checkpoint),
            preset=preset,
        ),
        lambda: model_lib.build_optimizer(config.optimizer, length),
        ema_decay=config.train.ema_decay,
        encoder_lr_multiplier=config.optimizer.encoder_lr_multiplier,
        starts_encoder_late=config.model.unfreeze_encoder_at is not None,
    )


def _make_changes(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    opening: concurrent.futures.Future,
) -> dict[str, Callable]:
    """Returns what completes a batch (`fetch`), and what changes it (`augment`)."""
    augment = augmenting.make_augment(
        config,
        info.image_format,
        num_classes=info.num_classes,
        num_replicas=strategy.num_replicas_in_sync,
    )
    # Of the examples on the devices, `fetch` is known once they are there.
    is_on_device = config.data.cache == "device"
    fetch = opening.result().fetch if is_on_device else pipeline.take_whole
    return {"fetch": fetch, "augment": augment}


def _make_loop(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
    state: state_lib.State,
    loss: weighted_sum.WeightedSum,
    stop_requested: tf.Variable,
    encoder_start: int,
    *,
    fetch: Callable,
    augment: Callable,
) -> tuple[phases.PhasedLoop, confusion_lib.ConfusionMatrix]:
    """Makes what trains on batches, which are fetched and augmented first."""
    return train_loop_lib.make_train_loop(
        strategy,
        state,
        loss=loss,
        class_names=info.class_names,
        stop_requested=stop_requested,
        encoder_start=encoder_start,
        fetch=fetch,
        augment=augment,
        batch_size=config.train.batch_size,
        seed=config.run.seed,
        has_average_warmup=config.train.moving_average_warmup,
        measures_input=not tensorflow_private.is_deterministic(),
        num_parts=config.train.gradient_accumulation_steps,
        global_clipnorm=config.optimizer.global_clipnorm,
        enable_xla=config.runtime.enable_xla,
        histogram_steps=config.monitoring.summary_histograms,
    )


def make_loop_without_augmentation(
    config: config_lib.Config, setup: TrainSetup, stop_requested: tf.Variable
) -> phases.PhasedLoop | None:
    """Makes a loop on the variables of a run that leaves the random changes out.

    Args:
      config: all settings.
      setup: of the run.
      stop_requested: ends the loop.

    Returns:
      The loop, for benchmarks, of steps as the last ones of the run are; None if the
      run itself makes no random change.
    """
    if not augmenting.has_changes(config):
        return None
    train_loop, _ = _make_loop(
        config,
        setup.strategy,
        setup.info,
        setup.state,
        setup.loss,
        stop_requested,
        0,
        fetch=setup.examples.fetch,
        augment=augmenting.make_stand_in(config),
    )
    return train_loop


def _make_blank_iterator(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    info: schema.DatasetInfo,
) -> Iterator:
    """Returns an iterator over distributed training batches without examples."""
    rows = config.train.batch_size // strategy.num_replicas_in_sync
    return tensorflow_private.distribute(
        strategy,
        lambda _: pipeline.make_blank_dataset(
            rows, config.data.image_size, info.image_format
        ),
    )
