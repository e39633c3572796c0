"""What trains on batches, made of variables and mathematics."""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from models import factory, randomness
from models.fast import normalization
from trainer.assembly import state as state_lib
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.optimizing import ema
from trainer.steps import gradients as gradients_lib
from trainer.steps import keeping, phases, training


def make_train_loop(
    strategy: tf.distribute.Strategy,
    state: state_lib.State,
    *,
    class_names: tuple[str, ...],
    encoder_start: int = 0,
    **kwargs,
) -> tuple[phases.PhasedLoop, confusion_lib.ConfusionMatrix]:
    """Makes what trains on batches.

    Args:
      strategy: on whose replicas to run.
      state: the variables.
      class_names: the name of each class.
      encoder_start: the step from which on a trained encoder is trained. Until then it
        is frozen, which costs no more than if it always were.
      **kwargs: of `_make_loop`, the same in all phases.

    Returns:
      The loop, and the confusion matrix of its batches.
    """
    with strategy.scope():
        confusion = confusion_lib.ConfusionMatrix(class_names)
    make = functools.partial(_make_loop, strategy, state, confusion, **kwargs)
    if not encoder_start:
        all_phases = [phases.Phase("", 0, make())]
    else:
        all_phases = [
            phases.Phase("frozen encoder", 0, make(is_frozen=True)),
            phases.Phase(
                "trained encoder", encoder_start, make(encoder_start=encoder_start)
            ),
        ]
    return phases.PhasedLoop(all_phases, state.global_step), confusion


def _make_loop(
    strategy: tf.distribute.Strategy,
    state: state_lib.State,
    confusion: confusion_lib.ConfusionMatrix,
    *,
    loss: weighted_sum.WeightedSum,
    has_average_warmup: bool,
    is_frozen: bool = False,
    encoder_start: int = 0,
    histogram_steps: int = 0,
    **kwargs,
) -> training.TrainLoop:
    """Makes the loop of a phase.

    Args:
      strategy: on whose replicas to run.
      state: the variables.
      confusion: counts the pixels of the batches.
      loss: what to minimize.
      has_average_warmup: whether moving averages soon forget their initial values.
      is_frozen: whether the encoder is frozen, which it is not by itself.
      encoder_start: steps that are done when the encoder has had none.
      histogram_steps: steps from one whose gradients are kept to the next; 0: none are.
      **kwargs: of `_make_gradients`.
    """
    model = state.model
    with strategy.scope(), _frozen_if(is_frozen, model):
        variables = model.trainable_variables
        gradients = _make_gradients(
            strategy, state, loss=loss, confusion=confusion, **kwargs
        )
    keeper = None
    if histogram_steps:
        keeper = keeping.GradientKeeper(variables, interval=histogram_steps)
    return training.TrainLoop(
        strategy,
        gradients=gradients,
        variables=variables,
        optimizer=state.optimizer,
        num_sums=loss.num_sums,
        loss_scale=state.loss_scale,
        global_step=state.global_step,
        ema=state.ema,
        model_at=functools.partial(
            _having_modes,
            model,
            is_frozen=is_frozen,
            encoder_start=encoder_start if has_average_warmup else None,
        ),
        has_average_warmup=has_average_warmup,
        keeper=keeper,
    )


def _make_gradients(
    strategy: tf.distribute.Strategy,
    state: state_lib.State,
    *,
    batch_size: int,
    seed: int,
    **kwargs,
) -> gradients_lib.Gradients:
    """Makes what differentiates the loss; call it in the strategy's scope.

    Args:
      strategy: on whose replicas to run.
      state: the variables.
      batch_size: rows of a step, over all replicas.
      seed: of what the model draws, as dropout.
      **kwargs: of `trainer.steps.gradients.Gradients`.
    """
    return gradients_lib.Gradients(
        strategy,
        model=state.model,
        loss_scale=state.loss_scale,
        key_by_row=functools.partial(
            randomness.keyed_by_row, global_batch_size=batch_size, seed=seed
        ),
        keep_statistics=functools.partial(normalization.kept_statistics, state.model),
        **kwargs,
    )


@contextlib.contextmanager
def _having_modes(
    model: keras.Model,
    step: tf.Tensor,
    *,
    is_frozen: bool,
    encoder_start: int | None,
) -> Iterator[None]:
    """Gives a model, for a while, what it is to be traced with after some steps.

    Args:
      model: of the run.
      step: int64 scalar, the steps.
      is_frozen: whether the encoder is frozen.
      encoder_start: the step from which on it is not; None: momentum has no limit.
    """
    limits = []
    if encoder_start is not None:
        limits.append((model, ema.decay_limit(step)))
    if encoder_start:
        # The statistics at hand are those of an encoder that nobody has trained.
        own_steps = tf.maximum(step - encoder_start, 0)
        limits.append((factory.find_encoder(model), ema.decay_limit(own_steps)))
    with _frozen_if(is_frozen, model), normalization.limited_momentum(limits):
        yield


def _frozen_if(
    is_frozen: bool, model: keras.Model
) -> contextlib.AbstractContextManager:
    return factory.frozen_encoder(model) if is_frozen else contextlib.nullcontext()
