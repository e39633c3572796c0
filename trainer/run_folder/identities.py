"""What two runs differ in that have to be one."""

import shlex
from collections.abc import Mapping
from typing import Any

from trainer.settings import fields

TRAIN_EXAMPLES = "train_examples"
"""The name, in an identity, of the fingerprint of the training split as it is read."""


def refuse(model_dir: str, saved: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """Says why a run cannot go on, and what can be done instead.

    Args:
      model_dir: the folder of the run.
      saved: the identity of its checkpoints, as JSON gives it back.
      present: the identity of the process that is to go on with it.

    Returns:
      The message of an error; empty if the two are one run.
    """
    names = [name for name, value in present.items() if saved.get(name) != value]
    if not names:
        return ""
    flagfile = shlex.quote(f"{model_dir}/config.flags")
    weights = f"--init_checkpoint={shlex.quote(model_dir)}"
    new = f"a new run, in another --model_dir, can begin with its weights: {weights}"
    if names == [TRAIN_EXAMPLES]:
        return (
            f"{model_dir} holds a run with other settings: the examples of its "
            "training split have changed since it began (names, sizes or times of "
            "files, what --label_map or --label_colors holds, or the version of what "
            f"decodes them); {new}."
        )
    # With other settings the examples are others, too, which says nothing more.
    differences = "; ".join(
        f"--{name} was {_format(saved.get(name))} and is {_format(present[name])}"
        for name in names
        if name != TRAIN_EXAMPLES
    )
    return (
        f"{model_dir} holds a run with other settings: {differences}. To go on with "
        f"that run, give its settings, which are all in --flagfile={flagfile}; {new}."
    )


def _format(value: Any) -> str:
    """Formats a value as a user would type it."""
    if value is None:
        return "not given"
    if isinstance(value, list):
        value = tuple(value)
    return fields.format_value(value) or "empty"
