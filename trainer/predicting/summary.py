"""How much of each photo each class takes: a table that grows with the photos done."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from data.sources import listing
from trainer import errors, files

COLUMNS = ("photo", "class", "pixels", "share", "mean_confidence")


class Tally:
    """Counts the pixels of each class, and sums up their probabilities."""

    def __init__(self, num_classes: int):
        self._counts = np.zeros(num_classes, np.int64)
        self._sums = np.zeros(num_classes)

    def add(self, labels: np.ndarray, confidences: np.ndarray) -> None:
        """Counts some pixels.

        Args:
          labels: uint8 [...], their classes.
          confidences: float32 [...], the probabilities of these, 0 to 1; NaN if they
            are not known.
        """
        length = len(self._counts)
        flat = labels.ravel()
        self._counts += np.bincount(flat, minlength=length)
        self._sums += np.bincount(flat, confidences.ravel(), minlength=length)

    def rows(self, photo: str, class_names: Sequence[str]) -> list[list[str]]:
        """Returns the lines of the table for a photo, a class each.

        Of a class without a pixel, or of a model that gives no probabilities, there is
        no mean confidence.
        """
        total = max(self._counts.sum(), 1)
        return [
            [
                photo,
                name,
                str(count),
                f"{count / total:.6f}",
                f"{added / count:.6f}" if count and not math.isnan(added) else "",
            ]
            for name, count, added in zip(
                class_names, self._counts, self._sums, strict=True
            )
        ]


class Summary:
    """`summary.csv`: the classes of all photos that are done, in the order they were.

    A photo is done if all of its lines are there; they are written after its files.
    Of its name, bytes that are not UTF-8 are written as `listing.printable` shows them.
    """

    def __init__(self, path: pathlib.Path, num_classes: int):
        """Reads what is there; lines of a photo that are not complete are dropped.

        Args:
          path: of the table.
          num_classes: lines of each photo.

        Raises:
          errors.RunError: if it cannot be read, or is no longer as it was written.
        """
        self._path = path
        self._rows: dict[str, list[list[str]]] = {}
        for row in _read(path)[1:]:
            if len(row) == len(COLUMNS):
                self._rows.setdefault(row[0], []).append(row)
        self._rows = {
            n: rows for n, rows in self._rows.items() if len(rows) == num_classes
        }

    def __contains__(self, photo: str) -> bool:
        return listing.printable(photo) in self._rows

    def start(self, again: Sequence[str], *, keeps_others: bool = True) -> None:
        """Writes the table anew.

        Args:
          again: photos that are to be done, whose lines are dropped.
          keeps_others: whether the lines of other photos stay.
        """
        for photo in again if keeps_others else list(self._rows):
            self._rows.pop(listing.printable(photo), None)
        rows = [row for rows in self._rows.values() for row in rows]
        files.write_text(self._path, _format([COLUMNS, *rows]))

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Appends the lines of a photo, all at once."""
        rows = [[listing.printable(row[0]), *row[1:]] for row in rows]
        files.append_line(self._path, _format(rows).removesuffix("\n"))


def _read(path: pathlib.Path) -> list[list[str]]:
    """Returns all lines of a table, none if it is not there."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise errors.RunError(
            f"{path} cannot be read ({reason}), and tells which photos are done; was "
            "it saved by another program? Remove it to have all photos predicted "
            "again, or give another --output."
        ) from error


def _format(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
