"""The settings of a run as they lie in its folder."""

import json
import pathlib
import shlex
from typing import Any

from absl import logging

from trainer import errors, files
from trainer.settings import config as config_lib
from trainer.settings import fields

FORMAT_VERSION = 2
"""Of `config.json`; files without a version are of version 1, and are read as well."""
_OF_SCORES = frozenset({"eval_native_size", "metrics", "mixed_precision", "tta"})
"""What scores depend on, besides the data and the identity of the run."""


def write(model_dir: str, config: config_lib.Config) -> None:
    """Writes the settings as JSON, and as a flagfile that repeats the training.

    Raises:
      errors.WriteError: if that fails.
    """
    folder = pathlib.Path(model_dir)
    values = {"format_version": FORMAT_VERSION, **config.saved()}
    files.write_text(folder / "config.json", json.dumps(values, indent=2) + "\n")
    files.write_text(folder / "config.flags", config.to_flagfile())


def exist(model_dir: str) -> bool:
    """Tells whether there is a run in a folder."""
    return (pathlib.Path(model_dir) / "config.json").is_file()


def read(model_dir: str) -> dict[str, Any]:
    """Reads the settings that the run in a folder was last trained with.

    A setting that came later than the run has the value that this stands for; see
    `legacy` of `settings.fields.setting`.

    Returns:
      All settings that describe a run, by name.

    Raises:
      errors.CheckpointError: if the folder is not that of a run, or of a later version
        of this package.
    """
    path = pathlib.Path(model_dir) / "config.json"
    try:
        saved = json.loads(path.read_text("utf-8"))
        version = saved.pop("format_version", 1)
        is_known = isinstance(version, int) and version <= FORMAT_VERSION
    except FileNotFoundError as error:
        raise errors.CheckpointError(
            f"--model_dir={model_dir} is not the folder of a run: there is no "
            "config.json in it. Name the folder that was --model_dir in training."
        ) from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise errors.CheckpointError(
            f"{path} cannot be read ({error}); write it anew by starting the training "
            "again with its own flags."
        ) from error
    if not is_known:
        raise errors.CheckpointError(
            f"{path} has the format version {version}, and this segloop knows "
            f"{FORMAT_VERSION} and older ones; install the segloop that trained it."
        )
    settings = config_lib.fields_by_name()
    unknown = saved.keys() - settings
    if unknown:
        logging.warning(
            "%s: %s is no setting of this version and does not count.",
            path,
            ", ".join(sorted(unknown)),
        )
    values = {**config_lib.legacy_values(), **saved}
    return {
        name: _restore_value(values[name], field, path)
        for name, field in settings.items()
        if field.metadata["is_saved"]
    }


def find_changes(
    model_dir: str, config: config_lib.Config
) -> dict[str, tuple[Any, Any]]:
    """Finds the settings that are others than when the run was last started.

    Returns:
      The value of then and that of now, by name.

    Raises:
      errors.CheckpointError: as `read`.
    """
    present = config.as_dict()
    return {
        name: (value, present[name])
        for name, value in read(model_dir).items()
        if present[name] != value
    }


def log_changes(model_dir: str, config: config_lib.Config) -> None:
    """Says which settings are others than when the run was last started."""
    try:
        changes = find_changes(model_dir, config)
    except errors.CheckpointError as error:
        logging.warning("What has changed in the settings is not known: %s", error)
        return
    for name, values in changes.items():
        logging.info(
            "--%s was %s and is %s now.", name, *map(fields.format_value, values)
        )


def find_other_scoring(model_dir: str, config: config_lib.Config) -> list[str]:
    """Finds the settings for which the scores of a run would be others.

    Settings of its identity, which cannot be others, are not looked at.

    Returns:
      Flags with the values of `config`, as a shell takes them; none if the settings of
      the run cannot be read, of which `log_changes` warns.
    """
    try:
        changes = find_changes(model_dir, config)
    except errors.CheckpointError:
        return []
    found = []
    for name, (_, value) in changes.items():
        metadata = config_lib.fields_by_name()[name].metadata
        is_of_data = metadata["describes_data"] and not metadata["identity"]
        is_used = is_of_data and "evaluate" not in metadata["unused_by"]
        if is_used or name in _OF_SCORES:
            found.append(f"--{name}={shlex.quote(fields.format_value(value))}")
    return found


def _restore_value(value: Any, field: Any, path: pathlib.Path) -> Any:
    """Returns what JSON made a value of."""
    scalar, is_list = fields.value_type(field)
    accepts = (int, float) if scalar is float else scalar
    items = value if is_list else [value]
    if value is None and field.default is None:
        return None
    is_good = isinstance(items, list) and all(
        isinstance(item, accepts) and isinstance(item, bool) == (scalar is bool)
        for item in items
    )
    if not is_good:
        raise errors.CheckpointError(
            f"{path}: {field.name} is {json.dumps(value)}, which is no value of "
            f"--{field.name}; write the file anew by starting the training again with "
            "its own flags."
        )
    restored = tuple(scalar(item) for item in items)
    return restored if is_list else restored[0]
