"""Checkpoints of older versions, which hold more than today's, or less."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.optimizing import optimization

_SEEDS = "seeds/"
_SLOTS = ("optimizer/_variables/", "optimizer/momentums/")


def find_stand_ins(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns objects to read a checkpoint into beside the state, or in its place.

    Args:
      prefix: of the files that `tf.train.Checkpoint` wrote.
      state: what a checkpoint holds today, by name.

    Returns:
      The objects by name; none for a checkpoint of this version.
    """
    reader = tf.train.load_checkpoint(prefix)
    names = sorted(reader.get_variable_to_shape_map())
    found = {}
    # Dropout had states of its own, before its masks became a function of the step.
    seeds = [name for name in names if name.startswith(_SEEDS)]
    if seeds:
        found["seeds"] = [tf.Variable(reader.get_tensor(name)) for name in seeds]
    # SGD had slots only with a momentum.
    optimizer = state.get("optimizer")
    has_slots = any(name.startswith(_SLOTS) for name in names)
    if isinstance(optimizer, optimization.SGD) and not has_slots:
        optimizer.clear_slots()
        found["optimizer"] = optimizer.without_slots()
    return found
