"""The scalars of a run for programs: one line of JSON for each point of the curves.

    RUN/metrics.jsonl         the first points
    RUN/metrics_0002.jsonl    those that follow once that file is large, and so on

By name, the files are in the order of their points. To grow further, a file would have
to be small: that of a run at a URL is uploaded whole after each save.
"""

import json
import math
import pathlib
import re
from collections.abc import Mapping

from absl import logging

from trainer import files

MOST_BYTES = 2**20
"""A file of curves that has so many is left as it is, and a new one begun."""
_NAME = re.compile(r"metrics(?:_(\d{4}))?\.jsonl")
_FOREIGN = "metrics.foreign"
"""Where lines go that somebody else wrote into these files."""


def find(model_dir: str | pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that are there, in the order of their points."""
    paths = pathlib.Path(model_dir).glob("metrics*.jsonl")
    return sorted(path for path in paths if _NAME.fullmatch(path.name))


def append(model_dir: str | pathlib.Path, line: str) -> None:
    """Appends the line of a point.

    Raises:
      errors.WriteError: if that fails; no part of the line is there then.
    """
    path = pathlib.Path(model_dir) / "metrics.jsonl"
    if found := find(model_dir):
        path = found[-1]
        if path.stat().st_size >= MOST_BYTES:
            number = int(_NAME.fullmatch(path.name)[1] or 1) + 1
            path = path.with_name(f"metrics_{number:04d}.jsonl")
    files.append_line(path, line)


def read_last_point(
    model_dir: str | pathlib.Path, split: str
) -> dict[str, float] | None:
    """Reads the newest point of a split, None if there is none."""
    for path in reversed(find(model_dir)):
        points = map(_parse_point, reversed(_read_lines(path)))
        if found := next((p for p in points if p and p["split"] == split), None):
            return found
    return None


def read_last_steps(model_dir: str | pathlib.Path) -> dict[str, int]:
    """Reads the step of the newest point of each split that has one."""
    lines = (line for path in find(model_dir) for line in _read_lines(path))
    return {p["split"]: p["step"] for p in map(_parse_point, lines) if p}


def drop_after(model_dir: str | pathlib.Path, last_steps: Mapping[str, int]) -> None:
    """Keeps the points up to a step; lines that are no points go elsewhere.

    Args:
      model_dir: the folder of the run.
      last_steps: the last step to keep of each split.

    Raises:
      errors.WriteError: if a file cannot be changed.
    """
    for path in find(model_dir):
        _drop_lines(path, last_steps)


def _drop_lines(metrics: pathlib.Path, last_steps: Mapping[str, int]) -> None:
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
