"""Photos that an exported model is proved by: RUN/golden/photos.npz.

Eight examples of the evaluation split, as they enter the model. So an export needs no
data set.
"""

import io
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from trainer import errors, files

NUM_PHOTOS = 8
FORMAT_VERSION = 1

_WITH_PICTURES = (
    "golden/photos.npz",
    "predictions.png",
    "evaluations",
    "doctor.png",
    "doctor",
)
"""What holds photos if it is there; a report may have been made without any."""


class Golden(NamedTuple):
    """Some examples.

    Attributes:
      images: uint8 or uint16 [photos, height, width, channels].
      labels: uint8 [photos, height, width]; 255 is ignored.
      names: of the examples.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def choose(num_examples: int, count: int = NUM_PHOTOS) -> np.ndarray:
    """Returns the ids, int64, of examples from all over a split."""
    return np.linspace(0, num_examples - 1, min(count, num_examples), dtype=np.int64)


def write_once(
    model_dir: str,
    num_examples: int,
    read_examples: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
) -> None:
    """Keeps the photos of a run in its folder, if there are none yet.

    Args:
      model_dir: the folder of the run.
      num_examples: of the evaluation split.
      read_examples: gives images and labels of ids; see `data.pipeline.Examples`.
      names: of all examples.

    Raises:
      errors.WriteError: if they cannot be written.
    """
    path = _path(model_dir)
    if path.exists():
        return
    ids = choose(num_examples)
    images, labels = read_examples(ids)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format_version=FORMAT_VERSION,
        images=images,
        labels=labels,
        names=np.array([str(names[int(index)]) for index in ids]),
    )
    files.make_folder(path.parent)
    files.write_bytes(path, buffer.getvalue())


def forget(model_dir: str) -> None:
    """Removes the photos of an earlier run in the folder.

    Raises:
      errors.WriteError: if they cannot be removed.
    """
    path = _path(model_dir)
    with files.explaining(path):
        path.unlink(missing_ok=True)


def read(model_dir: str) -> Golden | None:
    """Reads the photos of a run; None: it kept none.

    Raises:
      errors.CheckpointError: if they cannot be read.
    """
    path = _path(model_dir)
    try:
        with np.load(path, allow_pickle=False) as saved:
            version = int(saved["format_version"])
            if version != FORMAT_VERSION:
                raise errors.CheckpointError(
                    f"{path} has the format version {version}, and this segloop knows "
                    f"{FORMAT_VERSION}; install the segloop that trained the run."
                )
            return Golden(
                saved["images"], saved["labels"], tuple(saved["names"].tolist())
            )
    except FileNotFoundError:
        return None
    except errors.RunError:
        raise
    except Exception as error:  # Of a damaged file: zipfile's, zlib's, NumPy's.
        raise errors.CheckpointError(
            f"{path} cannot be read ({error}); remove it, and the evaluation split "
            "takes its place."
        ) from error


def list_pictures(model_dir: str) -> list[str]:
    """Lists what a folder holds of the photos of a data set, relative to it.

    Without TensorBoard's files, which may hold some.
    """
    folder = pathlib.Path(model_dir)
    names = [name for name in _WITH_PICTURES if (folder / name).exists()]
    if _has_picture(folder / "report.html"):
        names.append("report.html")
    return names


def _has_picture(page: pathlib.Path) -> bool:
    """Tells whether there is a page with a picture, or one that cannot be read."""
    try:
        return b"data:image/" in page.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _path(model_dir: str) -> pathlib.Path:
    return pathlib.Path(model_dir) / "golden" / "photos.npz"
