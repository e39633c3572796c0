"""The folders of checkpoints: their names, and what each says of itself."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from trainer import errors, files
from trainer.run_folder import watched

CHOICES = ("last", "best")
"""What to find, where no checkpoint is named."""
_METADATA = "metadata.json"
_FOLDER = re.compile(r"step-(\d{8,})")
_PARTIAL_SUFFIX = ".partial"
_PARTIAL = re.compile(_FOLDER.pattern + re.escape(_PARTIAL_SUFFIX))


@dataclasses.dataclass
class Metadata:
    """What a checkpoint says of itself.

    Attributes:
      step: steps done.
      identity: what a run must agree in to go on from here.
      is_evaluated: whether the evaluation that is due at this step, if one is, has been
        made and written. The save comes before it.
      best_step: the step with the best score so far, None before the first score.
      best_score: that score; None also where that step was the best by another one.
      best_metric: the name of what it is a score of.
      best_subject: a short hash of the evaluation; see `criterion.Criterion`.
      best_seen: the best score of all evaluations, where that is of a step whose save
        failed; None: it is `best_score`.
      evaluations_since_best: how many there have been without a better score than
        that.
      window: sums since the last report, see `trainer.loop.window`; None: none.
    """

    step: int
    identity: Mapping[str, Any]
    is_evaluated: bool = False
    best_step: int | None = None
    best_score: float | None = None
    best_metric: str = "mean_iou"
    best_subject: str = ""
    best_seen: float | None = None
    evaluations_since_best: int = 0
    window: Mapping[str, Any] | None = None


class Origin(NamedTuple):
    """The checkpoint that weights come from; its folder may be gone by now.

    Attributes:
      path: its folder.
      step: steps done.
      weights: a short hash of all that it holds; it differs if any differs.
    """

    path: pathlib.Path
    step: int
    weights: str


def path_of(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the folder of the checkpoint of a step."""
    return folder / f"step-{step:08d}"


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """Returns the name that a checkpoint has until it is whole."""
    return path.with_name(path.name + _PARTIAL_SUFFIX)


def step_of(path: pathlib.Path) -> int:
    """Returns the step in the name of a checkpoint's folder."""
    return int(_FOLDER.fullmatch(path.name).group(1))


