"""Optimizers, and the loss scale of float16.

Clipping and the check for finite gradients are in `trainer.steps.training`, after the
sum over replicas: Keras does both before it, replica by replica.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer import keras_private
from trainer.optimizing import late_starts, rate_multiples


def build_optimizer(
    name: str,
    learning_rate: keras.optimizers.schedules.LearningRateSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> keras.Optimizer:
    """Builds an optimizer.

    Args:
      name: `adam` (Kingma & Ba, ICLR 2015), `adamw` (Loshchilov & Hutter, ICLR 2019),
        `sgd`, or `lion` (Chen et al., NeurIPS 2023, arXiv:2302.06675).
      learning_rate: a schedule.
      momentum: of sgd.
      weight_decay: decoupled; of all but adam. Batch-norm scales, shifts and biases
        are left out.

    Returns:
      An optimizer that is a `rate_multiples.RateMultiple` and a
      `late_starts.LateStart`, too.
    """
    optimizer = {
        "adam": lambda: Adam(learning_rate),
        "adamw": lambda: AdamW(learning_rate, weight_decay=weight_decay),
        "sgd": lambda: SGD(
            learning_rate, momentum=momentum, weight_decay=weight_decay or None
        ),
        "lion": lambda: Lion(learning_rate, weight_decay=weight_decay or None),
    }[name]()
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(rate_multiples.UNDECAYED))
    keras_private.take_gradients_as_they_are(optimizer)
    return optimizer


class _OneOpUpdate:
    """Adam's update of a variable as one op of TensorFlow's.

    Keras makes 35 ops of it, for each of up to 180 variables: a third of the graph of a
    step, to be traced, optimized and, on a GPU, launched one by one.
    """

    def update_step(
        self,
        gradient: tf.Tensor,
        variable: keras.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        momentum, velocity = keras_private.adam_slots(self, variable)
        dtype = variable.dtype
        step = tf.cast(self.updates_of(variable) + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=keras.ops.cast(self.beta_1, dtype.name) ** step,
            beta2_power=keras.ops.cast(self.beta_2, dtype.name) ** step,
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )


class _Uneven(rate_multiples.RateMultiple, late_starts.LateStart):
    """An optimizer that does not treat all variables alike."""


class Adam(_Uneven, _OneOpUpdate, keras.optimizers.Adam):
    """Keras' Adam, updated by one op for each variable."""


class AdamW(_Uneven, _OneOpUpdate, keras.optimizers.AdamW):
    """Keras' AdamW, updated by one op for each variable."""


class SGD(_Uneven, keras.optimizers.SGD):
    """Keras' gradient descent, with slots for the momentum even where that is 0.

    So a run can go on with a momentum or without: its checkpoints are the same.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        momentum, self.momentum = self.momentum, 1.0  # Keras makes no slots for 0.
        super().build(variables)
        self.momentum = momentum

    def update_step(
        self,
        gradient: tf.Tensor,
        variable: tf.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates a variable; see `rate_multiples.RateMultiple.update_step`."""
        super().update_step(gradient, variable, learning_rate)
        if not self.momentum:
            # A run that had a momentum once, and has one again, begins it anew.
            slot = self.momentums[keras_private.variable_index(self, variable)]
            self.assign(slot, keras.ops.zeros_like(slot))

    def without_slots(self) -> tf.train.Checkpoint:
        """Returns what stands for it in a checkpoint that has none of its slots.

        Older versions made none for a momentum of 0. The names are those that their
        checkpoints have.
        """
        counts = {"_iterations": self.iterations.value}
        if self._late_ids:
            counts["_late_iterations"] = self._late_iterations.value
        return tf.train.Checkpoint(**counts)

    def clear_slots(self) -> None:
        """Gives the slots the values that they have before the first update."""
        for slot in self.momentums:
            slot.assign(keras.ops.zeros_like(slot))


class Lion(_Uneven, keras.optimizers.Lion):
    """Keras' Lion."""


_FIRST_SCALE = 2.0**15


class LossScale(tf.Module):
    """A factor on the loss that keeps float16 gradients from vanishing.

    It doubles after `growth_interval` finite steps in a row and halves at each step
    whose gradients overflow (Micikevicius et al., ICLR 2018, arXiv:1710.03740). The
    caller says once for all replicas whether a step was finite. Keras' own
    `LossScaleOptimizer` asks replica 0 alone.

    A run may go on in another precision, and a checkpoint has the variables of both
    kinds of scale. One that is not dynamic has no use for them and leaves them as they
    are. One that is dynamic starts afresh where a run has never scaled: the scale is 1
    and the count 0, which a dynamic scale never has together.
    """

    def __init__(self, *, is_dynamic: bool, growth_interval: int = 2000):
        """Makes a scale; call it in the scope of the strategy.

        Args:
          is_dynamic: True for float16; False for a scale of 1 for ever.
          growth_interval: finite steps before the scale doubles.
        """
        super().__init__(name="loss_scale")
        self.is_dynamic = is_dynamic
        self._growth_interval = growth_interval
        self.scale = tf.Variable(
            _FIRST_SCALE if is_dynamic else 1.0, trainable=False, name="scale"
        )
        self.finite_steps = tf.Variable(
            0, trainable=False, dtype=tf.int64, name="finite_steps"
        )

    def value(self) -> tf.Tensor:
        """Returns the factor on the loss of the present step, float32 scalar."""
        if not self.is_dynamic:
            return tf.ones([])
        scale = self.scale.read_value()
        is_of_no_scaling = (scale == 1.0) & (self.finite_steps.read_value() == 0)
        return tf.where(is_of_no_scaling, _FIRST_SCALE, scale)

    def can_shrink(self) -> tf.Tensor:
        """Tells, bool scalar, whether a smaller scale could mend an overflow."""
        return self.value() > 1.0

    def update(self, is_finite: tf.Tensor) -> None:
        """Moves the scale on by a step; call it in cross-replica context.

        Args:
          is_finite: bool scalar, whether the step's gradients are finite.
        """
        if not self.is_dynamic:
            return
        before = self.value()
        scale = tf.where(is_finite, before, tf.maximum(before / 2, 1.0))
        # At a scale of 1, a count of 0 would look like a run that has never scaled.
        first = tf.cast(scale == 1.0, tf.int64)
        steps = tf.where(is_finite, self.finite_steps + 1, first)
        is_grown = steps >= self._growth_interval
        # float32's largest power of two; past it the scale itself would overflow.
        self.scale.assign(tf.minimum(tf.where(is_grown, scale * 2, scale), 2.0**127))
        self.finite_steps.assign(tf.where(is_grown, tf.zeros([], tf.int64), steps))
