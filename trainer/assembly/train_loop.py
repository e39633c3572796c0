"""What trains on batches, made of variables and mathematics."""

import functools

import tensorflow as tf

from models import randomness
from models.fast import normalization
from trainer.assembly import state as state_lib
from trainer.losses import weighted_sum
from trainer.metrics import confusion as confusion_lib
from trainer.steps import gradients as gradients_lib
from trainer.steps import training


def make_train_loop(
    strategy: tf.distribute.Strategy,
    state: state_lib.State,
    *,
    loss: weighted_sum.WeightedSum,
    class_names: tuple[str, ...],
    batch_size: int,
    seed: int,
    has_average_warmup: bool,
    **kwargs,
) -> tuple[training.TrainLoop, confusion_lib.ConfusionMatrix]:
    """Makes what trains on batches.

    Args:
      strategy: on whose replicas to run.
      state: the variables.
      loss: what to minimize.
      class_names: the name of each class.
      batch_size: rows of a step, over all replicas.
      seed: of what the model draws, as dropout.
      has_average_warmup: whether moving averages soon forget their initial values.
      **kwargs: of `trainer.steps.gradients.Gradients`.

    Returns:
      The loop, and the confusion matrix of its batches.
    """
    limit_momentum = None
    if has_average_warmup:
        limit_momentum = functools.partial(normalization.limited_momentum, state.model)
    with strategy.scope():
        confusion = confusion_lib.ConfusionMatrix(class_names)
        gradients = gradients_lib.Gradients(
            strategy,
            model=state.model,
            loss=loss,
            confusion=confusion,
            loss_scale=state.loss_scale,
            key_by_row=functools.partial(
                randomness.keyed_by_row, global_batch_size=batch_size, seed=seed
            ),
            keep_statistics=functools.partial(
                normalization.kept_statistics, state.model
            ),
            **kwargs,
        )
    loop = training.TrainLoop(
        strategy,
        gradients=gradients,
        variables=state.model.trainable_variables,
        optimizer=state.optimizer,
        num_sums=loss.num_sums,
        loss_scale=state.loss_scale,
        global_step=state.global_step,
        ema=state.ema,
        limit_momentum=limit_momentum,
    )
    return loop, confusion
