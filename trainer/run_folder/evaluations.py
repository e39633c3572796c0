"""The scores of a run's checkpoints, as `--mode=evaluate` notes them in its folder.

RUN/evaluations.jsonl                      a line for each evaluation
RUN/evaluations/step-00000375-....png      photos, truths and predictions
"""

import dataclasses
import datetime
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from trainer import files, pictures
from trainer.run_folder import checkpoint_folders


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


def record(
    model_dir: str,
    checkpoint: pathlib.Path,
    scored: Scored,
    scores: Mapping[str, float],
    *,
    confusion: np.ndarray,
    class_names: Sequence[str],
    picture: np.ndarray,
) -> pathlib.Path:
    """Notes the scores of a checkpoint, and keeps a picture of what it predicts.

    Args:
      model_dir: the folder of the run.
      checkpoint: its folder.
      scored: what was scored.
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
    name = f"{checkpoint.name}-{split}-{scored.fingerprint}{size}{tta}.png"
    path = folder / "evaluations" / name
    files.make_folder(path.parent)
    pictures.write_png(path, picture)
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": checkpoint_folders.read_metadata(checkpoint).step,
        "checkpoint": checkpoint.name,
        **dataclasses.asdict(scored),
        "picture": str(path.relative_to(folder)),
        "scores": {
            tag: value if math.isfinite(value) else None
            for tag, value in scores.items()
        },
        "class_names": list(class_names),
        "confusion": confusion.tolist(),
    }
    files.append_line(folder / "evaluations.jsonl", json.dumps(line))
    return path
