"""The scores of a run's checkpoints, as `--mode=evaluate` notes them in its folder.

RUN/evaluations.jsonl                      a line for each evaluation
RUN/evaluations/step-00000375-....png      photos, truths and predictions
"""

import datetime
import json
import math
import pathlib
import re
from collections.abc import Mapping

from trainer import files, scoring
from trainer.assembly import experiment
from trainer.run_folder import checkpoint_folders


def record(
    setup: experiment.EvalSetup,
    scores: Mapping[str, float],
    checkpoint: pathlib.Path,
) -> pathlib.Path:
    """Notes the scores of a checkpoint, and draws what it predicts.

    Args:
      setup: what was scored.
      scores: of `scoring.evaluate`; those that are NaN become null.
      checkpoint: its folder.

    Returns:
      The path of the picture.

    Raises:
      errors.WriteError: if a file cannot be written.
    """
    folder = pathlib.Path(setup.config.run.model_dir)
    # Of other examples, and of the same in another form, the fingerprint is another.
    fingerprint = setup.examples.fingerprint
    name = re.sub(r"[^\w.-]+", "-", setup.examples.name)
    size = "-native" if setup.config.data.eval_native_size else ""
    picture = (
        folder / "evaluations" / f"{checkpoint.name}-{name}-{fingerprint}{size}.png"
    )
    files.make_folder(picture.parent)
    scoring.write_picture(setup, picture)
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": checkpoint_folders.read_metadata(checkpoint).step,
        "checkpoint": checkpoint.name,
        "dataset": setup.config.data.dataset,
        "data_dir": setup.config.data.data_dir,
        "split": setup.examples.name,
        "num_examples": len(setup.examples),
        "fingerprint": fingerprint,
        "image_size": list(setup.config.data.image_size),
        "eval_native_size": setup.config.data.eval_native_size,
        "uses_averages": setup.ema is not None,
        "precision": setup.model.dtype_policy.name,
        "picture": str(picture.relative_to(folder)),
        "scores": {
            tag: value if math.isfinite(value) else None
            for tag, value in scores.items()
        },
    }
    files.append_line(folder / "evaluations.jsonl", json.dumps(line))
    return picture
