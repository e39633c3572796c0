"""What is written of a photo: its classes as a picture, and what else was asked for."""

import io
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.files import images
from trainer import files
from trainer.drawing import pictures
from trainer.predicting import photos, summary
from trainer.settings import predict as predict_settings

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 90
"""Of the overlays' JPEG."""
_MOST_SIDE = 60_000
"""Pixels of a photo in an overlay: a JPEG ends at 65,500, and there is a legend."""

_STRIP_ROWS = 512
"""Of a photo that are laid under colours at a time."""
_ENDINGS = {
    "labels": ".png",
    "overlay": ".jpg",
    "confidence": ".png",
    "probabilities": ".{}.png",
    "npz": ".npz",
}
assert tuple(_ENDINGS) == predict_settings.SAVE_CHOICES


class Output:
    """The folder of `--output`: OUTPUT/KIND/NAME of each photo, and a table."""

    def __init__(
        self,
        folder: str,
        save: Sequence[str],
        class_names: Sequence[str],
        palette: Sequence[tuple[int, int, int]],
    ):
        """Makes the folder.

        Args:
          folder: of `--output`.
          save: what to write; see `predict_settings.SAVE_CHOICES`.
          class_names: of the classes.
          palette: a colour of each.

        Raises:
          errors.WriteError: if it cannot be made.
        """
        self.folder = pathlib.Path(folder)
        self.save = tuple(save)
        self.class_names, self.palette = class_names, palette
        files.make_folder(self.folder)
        self._table = self.folder / "summary.csv"
        self.summary = summary.Summary(self._table, len(class_names))

    def paths(self, photo: photos.Photo, kind: str) -> list[pathlib.Path]:
        """Returns the files of a photo of one kind."""
        start, ending = str(self.folder / kind / photo.name), _ENDINGS[kind]
        indices = range(len(self.class_names)) if kind == "probabilities" else (0,)
        return [pathlib.Path(start + ending.format(index)) for index in indices]

    def all_paths(self, found: Iterable[photos.Photo]) -> Iterator[pathlib.Path]:
        """Yields the files of all photos, and that of the table, if it is another one.

        A process may be killed when it has begun a table, with its first line or
        without, and written nothing else.
        """
        start = ",".join(summary.COLUMNS).encode()
        content = self._table.read_bytes() if self._table.exists() else b""
        if content and not content.startswith(start):
            yield self._table
        yield from self._files(found)

    def _files(self, found: Iterable[photos.Photo]) -> Iterator[pathlib.Path]:
        for photo in found:
            for kind in self.save:
                yield from self.paths(photo, kind)

    def find_rest(self, found: Iterable[photos.Photo]) -> list[pathlib.Path]:
        """Returns the files there, of all kinds, that photos would not replace."""
        replaced = set(self._files(found))
        return sorted(
            path
            for kind, ending in _ENDINGS.items()
            for path in (self.folder / kind).rglob(f"*.{ending.rpartition('.')[2]}")
            if path not in replaced
        )

    def remove(self, found: Iterable[photos.Photo]) -> None:
        """Removes what is there of some photos.

        Raises:
          errors.WriteError: if that fails.
        """
        for path in self._files(found):
            with files.explaining(path):
                path.unlink(missing_ok=True)

    def is_done(self, photo: photos.Photo) -> bool:
        """Tells whether all that was asked for of a photo is there."""
        paths = self._files([photo])
        return photo.name in self.summary and all(path.exists() for path in paths)

    def write(
        self,
        photo: photos.Photo,
        canvas: "Canvas",
        shown: np.ndarray | None,
        turned_by: int,
    ) -> None:
        """Writes the files of a photo, each whole or not at all.

        Args:
          photo: which.
          canvas: its classes, all strips of it.
          shown: the photo, uint8 [height, width, 3], where an overlay is to be made.
          turned_by: the orientation that was undone to show it and that its masks are
            to have again; 1 for none.

        Raises:
          errors.WriteError: if a file cannot be written.
        """
        for kind in self.save:
            encoded = getattr(self, f"_encode_{kind}")(canvas, shown, turned_by)
            for path, data in zip(self.paths(photo, kind), encoded, strict=True):
                files.make_folder(path.parent)
                files.write_bytes(path, data, is_synced=False)

    def note(self, photo: photos.Photo, canvas: "Canvas") -> None:
        """Adds a photo to the table, once its files are there."""
        self.summary.add(canvas.tally.rows(photo.name, self.class_names))

    def _encode_labels(self, canvas: "Canvas", shown: None, turned_by: int) -> list:
        from PIL import Image

        picture = Image.fromarray(images.turn_back(canvas.labels, turned_by), "P")
        picture.putpalette([value for color in self.palette for value in color])
        return [_to_png(picture)]

    def _encode_overlay(
        self, canvas: "Canvas", shown: np.ndarray, turned_by: int
    ) -> list:
        from PIL import Image

        step = -(-max(canvas.labels.shape) // _MOST_SIDE)
        shown, labels = (array[::step, ::step] for array in (shown, canvas.labels))
        mixed = np.empty_like(shown)
        for first in range(0, len(shown), _STRIP_ROWS):
            rows = slice(first, first + _STRIP_ROWS)
            part = (shown[np.newaxis, rows], labels[np.newaxis, rows])
            mixed[rows] = pictures.blend(*part, self.palette)[0]
        # Always as viewers show the photo: the names below it are to be read.
        legend = pictures.draw_legend(
            mixed.shape[1], self.class_names, self.palette, others={}
        )
        file = io.BytesIO()
        picture = Image.fromarray(np.concatenate([mixed, legend]))
        picture.save(file, "JPEG", quality=_QUALITY)
        return [file.getvalue()]

    def _encode_confidence(self, canvas: "Canvas", shown: None, turned_by: int) -> list:
        from PIL import Image

        return [
            _to_png(Image.fromarray(images.turn_back(canvas.confidence, turned_by)))
        ]

    def _encode_probabilities(
        self, canvas: "Canvas", shown: None, turned_by: int
    ) -> list:
        from PIL import Image

        return [
            _to_png(Image.fromarray(images.turn_back(plane, turned_by)))
            for plane in canvas.probabilities
        ]

    def _encode_npz(self, canvas: "Canvas", shown: None, turned_by: int) -> list:
        planes = [images.turn_back(plane, turned_by) for plane in canvas.probabilities]
        file = io.BytesIO()
        np.savez_compressed(
            file,
            probabilities=np.stack(planes),
            class_names=np.array(self.class_names),
        )
        return [file.getvalue()]


class Canvas:
    """The classes of a photo, filled from the top to the bottom.

    Attributes:
      labels: uint8 [height, width].
      confidence: uint8 [height, width], 255 times the probability of the class; None
        if nobody asked.
      probabilities: uint16 [classes, height, width], 65535 times those of all; None if
        nobody asked.
      tally: counts what was filled in.
    """

    def __init__(self, size: tuple[int, int], num_classes: int, save: Sequence[str]):
        self.labels = np.empty(size, np.uint8)
        wants_all = {"probabilities", "npz"} & set(save)
        self.confidence = np.empty(size, np.uint8) if "confidence" in save else None
        self.probabilities = (
            np.empty((num_classes, *size), np.uint16) if wants_all else None
        )
        self.tally = summary.Tally(num_classes)
        self._row = 0

    @property
    def wants_probabilities(self) -> bool:
        """Whether those of all classes are to be filled in, too."""
        return self.probabilities is not None

    def add(
        self,
        labels: np.ndarray,
        confidences: np.ndarray,
        probabilities: np.ndarray | None,
    ) -> None:
        """Fills in the next rows.

        Args:
          labels: uint8 [rows, width].
          confidences: float32 [rows, width], their probabilities.
          probabilities: float32 [rows, width, classes]; None if nobody asked.
        """
        rows = slice(self._row, self._row + len(labels))
        self._row = rows.stop
        self.labels[rows] = labels
        self.tally.add(labels, confidences)
        if self.confidence is not None:
            self.confidence[rows] = (confidences * 255).round()
        if self.probabilities is not None:
            scaled = (probabilities * 65535).round().clip(0, 65535)
            self.probabilities[:, rows] = scaled.transpose(2, 0, 1)


def _to_png(picture: "Image.Image") -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return file.getvalue()
