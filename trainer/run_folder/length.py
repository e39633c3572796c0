"""How long a run is, where its number of steps was measured: `length.json`."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer import errors, files

_NAME = "length.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """A number of steps, and what it was made of.

    Attributes:
      time_budget: as it was given.
      num_steps: that fit into it.
      measured: what the parts of the run took, in seconds.
      settings: those of the run that was measured.
    """

    time_budget: str
    num_steps: int
    measured: Mapping[str, float]
    settings: Mapping[str, Any]


def write(model_dir: str, length: Length) -> None:
    """Writes the file, whole or not at all.

    Raises:
      errors.WriteError: if that fails.
    """
    text = json.dumps(dataclasses.asdict(length), indent=2)
    files.write_text(pathlib.Path(model_dir) / _NAME, text + "\n")


def read(model_dir: str) -> Length | None:
    """Reads the file; None if there is none.

    Raises:
      errors.CheckpointError: if it cannot be read.
    """
    path = pathlib.Path(model_dir) / _NAME
    try:
        length = Length(**json.loads(path.read_text("utf-8")))
        if not isinstance(length.num_steps, int) or length.num_steps < 1:
            raise ValueError(f"num_steps is {length.num_steps!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise errors.CheckpointError(
            f"{path} cannot be read ({error}); it holds how many steps fit into "
            "--time_budget. Give --train_steps instead, as config.json has it, or "
            "remove the file if the run has no checkpoint yet."
        ) from error
    return length
