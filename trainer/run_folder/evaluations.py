"""The scores of a run's checkpoints, as `--mode=evaluate` notes them in its folder.

RUN/evaluations.jsonl                      a line for each evaluation
RUN/evaluations/step-00000375-....png      photos, truths and predictions
RUN/evaluations/step-00000375-.../         those of the best and the worst, a file each
RUN/export_evaluations.jsonl               a line for each of an exported file
"""

import dataclasses
import datetime
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trainer import files
from trainer.drawing import pictures
from trainer.run_folder import checkpoint_folders

_NAME = "evaluations.jsonl"
_NUM_SHARES = 20
"""Of the scores of images, 0 to 1, in how many parts they are counted."""
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
      weights: a short hash of all that it holds.
      export: the folder of an exported file; "" of a checkpoint.
    """

    name: str
    step: int
    weights: str
    export: str = ""


def describe(origin: checkpoint_folders.Origin) -> Subject:
    """Describes a checkpoint."""
    return Subject(origin.path.name, origin.step, origin.weights)


class Example(NamedTuple):
    """An example that shows what a model can do, or cannot.

    Attributes:
      kind: `best`, `typical` or `worst`.
      name: of the example.
      mean_iou: the mean IoU within it.
      strip: uint8 [height, width, 3]: photo, truth, prediction and errors.
    """

    kind: str
    name: str
    mean_iou: float
    strip: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is kept to be seen.

    Attributes:
      overview: uint8 [height, width, 3].
      examples: of each kind, in order.
    """

    overview: np.ndarray
    examples: Sequence[Example]


def record(
    model_dir: str,
    subject: Subject,
    scored: Scored,
    scores: Mapping[str, float],
    *,
    confusion: np.ndarray,
    class_names: Sequence[str],
    details: Mapping[str, list],
    image_scores: np.ndarray,
    pictures_to_keep: Pictures | None,
) -> pathlib.Path | None:
    """Notes the scores of a model, and keeps pictures of what it predicts.

    Args:
      model_dir: the folder of the run.
      subject: what was scored.
      scored: on what.
      scores: by name; those that are NaN become null.
      confusion: counts of pixels, [classes, classes]: rows are true, columns predicted
        classes.
      class_names: of the classes, in the order of the rows.
      details: of `Metric.details`.
      image_scores: float64 [examples], of `ImageScores`.
      pictures_to_keep: or None, where nobody may see the photos.

    Returns:
      The path of the overview, if pictures are kept.

    Raises:
      errors.WriteError: if a file cannot be written.
    """
    folder = pathlib.Path(model_dir)
    path, written = None, []
    if pictures_to_keep:
        path = folder / "evaluations" / f"{_name(subject, scored)}.png"
        files.make_folder(path.parent)
        pictures.write_png(path, pictures_to_keep.overview)
        written = _write_examples(folder, path, pictures_to_keep.examples)
    shares, _ = np.histogram(image_scores, _NUM_SHARES, (0.0, 1.0))
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": subject.step,
        **({"export": subject.export} if subject.export else {}),
        "format" if subject.export else "checkpoint": subject.name,
        "weights": subject.weights,
        **dataclasses.asdict(scored),
        "picture": str(path.relative_to(folder)) if path else None,
        "scores": for_json(scores),
        "class_names": list(class_names),
        "confusion": confusion.tolist(),
        **details,
        "images_by_mean_iou": shares.tolist(),
        "examples": written,
    }
    files.append_line(path_of(model_dir, subject), json.dumps(line))
    return path


def for_json(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Returns scores with None in place of NaN, for which JSON has no word."""
    return {tag: n if math.isfinite(n) else None for tag, n in scores.items()}


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
    try:
        lines = files.parse_lines(path_of(model_dir, subject).read_bytes())
    except OSError:
        return None
    for line in reversed(lines):
        scores = line.get("scores")
        if not isinstance(scores, dict) or not names <= scores.keys():
            continue
        if all(line.get(key) == value for key, value in wanted.items()):
            return {n: math.nan if v is None else v for n, v in scores.items()}
    return None


def _name(subject: Subject, scored: Scored) -> str:
    """Returns a name that no evaluation with other pictures has.

    All that a line says of what was scored is in it, the greater part as a hash: by
    weights or precision alone, too, a prediction may be another one.
    """
    split = re.sub(r"[^\w.-]+", "-", scored.split)
    size = "-native" if scored.eval_native_size else ""
    tta = "".join(f"-{word}" for word in ("tta", *scored.tta) if scored.tta)
    everything = json.dumps([subject, dataclasses.asdict(scored)])
    digest = hashlib.sha256(everything.encode()).hexdigest()[:16]
    return f"{subject.name}-{split}-{digest}{size}{tta}"


def _write_examples(
    folder: pathlib.Path, overview: pathlib.Path, examples: Sequence[Example]
) -> list[dict[str, object]]:
    """Writes a picture of each example; returns what their line says of them."""
    parent = overview.with_suffix("")  # Of the name, this takes no more than `.png`.
    files.make_folder(parent)
    written: list[dict[str, object]] = []
    for example in examples:
        number = 1 + sum(other["kind"] == example.kind for other in written)
        path = parent / f"{example.kind}-{number}.png"
        pictures.write_png(path, example.strip)
        written.append(
            {
                "kind": example.kind,
                "name": example.name,
                "mean_iou": example.mean_iou,
                "picture": str(path.relative_to(folder)),
            }
        )
    return written
