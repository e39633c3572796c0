"""What the trainer uses of Keras that Keras does not promise to keep.

It stands in this module alone and is looked for when the module is imported: another
version of Keras ends the run at its start, with a sentence that says what to install.
"""

import inspect

import keras
import tensorflow as tf

from trainer import errors

KNOWN_VERSIONS = "3.10 to 3.15"
"""The versions of Keras that the tests have run with, first and last."""

_REDUCTION_HOOK = "_all_reduce_sum_gradients"


def take_gradients_as_they_are(optimizer: keras.Optimizer) -> None:
    """Switches off the optimizer's own sum of the gradients over replicas.

    Keras 3 has no public switch for it (keras-team/keras#19308), and our gradients
    come summed: added up twice, they would grow with the number of replicas.
    """
    setattr(optimizer, _REDUCTION_HOOK, list)


def variable_index(optimizer: keras.Optimizer, variable: tf.Variable) -> int:
    """Returns the place of a variable among those that an optimizer was built with.

    Args:
      optimizer: built.
      variable: as `update_step` is given it.
    """
    return optimizer._get_variable_index(variable)


def adam_slots(
    optimizer: keras.optimizers.Adam, variable: tf.Variable
) -> tuple[tf.Variable, tf.Variable]:
    """Returns the two moving averages that Adam keeps for a variable.

    Args:
      optimizer: built.
      variable: as `update_step` is given it.

    Returns:
      That of the gradients, and that of their squares.
    """
    index = variable_index(optimizer, variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value


def check_keras() -> None:
    """Checks that this Keras has what the module uses.

    Raises:
      errors.ConfigError: if it has not.
    """
    kind = keras.optimizers.Adam
    # No optimizer is made to look at: its variables would set up the devices.
    made_by_build = inspect.unwrap(kind.build).__code__.co_names
    names = {
        _REDUCTION_HOOK: hasattr(kind, _REDUCTION_HOOK),
        "_get_variable_index": hasattr(kind, "_get_variable_index"),
        "_momentums": "_momentums" in made_by_build,
        "_velocities": "_velocities" in made_by_build,
    }
    missing = [name for name, is_there in names.items() if not is_there]
    if missing:
        raise errors.ConfigError(
            f"Keras {keras.__version__} has no {missing[0]} in its optimizers, which "
            f"segloop needs; Keras {KNOWN_VERSIONS} are known to work: "
            "`bash launch/install.sh` installs the tested version."
        )


check_keras()
