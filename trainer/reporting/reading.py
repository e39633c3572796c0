"""What the folder of a run tells of it, without TensorFlow and without its data."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import errors, files
from trainer.run_folder import environment, run_settings, scalars

Points = list[tuple[int, float]]
"""(step, value), by step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run, as its folder shows it.

    Attributes:
      name: short, and another one for each run of a report.
      folder: of the run.
      settings: those that it was last trained with, by name.
      curves: points by (split, tag), of the splits `train` and `eval`.
      class_names: of the classes; empty if they are not known.
      palette: the colour of each class, as CSS has it.
      evaluations: what `--mode=evaluate` noted, the newest last.
      environment: machine and versions of the last start; empty for an older run.
    """

    name: str
    folder: pathlib.Path
    settings: Mapping[str, Any]
    curves: Mapping[tuple[str, str], Points]
    class_names: tuple[str, ...]
    palette: tuple[str, ...]
    evaluations: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]

    def last(self, split: str, tag: str) -> float | None:
        """Returns the newest value of a curve, None without a point."""
        points = self.curves.get((split, tag))
        return points[-1][1] if points else None

    def score(self, tag: str) -> float | None:
        """Returns a score of the last evaluation in training.

        None if that had none, such as the precision of a class that it found nowhere:
        what an older one had beside it says nothing of this model.
        """
        points = {t: p for (split, t), p in self.curves.items() if split == "eval"}
        step = max((of_tag[-1][0] for of_tag in points.values()), default=None)
        found = points.get(tag)
        return found[-1][1] if found and found[-1][0] == step else None

    def share_of_pixels(self, class_name: str) -> float | None:
        """Returns the share of a class in the last confusion matrix, if there is one.

        None, too, where that is of other classes, which `--merge_classes` has made.
        """
        for line in reversed(self.evaluations):
            if tuple(line.get("class_names", ())) == self.class_names:
                sums = [sum(row) for row in line["confusion"]]
                index = self.class_names.index(class_name)
                return sums[index] / sum(sums) if sum(sums) else None
        return None

    @property
    def last_step(self) -> int:
        """The step of the newest point, 0 without one."""
        return max((points[-1][0] for points in self.curves.values()), default=0)


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Reads the runs of a report.

    Raises:
      errors.CheckpointError: if a folder is not that of a run, or cannot be read.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    return [
        _read(path, name) for path, name in zip(paths, _short_names(paths), strict=True)
    ]


def _read(folder: pathlib.Path, name: str) -> Run:
    settings = run_settings.read(str(folder))
    classes = _read_json(folder / "dataset.json")
    names, palette = classes.get("class_names", ()), classes.get("palette", ())
    return Run(
        name=name,
        folder=folder,
        settings=settings,
        curves=_read_curves(folder),
        class_names=tuple(map(str, names)),
        palette=tuple(f"rgb({r}, {g}, {b})" for r, g, b in palette),
        evaluations=[
            line
            for line in _read_lines(folder / "evaluations.jsonl")
            if isinstance(line.get("scores"), dict)
        ],
        environment=_read_json(folder / environment.FILE),
    )


def _short_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns the end of each path that no other one has."""
    parts = [path.absolute().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _read_curves(folder: pathlib.Path) -> dict[tuple[str, str], Points]:
    """Reads points; of a step that is there twice, the later one counts."""
    found = collections.defaultdict(dict)
    for line in _read_lines(folder / scalars.NAME):
        step, split = line.get("step"), line.get("split")
        if type(step) is not int or not isinstance(split, str):
            continue
        for tag, value in line.items():
            is_number = isinstance(value, int | float) and math.isfinite(value)
            if tag != "step" and is_number:
                found[split, tag][step] = float(value)
    return {key: sorted(points.items()) for key, points in found.items()}


def _read_lines(path: pathlib.Path) -> list[dict]:
    """Returns the objects of a file of JSON lines; none if it is not there."""
    try:
        return files.parse_lines(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_json(path: pathlib.Path) -> dict:
    """Returns the object of a file; empty if there is no file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return value if isinstance(value, dict) else {}


def _unreadable(path: pathlib.Path, error: Exception) -> errors.CheckpointError:
    return errors.CheckpointError(
        f"{path} cannot be read ({error}); mend it, or move it out of the folder to "
        "have a report without it."
    )
