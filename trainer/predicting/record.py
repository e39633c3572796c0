"""`prediction.json`: what the masks in a folder were made with, and what they mean."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from data.sources import listing
from trainer import errors, files
from trainer.assembly import trained_model
from trainer.settings import config as config_lib

_NAME = "prediction.json"


def describe(
    config: config_lib.Config, trained: trained_model.TrainedModel
) -> dict[str, Any]:
    """Returns all that masks depend on, and the meaning of their values.

    Args:
      config: all settings.
      trained: the model.
    """
    settings = config.predict
    return {
        "checkpoint": trained.checkpoint.name,
        "weights": trained.weights,
        # Of `auto`, what it means on this machine; an exported file has its own.
        "precision": None if config.run.model else keras.config.dtype_policy().name,
        "image_size": list(trained.image_size),
        "tta": list(config.evaluation.tta),
        "tile_size": settings.tile_size,
        "tile_overlap": settings.tile_overlap if settings.tile_size else None,
        "mask_orientation": settings.mask_orientation,
        "class_names": list(trained.class_names),
        "palette": [list(color) for color in trained.palette],
    }


def find_differences(folder: pathlib.Path, described: Mapping[str, Any]) -> list[str]:
    """Returns in what the masks of a folder differ from those that shall be made.

    Args:
      folder: of `--output`.
      described: of `describe`.
    """
    try:
        found = json.loads((folder / _NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(found, dict):
        return []
    return [
        f"{name} {_show(found.get(name, 'unknown'))} (now {_show(value)})"
        for name, value in described.items()
        if found.get(name) != value
    ]


def refuse(output: str, differences: list[str]) -> None:
    """Raises if masks of two kinds would lie beside each other.

    Raises:
      errors.ConfigError: if there are differences.
    """
    if differences:
        raise errors.ConfigError(
            f"--output={output}: the masks there were made with "
            f"{', '.join(differences)}; give another folder, or --overwrite."
        )


def refuse_rest(
    output: str, differences: list[str], rest: Sequence[pathlib.Path]
) -> None:
    """Raises if masks of two kinds would lie beside each other after `--overwrite`.

    Args:
      output: of `--output`.
      differences: of `find_differences`; none: it is not known what is there.
      rest: files that would stay.

    Raises:
      errors.ConfigError: if there are any.
    """
    if rest:
        names = [str(path.relative_to(output)) for path in rest]
        made_with = ", ".join(differences) or f"what no {_NAME} tells"
        raise errors.ConfigError(
            f"--output={output}: --overwrite would leave {listing.name_some(names)}, "
            f"made with {made_with}; let --input and --save cover them, remove them, "
            "or give another folder."
        )


def refuse_others(output: str, paths: Iterable[pathlib.Path]) -> None:
    """Raises if files would be overwritten that no prediction wrote.

    Args:
      output: of `--output`. What is in a folder that has the file was predicted.
      paths: of all that shall be written there.

    Raises:
      errors.ConfigError: if any of them is there.
    """
    if exists(output):
        return
    for path in paths:
        if os.path.lexists(path):
            raise errors.ConfigError(
                f"--output={output}: {path} would be overwritten, and no prediction "
                f"wrote it, as there is no {_NAME}; give another folder, or "
                "--overwrite."
            )


def exists(folder: str | os.PathLike) -> bool:
    """Tells whether it is said of a folder what its masks were made with."""
    return (pathlib.Path(folder) / _NAME).exists()


def write(folder: pathlib.Path, described: Mapping[str, Any]) -> None:
    """Writes the file."""
    files.write_text(folder / _NAME, json.dumps(described, indent=2) + "\n")


def _show(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value)
