"""The scores of a run's checkpoints, as `--mode=evaluate` notes them in its folder.

RUN/evaluations.jsonl                      a line for each evaluation
RUN/evaluations/step-00000375-....png      photos, truths and predictions
RUN/export_evaluations.jsonl               a line for each of an exported file
"""

import contextlib
import dataclasses
import datetime
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trainer import files, pictures
from trainer.run_folder import checkpoint_folders

_NAME = "evaluations.jsonl"
_NAME_OF_FILES = "export_evaluations.jsonl"
"""Their scores are none of a checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """What was scored, for the line of an evaluation.

    Attributes:
      dataset: as `--dataset` names it.
      data_dir: its folder.
      split: name of the split.
      num_examples: of the split.
      fingerprint: of the examples; it differs for other ones, and for the same ones in
        another form.
      image_size: height and width of what the model was shown.
      eval_native_size: whether the scores are of the masks' own sizes.
      uses_averages: whether moving averages of the weights were scored.
      precision: the dtype policy.
      tta: the variants of each image, as `--tta` names them.
      merge_classes: groups of classes that were scored as one, as `--merge_classes`
        names them.
    """

    dataset: str
    data_dir: str
    split: str
    num_examples: int
    fingerprint: str
    image_size: tuple[int, int]
    eval_native_size: bool
    uses_averages: bool
    precision: str
    tta: tuple[str, ...]
    merge_classes: tuple[str, ...]


class Subject(NamedTuple):
    """What was scored: a checkpoint, or a file that was exported of one.

    Attributes:
      name: of its folder.
      step: steps done.
      weights: a short hash; see `checkpoint_folders.hash_weights`.
      export: the folder of an exported file; "" of a checkpoint.
    """

    name: str
    step: int
    weights: str
    export: str = ""


def describe(checkpoint: pathlib.Path) -> Subject:
    """Describes a checkpoint, by its folder.

    Raises:
      OSError: if it cannot be read.
      ValueError: if what it says of itself is damaged.
    """
    step = checkpoint_folders.read_metadata(checkpoint).step
    weights = checkpoint_folders.hash_weights(checkpoint)
    return Subject(checkpoint.name, step, weights)


def record(
    model_dir: str,
    subject: Subject,
    scored: Scored,
    scores: Mapping[str, float],
    *,
    confusion: np.ndarray,
    class_names: Sequence[str],
    picture: np.ndarray,
) -> pathlib.Path:
    """Notes the scores of a model, and keeps a picture of what it predicts.

    Args:
      model_dir: the folder of the run.
      subject: what was scored.
      scored: on what.
      scores: by name; those that are NaN become null.
      confusion: counts of pixels, [classes, classes]: rows are true, columns predicted
        classes.
      class_names: of the classes, in the order of the rows.
      picture: uint8 [height, width, 3].

    Returns:
      The path of the picture.

    Raises:
      errors.WriteError: if a file cannot be written.
    """
    folder = pathlib.Path(model_dir)
    split = re.sub(r"[^\w.-]+", "-", scored.split)
    size = "-native" if scored.eval_native_size else ""
    tta = "".join(f"-{word}" for word in ("tta", *scored.tta) if scored.tta)
    name = f"{subject.name}-{split}-{scored.fingerprint}{size}{tta}.png"
    path = folder / "evaluations" / name
    files.make_folder(path.parent)
    pictures.write_png(path, picture)
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": subject.step,
        **({"export": subject.export} if subject.export else {}),
        "format" if subject.export else "checkpoint": subject.name,
        "weights": subject.weights,
        **dataclasses.asdict(scored),
        "picture": str(path.relative_to(folder)),
        "scores": {
            tag: value if math.isfinite(value) else None
            for tag, value in scores.items()
        },
        "class_names": list(class_names),
        "confusion": confusion.tolist(),
    }
    files.append_line(path_of(model_dir, subject), json.dumps(line))
    return path


def path_of(model_dir: str, subject: Subject) -> pathlib.Path:
    """Returns the file of lines for a checkpoint, or for an exported file."""
    return pathlib.Path(model_dir) / (_NAME_OF_FILES if subject.export else _NAME)


def find(
    model_dir: str, subject: Subject, scored: Scored, names: Iterable[str]
) -> dict[str, float] | None:
    """Returns the scores of a checkpoint that were noted before; None: there are none.

    Args:
      model_dir: the folder of the run.
      subject: the checkpoint.
      scored: what it is scored on; scores on anything else do not count.
      names: of the scores that there must be.
    """
    wanted = json.loads(json.dumps(dataclasses.asdict(scored)))
    wanted |= {"step": subject.step, "weights": subject.weights}
    names = set(names)
    for line in _read_lines(path_of(model_dir, subject)):
        scores = line.get("scores")
        if not isinstance(scores, dict) or not names <= scores.keys():
            continue
        if all(line.get(key) == value for key, value in wanted.items()):
            return {n: math.nan if v is None else v for n, v in scores.items()}
    return None


def _read_lines(path: pathlib.Path) -> list[dict]:
    """Reads the lines, the newest first; what a killed process began is left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]
