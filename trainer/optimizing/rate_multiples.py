"""Learning rates that are not the same for all variables."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer import keras_private

UNDECAYED = ("gamma", "beta", "bias")
"""Names of the variables that weight decay leaves out."""


class RateMultiple:
    """Lets an optimizer update some variables with a multiple of its learning rate.

    To be named first among the bases of an optimizer. A factor on the gradient would do
    nothing under Adam, whose step does not depend on the gradient's size.
    """

    _multiple = 1.0
    _slowed_ids: frozenset[int] = frozenset()
    _slowed_indices: frozenset[int] = frozenset()
    _decayed_indices: frozenset[int] = frozenset()

    def slow_down(self, variables: Sequence[keras.Variable], multiple: float) -> None:
        """Gives variables a multiple of the learning rate, weight decay included.

        Args:
          variables: some of those that the optimizer will be built with.
          multiple: greater than 0; more than 1 makes them faster.
        """
        self._multiple = multiple
        # A set is nothing that Keras would save.
        self._slowed_ids = frozenset(id(variable) for variable in variables)
        if self.weight_decay:
            # Keras decays by the whole rate; `update_step` does it for these.
            self.exclude_from_weight_decay(variables, list(UNDECAYED))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        slowed = {
            index: variable
            for index, variable in enumerate(variables)
            if id(variable) in self._slowed_ids
        }
        self._slowed_indices = frozenset(slowed)
        self._decayed_indices = frozenset(
            index
            for index, variable in slowed.items()
            if self.weight_decay and not any(x in variable.name for x in UNDECAYED)
        )

    def update_step(
        self,
        gradient: tf.Tensor,
        variable: tf.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates a variable; Keras calls it for one after the other.

        Args:
          gradient: of the loss by the variable.
          variable: to update.
          learning_rate: of the step, that of all other variables.
        """
        index = keras_private.variable_index(self, variable)
        if index in self._slowed_indices:
            learning_rate = tf.cast(learning_rate, variable.dtype) * self._multiple
            if index in self._decayed_indices:
                variable.assign_sub(variable * self.weight_decay * learning_rate)
        super().update_step(gradient, variable, learning_rate)
