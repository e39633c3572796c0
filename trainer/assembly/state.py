"""The variables of a run: all that changes from step to step, and that is saved."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from absl import logging

from data import pipeline
from data.stores import statistics
from models import factory, scaling
from trainer.optimizing import ema as ema_lib
from trainer.optimizing import optimization


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """The variables of a run; made in the strategy's scope.

    Attributes:
      model: from images to logits.
      optimizer: built.
      loss_scale: of float16.
      global_step: int64 variable on the host, steps done.
      ema: moving averages of the weights, or None.
    """

    model: keras.Model
    optimizer: keras.Optimizer
    loss_scale: optimization.LossScale
    global_step: tf.Variable
    ema: ema_lib.ExponentialMovingAverage | None

    def to_save(self) -> dict[str, object]:
        """Returns all that a checkpoint must hold, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def variables(self) -> list[tf.Variable]:
        """Returns all variables that a checkpoint holds."""
        averages = self.ema.averages if self.ema else []
        return [
            *(variable.value for variable in self.model.variables),
            *(variable.value for variable in self.optimizer.variables),
            *self.loss_scale.variables,
            self.global_step,
            *averages,
        ]

    @contextlib.contextmanager
    def put_back(self) -> Iterator[None]:
        """Gives all variables, in the end, the values that they had at the start."""
        before = [variable.numpy() for variable in self.variables()]
        try:
            yield
        finally:
            for variable, value in zip(self.variables(), before, strict=True):
                variable.assign(value)


def make_state(
    strategy: tf.distribute.Strategy,
    build_model: Callable[[], keras.Model],
    build_optimizer: Callable[[], keras.Optimizer],
    *,
    ema_decay: float,
    encoder_lr_multiplier: float = 1.0,
    starts_encoder_late: bool = False,
) -> State:
    """Makes the variables of a run.

    Args:
      strategy: on whose devices they are.
      build_model: builds the model.
      build_optimizer: makes the optimizer.
      ema_decay: of the moving averages; 0: none.
      encoder_lr_multiplier: what multiple of the learning rate the encoder has.
      starts_encoder_late: whether the encoder is trained from a later step on.
    """
    with strategy.scope():
        model = build_model()
        optimizer = build_optimizer()
        if encoder_lr_multiplier != 1:
            encoder = factory.find_encoder(model)
            optimizer.slow_down(encoder.trainable_variables, encoder_lr_multiplier)
        if starts_encoder_late:
            encoder = factory.find_encoder(model)
            optimizer.start_late(encoder.trainable_variables)
        optimizer.build(model.trainable_variables)
        is_float16 = model.dtype_policy.name == "mixed_float16"
        loss_scale = optimization.LossScale(is_dynamic=is_float16)
        ema = make_ema(model, ema_decay)
    with tf.device("/CPU:0"):  # Another thread reads it while the devices work.
        global_step = tf.Variable(
            0, trainable=False, dtype=tf.int64, name="global_step"
        )
    return State(
        model=model,
        optimizer=optimizer,
        loss_scale=loss_scale,
        global_step=global_step,
        ema=ema,
    )


def make_ema(
    model: keras.Model, decay: float
) -> ema_lib.ExponentialMovingAverage | None:
    """Makes moving averages of a model's weights; None without a decay."""
    return ema_lib.ExponentialMovingAverage(model, decay) if decay else None


def measure_images(
    state: State, strategy: tf.distribute.Strategy, examples: pipeline.Examples
) -> None:
    """Normalizes the channels that no pretrained scaling is for by what they hold.

    Args:
      state: of a run that begins.
      strategy: on whose devices it is.
      examples: the split to train on.
    """
    layer = scaling.find_image_scaling(state.model)
    if not layer.num_measured:
        return
    measured = statistics.measure_channels(examples)
    with strategy.scope():
        layer.set_statistics(*measured)
        if state.ema:
            state.ema.start_over()
    first = len(measured.mean) - layer.num_measured
    named = [
        f"{channel}: {measured.mean[channel]:.4g} ± {measured.deviation[channel]:.4g}"
        for channel in range(first, len(measured.mean))
    ]
    logging.info("Channels, mean and deviation: %s.", ", ".join(named))
