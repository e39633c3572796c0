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
        self._num_classes = num_classes
        self._rows = _read(path, num_classes)

    def __contains__(self, photo: str) -> bool:
        return listing.printable(photo) in self._rows

    def start(self, again: Sequence[str], *, keeps_others: bool = True) -> None:
        """Makes the table ready for lines that are to come.

        Args:
          again: photos that are to be done, whose lines are dropped.
          keeps_others: whether the lines of other photos stay.

        Raises:
          errors.RunError: if it cannot be read or written.
        """

        def change(content: bytes) -> bytes:
            # Another process may have done photos of its own since the table was read.
            self._rows = _parse(self._path, content, self._num_classes)
            for photo in again if keeps_others else list(self._rows):
                self._rows.pop(listing.printable(photo), None)
            rows = [row for rows in self._rows.values() for row in rows]
            return _format([COLUMNS, *rows]).encode()

        files.change_lines(self._path, change)

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Appends the lines of a photo, all at once."""
        rows = [[listing.printable(row[0]), *row[1:]] for row in rows]
        files.append_line(self._path, _format(rows).removesuffix("\n"))


def _read(path: pathlib.Path, num_classes: int) -> dict[str, list[list[str]]]:
    """Returns the lines of each photo that is done; none if there is no table."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _explain(path, error.strerror or error) from error
    return _parse(path, content, num_classes)


def _parse(
    path: pathlib.Path, content: bytes, num_classes: int
) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    try:
        lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
    except (ValueError, csv.Error) as error:
        raise _explain(path, error) from error
    for row in lines[1:]:
        if len(row) == len(COLUMNS):
            found.setdefault(row[0], []).append(row)
    return {name: rows for name, rows in found.items() if len(rows) == num_classes}


def _explain(path: pathlib.Path, reason: object) -> errors.RunError:
    return errors.RunError(
        f"{path} cannot be read ({reason}), and tells which photos are done; was it "
        "saved by another program? Remove it to have all photos predicted again, or "
        "give another --output."
    )


def _format(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
