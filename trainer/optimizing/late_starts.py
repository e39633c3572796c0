"""Variables that an optimizer begins to update later than others."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer import keras_private


class LateStart:
    """Lets an optimizer count the updates of some variables by themselves.

    Name it among the bases of an optimizer, before Keras' own. All slots of an
    optimizer are there from the start, so that a checkpoint has the same variables
    before and after. Adam's slots begin at zero. To make up for that they are divided
    by 1 - beta^n, with n the updates so far. If n were the count of a long run at the
    first update of a variable, that update would be (1 - 0.9) / sqrt(1 - 0.999) = 3.2
    times as large as it should be.
    """

    _late_ids: frozenset[int] = frozenset()
    _late_indices: frozenset[int] = frozenset()

    def start_late(self, variables: Sequence[keras.Variable]) -> None:
        """Counts the updates of variables from the first one that they have.

        They have none before `apply` is given them for the first time: until then, not
        even weight decay changes them.

        Args:
          variables: some of those that the optimizer will be built with; from their
            first update on, they are all updated.
        """
        # A set is nothing that Keras would save.
        self._late_ids = frozenset(id(variable) for variable in variables)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        if not self._late_ids:
            return
        self._late_indices = frozenset(
            index
            for index, variable in enumerate(variables)
            if id(variable) in self._late_ids
        )
        self._late_iterations = self.add_variable(
            (), dtype="int", aggregation="only_first_replica", name="late_iteration"
        )

    def apply(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Updates variables.

        Args:
          grads: their gradients.
          trainable_variables: the variables; None: all that the optimizer has.
        """
        super().apply(grads, trainable_variables)
        if self._late_ids and (
            trainable_variables is None
            or any(id(variable) in self._late_ids for variable in trainable_variables)
        ):
            self._late_iterations.assign_add(1)

    def updates_of(self, variable: tf.Variable) -> keras.Variable:
        """Returns how many updates a variable has had.

        Args:
          variable: as `update_step` is given it.
        """
        is_late = keras_private.variable_index(self, variable) in self._late_indices
        return self._late_iterations if is_late else self.iterations
