"""What a run was trained on, as its folder says it: RUN/dataset.json.

Whatever uses the trained model finds here what its input and output mean, when the data
set itself is not at hand.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from data import schema
from trainer import errors, files

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The classes and images that a model knows.

    Attributes:
      class_names: one for each class, in the order of the logits.
      palette: a colour of each, (red, green, blue) in 0..255.
      image_channels: of what the model is shown.
      image_range: the least and the greatest value of that.
      label_source: where the labels came from: the data set as `--dataset` names it,
        the split, and how mask values became classes.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image_channels: int = 3
    image_range: tuple[int, int] = (0, 255)
    label_source: dict[str, Any] = dataclasses.field(default_factory=dict)


def describe(
    info: schema.DatasetInfo, *, dataset: str, split: str, ignore_label: int
) -> Dataset:
    """Describes the data set that a run trains on.

    Args:
      info: its classes and images.
      dataset: as `--dataset` names it.
      split: name of the training split.
      ignore_label: the mask value of pixels that do not count.
    """
    return Dataset(
        class_names=info.class_names,
        palette=info.palette,
        image_channels=info.image_format.num_channels,
        image_range=info.image_format.value_range,
        label_source={
            "dataset": dataset,
            "split": split,
            "label_offset": info.label_offset,
            "label_map": info.label_map,
            "label_colors": info.label_colors,
            "ignore_label": ignore_label,
        },
    )


def write(model_dir: str, dataset: Dataset) -> None:
    """Writes what a run is trained on into its folder.

    Raises:
      errors.WriteError: if that fails.
    """
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(dataset)}
    path = pathlib.Path(model_dir) / "dataset.json"
    files.write_text(path, json.dumps(values, indent=2) + "\n")


def read(model_dir: str, class_names: Sequence[str]) -> Dataset:
    """Reads what the run in a folder was trained on.

    Args:
      model_dir: the folder of the run.
      class_names: those in the run's checkpoints. For a run that is older than the
        file, they are all that is known.

    Raises:
      errors.CheckpointError: if the file cannot be read, is of a later version of this
        package, or names other classes.
    """
    path = pathlib.Path(model_dir) / "dataset.json"
    class_names = tuple(class_names)
    try:
        values = json.loads(path.read_text("utf-8"))
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise errors.CheckpointError(
                f"{path} has the format version {version}, and this segloop knows "
                f"{FORMAT_VERSION}; install the segloop that trained the run."
            )
        dataset = Dataset(
            class_names=tuple(values["class_names"]),
            palette=tuple((int(r), int(g), int(b)) for r, g, b in values["palette"]),
            image_channels=int(values["image_channels"]),
            image_range=tuple(values["image_range"]),
            label_source=dict(values["label_source"]),
        )
    except FileNotFoundError:
        palette = schema.voc_palette(len(class_names))
        return Dataset(class_names=class_names, palette=palette)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.CheckpointError(
            f"{path} cannot be read ({error!r}); write it anew by starting the "
            "training again with its own flags."
        ) from error
    if dataset.class_names != class_names:
        raise errors.CheckpointError(
            f"{path} names the classes {', '.join(dataset.class_names)}, the "
            f"checkpoints {', '.join(class_names)}; is it the file of another run?"
        )
    return dataset