def list_checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the finished checkpoints of a folder, oldest first."""
    paths = [path for path in _list(folder, _FOLDER) if path.is_dir()]
    return sorted(paths, key=step_of)


def is_checkpoint(path: pathlib.Path) -> bool:
    """Whether a checkpoint was saved under this name; other things may stand there."""
    return (path / _METADATA).is_file()


def read_metadata(path: pathlib.Path) -> Metadata:
    """Reads what a checkpoint says of itself.

    Raises:
      OSError: if it cannot be read.
      ValueError: if a field is missing, foreign or of another type, or if the step is
        not that in the name of the folder.
    """
    values = json.loads((path / _METADATA).read_bytes())
    if not isinstance(values, dict):
        raise ValueError(f"{_METADATA}: not a JSON object")
    fields = {field.name: field for field in dataclasses.fields(Metadata)}
    for name in values.keys() - fields.keys():
        raise ValueError(f"{_METADATA}: {name} is no field of it")
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{_METADATA}: {name} is missing")
        if name in values and not _FIELD_CHECKS[name](values[name]):
            raise ValueError(f"{_METADATA}: {name} is {str(values[name])[:80]!r}")
    metadata = Metadata(**values)
    if _FOLDER.fullmatch(path.name) and step_of(path) != metadata.step:
        raise ValueError(f"{_METADATA} is that of step {metadata.step}")
    return metadata


def write_metadata(path: pathlib.Path, metadata: Metadata) -> None:
    """Writes what a checkpoint says of itself.

    Raises:
      errors.WriteError: if that fails.
    """
    text = json.dumps(dataclasses.asdict(metadata), indent=2)
    files.write_text(path / _METADATA, text)


def read_origin(path: pathlib.Path) -> Origin:
    """Reads what tells a checkpoint from others.

    Raises:
      OSError: if it cannot be read.
      ValueError: as `read_metadata`.
    """
    # The index has a checksum of each variable.
    index = (path / "state.index").read_bytes()
    weights = hashlib.sha256(index).hexdigest()[:16]
    return Origin(path, read_metadata(path).step, weights)


def has_any(model_dir: str) -> bool:
    """Tells whether a run has saved before, so that a training goes on from there."""
    return bool(list_checkpoints(pathlib.Path(model_dir) / "checkpoints"))


def newest_step(model_dir: str) -> int | None:
    """Returns the step from which a training goes on; None: it begins.

    Where the newest checkpoint turns out to be damaged, it is an earlier one after all.
    """
    paths = list_checkpoints(pathlib.Path(model_dir) / "checkpoints")
    return step_of(paths[-1]) if paths else None


def find(model_dir: str, which: str) -> list[pathlib.Path]:
    """Finds the checkpoints of a run that will do.

    Args:
      model_dir: the folder of the run.
      which: `last`, `best`, the name of a checkpoint, or the path of its folder.

    Returns:
      The one asked for; after it, of `last` and `best`, the others, the newest first,
      for the case that it is damaged.

    Raises:
      errors.CheckpointError: if there is none.
    """
    folder = pathlib.Path(model_dir) / "checkpoints"
    if which not in CHOICES:
        return [_find_named(folder, which)]
    paths = list_checkpoints(folder)[::-1]
    if not paths:
        raise errors.CheckpointError(
            f"{folder} holds no checkpoint; train with this --model_dir first, or name "
            "a checkpoint with --checkpoint."
        )
    if which == "last":
        return paths
    best = _find_best(paths)
    if best is None:
        logging.warning("No checkpoint knows of a score; taking the newest one.")
    elif best not in paths:
        logging.warning("The best checkpoint, %s, is gone; taking the newest.", best)
    return sorted(paths, key=lambda path: path != best)


def read_identity(paths: Sequence[pathlib.Path]) -> dict[str, Any]:
    """Reads what a run is, from the first of some checkpoints that tells.

    Raises:
      errors.CheckpointError: if none does.
    """
    failures = []
    for path in paths:
        try:
            return dict(read_metadata(path).identity)
        except (OSError, ValueError) as error:
            failures.append(error)
    raise errors.CheckpointError(
        f"{paths[0]}: its metadata cannot be read ({failures[0]})."
    ) from failures[0]


def _find_named(folder: pathlib.Path, which: str) -> pathlib.Path:
    """Returns the checkpoint of a name or path."""
    path = folder / which  # An absolute path stays what it is.
    if not path.is_dir():
        path = pathlib.Path(which)
    if is_checkpoint(path):
        return path
    names = [path.name for path in list_checkpoints(folder)]
    reason = "there is no such folder"
    if (path / "checkpoints").is_dir():
        reason = "this is the folder of a run, which --model_dir names"
    elif path.is_dir():
        reason = "this folder is no checkpoint"
    raise errors.CheckpointError(
        f"--checkpoint={which}: {reason}; say last, best, or one of "
        f"{', '.join(names) or 'none that there were'} in {folder}."
    )


def _find_best(paths: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """Returns the best checkpoint as the newest one with readable metadata says.

    If the training made no evaluations, it is the best one of those that were watched.
    """
    for path in paths:
        try:
            step = read_metadata(path).best_step
        except (OSError, ValueError) as error:
            logging.warning("%s: its metadata cannot be read (%s).", path, error)
            continue
        step = step or watched.read(path.parent.parent).best_step
        return path_of(path.parent, step) if step else None
    return None


def remove_partial(folder: pathlib.Path) -> None:
    """Removes what killed saves left."""
    for path in _list(folder, _PARTIAL):
        files.remove(path)


def _list(folder: pathlib.Path, name: re.Pattern) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if name.fullmatch(path.name)]


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FIELD_CHECKS = {
    "step": _is_step,
    "identity": lambda value: isinstance(value, dict),
    "is_evaluated": lambda value: isinstance(value, bool),
    "best_step": lambda value: value is None or _is_step(value),
    "best_score": lambda value: value is None or _is_score(value),
    "best_metric": lambda value: isinstance(value, str),
    "best_subject": lambda value: isinstance(value, str),
    "best_seen": lambda value: value is None or _is_score(value),
    "evaluations_since_best": _is_step,
    "window": lambda value: value is None or isinstance(value, dict),
}
"""Whether a value from JSON can be that of a field of `Metadata`."""
