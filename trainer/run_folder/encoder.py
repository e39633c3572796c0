"""The architecture of an encoder of another package: RUN/encoder.json.

The preset that the run began with may be gone, or another one by now. What to build the
encoder of for the run's checkpoints is therefore in its folder.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer import errors, files

FORMAT_VERSION = 1


def write(model_dir: str, architecture: Mapping[str, Any]) -> None:
    """Writes the architecture of a run's encoder into its folder.

    Raises:
      errors.WriteError: if that fails.
    """
    values = {"format_version": FORMAT_VERSION, **architecture}
    files.write_text(_path(model_dir), json.dumps(values, indent=2) + "\n")


def read(model_dir: str) -> dict[str, Any]:
    """Reads the architecture of the encoder of the run in a folder.

    Raises:
      errors.CheckpointError: if the file is not there, cannot be read, or is of a later
        version of this package.
    """
    path = _path(model_dir)
    try:
        values = json.loads(path.read_text("utf-8"))
        version = values.pop("format_version")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise errors.CheckpointError(
            f"{path} cannot be read ({error!r}), and it alone says what the run's "
            "encoder is built of; take it from a copy of the folder, or begin another "
            "run in another one."
        ) from error
    if version != FORMAT_VERSION:
        raise errors.CheckpointError(
            f"{path} has the format version {version}, and this segloop knows "
            f"{FORMAT_VERSION}; install the segloop that trained the run."
        )
    return values


def _path(model_dir: str) -> pathlib.Path:
    return pathlib.Path(model_dir) / "encoder.json"
