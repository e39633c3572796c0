"""Scores a run and the files exported of it.

    python -m tests.matrix.export_scores RUN

Prints one line of JSON: the mean IoU on the evaluation split by format, and under
`float32` and `trained` that of the model itself, in float32 and as it was trained.
"""

import importlib
import json
import pathlib
import sys

import numpy as np

from data import schema
from trainer import flags
from trainer.assembly import exporting, photos, restoring
from trainer.distributing import distribution
from trainer.exporting import registry
from trainer.metrics import confusion

NUM_PHOTOS = 200


def mean_iou(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """Returns the mean IoU of some labels.

    Args:
      labels: uint8 [photos, height, width]; 255 is ignored.
      predicted: uint8, of the same shape.
      num_classes: how many classes there are.
    """
    is_valid = labels != schema.IGNORE_LABEL
    cells = labels[is_valid].astype(np.int64) * num_classes + predicted[is_valid]
    counts = np.bincount(cells, minlength=num_classes**2)
    names = tuple(map(str, range(num_classes)))
    square = counts.reshape(num_classes, num_classes)
    return confusion.scores(square, names)["mean_iou"]


def score(folder: str) -> dict[str, float]:
    """Scores a run, and what it has in `export/`."""
    arguments = ["--mode=export", f"--model_dir={folder}"]
    config = flags.read_config(arguments).config
    trained = restoring.load_run(folder)
    some = photos.read_some(config, trained, NUM_PHOTOS, is_training=False)
    policy = distribution.resolve_precision(config.runtime.mixed_precision)
    original = restoring.load_run(folder, precision=policy)
    predicted = {
        "trained": exporting.label(original, some.images),
        "float32": exporting.label(trained, some.images),
    }
    for path in sorted(pathlib.Path(folder).glob("export/*/model.json")):
        name = path.parent.name
        run = importlib.import_module(registry.FORMATS[name].module).load(
            str(path.parent)
        )
        predicted[name] = run(some.images)["labels"]
    return {
        name: mean_iou(some.labels, labels, len(trained.class_names))
        for name, labels in predicted.items()
    }


if __name__ == "__main__":
    print(json.dumps(score(sys.argv[1])))
