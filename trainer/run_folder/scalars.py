"""The scalars of a run for programs: RUN/metrics.jsonl, a line of JSON a point."""

import json
import math
import pathlib
from collections.abc import Mapping

from absl import logging

from trainer import files

NAME = "metrics.jsonl"
_FOREIGN = "metrics.foreign"
"""Where lines go that somebody else wrote into that file."""


def append(model_dir: str | pathlib.Path, line: str) -> None:
    """Appends the line of a point.

    Raises:
      errors.WriteError: if that fails; no part of the line is there then.
    """
    files.append_line(pathlib.Path(model_dir) / NAME, line)


def read_last_point(
    model_dir: str | pathlib.Path, split: str
) -> dict[str, float] | None:
    """Reads the newest point of a split, None if there is none."""
    found = map(_parse_point, reversed(_read_lines(pathlib.Path(model_dir) / NAME)))
    return next((p for p in found if p and p["split"] == split), None)


def read_last_steps(model_dir: str | pathlib.Path) -> dict[str, int]:
    """Reads the step of the newest point of each split that has one."""
    found = map(_parse_point, _read_lines(pathlib.Path(model_dir) / NAME))
    return {point["split"]: point["step"] for point in found if point}


def drop_after(model_dir: str | pathlib.Path, last_steps: Mapping[str, int]) -> None:
    """Keeps the points up to a step; lines that are no points go elsewhere.

    Args:
      model_dir: the folder of the run.
      last_steps: the last step to keep of each split.

    Raises:
      errors.WriteError: if the file cannot be changed.
    """
    metrics = pathlib.Path(model_dir) / NAME
    lines = _read_lines(metrics)
    kept, foreign = [], []
    for number, line in enumerate(lines, start=1):
        point = _parse_point(line)
        if point and point["step"] <= last_steps.get(point["split"], math.inf):
            # Of a killed process's last line, the end alone may be missing.
            kept.append(line.rstrip(b"\n") + b"\n")
        elif not point and (number < len(lines) or line.endswith(b"\n")):
            foreign.append(line)  # Else it is a line that a killed process began.
    if foreign:
        path = metrics.with_name(_FOREIGN)
        logging.warning(
            "%s holds %d lines that are no points of a run; they are moved to %s.",
            metrics,
            len(foreign),
            path,
        )
        for line in foreign:
            files.append_line(path, line.decode(errors="replace").rstrip("\n"))
    if kept != lines:
        # Not removed, even if it is empty: at a URL, files are removed after the next
        # checkpoint is there, and this must be done before.
        files.write_bytes(metrics, b"".join(kept))


def _read_lines(metrics: pathlib.Path) -> list[bytes]:
    if not metrics.is_file():
        return []
    with metrics.open("rb") as file:
        return file.readlines()


def _parse_point(line: bytes) -> dict | None:
    """Returns the point of a line, None if it holds anything else."""
    try:
        point = json.loads(line)
        is_point = type(point["step"]) is int and isinstance(point["split"], str)
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return point if is_point else None
