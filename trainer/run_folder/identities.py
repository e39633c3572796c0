"""What two runs differ in that have to be one."""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from trainer import errors
from trainer.run_folder import checkpoint_folders
from trainer.settings import config as config_lib
from trainer.settings import fields

TRAIN_EXAMPLES = "train_examples"
"""The name, in an identity, of the fingerprint of the training split as it is read."""


def check_settings(config: config_lib.Config) -> None:
    """Compares the settings with those of the checkpoints, before data are decoded.

    Raises:
      errors.CheckpointError: if the run cannot go on with them.
    """
    model_dir = config.run.model_dir
    folder = pathlib.Path(model_dir) / "checkpoints"
    paths = checkpoint_folders.list_checkpoints(folder)[::-1]
    try:
        saved = checkpoint_folders.read_identity(paths) if paths else {}
    except errors.CheckpointError:
        return  # To restore one says more.
    present = config.identity()
    del present["class_names"]  # A file may hold them, or the data set.
    if present["image_range"] is None:
        del present["image_range"]  # Then the data set decides.
    legacy = config_lib.legacy_values()
    if paths and (message := refuse(model_dir, {**legacy, **saved}, present)):
        raise errors.CheckpointError(message)


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
