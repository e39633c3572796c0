"""What an exported file is, as the `model.json` beside it says it."""

import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainer import errors, files
from trainer.exporting import registry

FORMAT_VERSION = 1
NAME = "model.json"


def write(folder: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes the description of the files in a folder, with their hashes.

    Args:
      folder: of the files.
      values: what there is to say, for JSON; no number is NaN or infinite.

    Raises:
      ValueError: if one is, as JSON has no word for it.
      errors.WriteError: if that fails.
    """
    described = {
        "format_version": FORMAT_VERSION,
        **values,
        "sha256": {
            str(path.relative_to(folder)): _hash(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / NAME
        },
    }
    text = json.dumps(described, indent=2, allow_nan=False)
    files.write_text(folder / NAME, text + "\n")


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the description of the files in a folder.

    Raises:
      errors.ExportError: if there is none, it is of a later version of this package, or
        a file is another one than it says.
    """
    path = folder / NAME
    try:
        values = json.loads(path.read_text("utf-8"))
        version, hashes = values["format_version"], values["sha256"]
        if version != FORMAT_VERSION:
            raise errors.ExportError(
                f"{path} has the format version {version}, and this segloop knows "
                f"{FORMAT_VERSION}; install the segloop that exported the model."
            )
        changed = [name for name in hashes if _hash(folder / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ExportError(
            f"{path} cannot be read ({error}); name a folder that --mode=export wrote, "
            "or export the model again."
        ) from error
    if changed:
        raise errors.ExportError(
            f"{folder / changed[0]} is not the file that {path} describes; export the "
            "model again."
        )
    return values


def find_other(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns a file in a folder that is none of an export; None: there is none.

    An export's own files are `model.json` and those that it lists.
    """
    try:
        hashes = json.loads((folder / NAME).read_text("utf-8"))["sha256"]
        own = {NAME, *hashes}
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    for path in sorted(folder.rglob("*")):
        is_file = path.is_symlink() or not path.is_dir()
        if is_file and str(path.relative_to(folder)) not in own:
            return path
    return None


class Model(NamedTuple):
    """What a program needs to use an exported file.

    Attributes:
      folder: of the file.
      format: its name, of `registry.FORMATS`.
      class_names: one for each class.
      palette: a colour of each.
      settings: those of the images that it takes, by the names of their flags.
      gives_scores: whether it gives those of all classes, rather than labels alone.
      step: of the checkpoint that it was made of.
      weights: a short hash of its files.
      uses_averages: whether it has the moving averages of the checkpoint's weights.
    """

    folder: pathlib.Path
    format: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    settings: dict[str, Any]
    gives_scores: bool
    step: int
    weights: str
    uses_averages: bool


def read_model(folder: str) -> Model:
    """Reads what an exported file is, and checks that it is this one.

    Raises:
      errors.ExportError: if the folder is none of an export, or damaged.
    """
    path = pathlib.Path(folder)
    values = read(path)
    try:
        kind = registry.FORMATS[values["format"]]
        hashes = json.dumps(values["sha256"], sort_keys=True).encode()
        return Model(
            folder=path,
            format=values["format"],
            class_names=tuple(map(str, values["class_names"])),
            palette=tuple((int(r), int(g), int(b)) for r, g, b in values["palette"]),
            settings={
                "image_size": tuple(map(int, values["image_size"])),
                "resize": str(values["resize"]),
                "image_channels": int(values["image_channels"]),
                "image_range": tuple(map(int, values["image_range"])),
            },
            gives_scores=kind.always_gives_scores
            or bool(values["gives_probabilities"]),
            step=int(values["step"]),
            weights=hashlib.sha256(hashes).hexdigest()[:16],
            uses_averages=bool(values["uses_averages"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise errors.ExportError(
            f"{path / NAME} does not say what the model is ({error!r}); export it "
            "again."
        ) from error


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of packages, by the names that pip knows."""
    found = {}
    for name in dict.fromkeys(packages):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""  # A clone that is run in place.
    return found


def _hash(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
