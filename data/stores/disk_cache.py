"""Decoded examples as files: written whole or not at all, verified when opened.

    CACHE_DIR/SPLIT-FINGERPRINT/
        images.npy, labels.npy   the arrays, to be memory-mapped
        examples.json            names, which ones could not be used, checksums

A folder is written under a temporary name and renamed. Plain writes, not a mapped file:
on a disk that fills up, those fail with an error, and a mapped file kills the process.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from data import schema
from data.stores import file_locks

_FILES = ("images", "labels")
_PARTIAL = re.compile(r".+\.partial-[0-9a-f]{32}")
_OWNER = "owner"
"""A file in a folder that is being written, locked by the process that writes."""

_ABANDONED_SECS = 24 * 3600
"""An unlocked partial folder of another host may be removed when it is so old."""

_SAMPLE_BYTES = 64 * 2**20
"""So much of the images is read for their checksum, spread evenly over all of them."""

_CHUNK_SIZE = 64
"""Examples verified at a time."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """What a folder holds.

    Attributes:
      images: uint8 [num_examples, height, width, 3], mapped.
      labels: uint8 [num_examples, height, width], mapped.
      names: of the examples.
      bad: ids of those that could not be used.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    bad: tuple[int, ...]


Put = Callable[[np.ndarray, np.ndarray], None]
"""Takes image and label of the next example."""


def open_verified(
    folder: pathlib.Path, num_examples: int, image_size: Sequence[int], num_classes: int
) -> Examples | None:
    """Maps the files of a folder that holds what it should.

    All labels are read, and a part of the images, about a second for a gigabyte.

    Args:
      folder: of the files.
      num_examples: of the split.
      image_size: height and width.
      num_classes: labels are below, or `schema.IGNORE_LABEL`.

    Returns:
      None if there is no such folder. One that is damaged is removed with a warning.

    Raises:
      schema.DataError: if a damaged one cannot be removed.
    """
    if not os.path.lexists(folder):
        return None
    try:
        return _verify(folder, (num_examples, *image_size), num_classes)
    except Exception as error:  # Damage shows as many kinds of error.
        logging.warning(
            "%s: the cached examples are damaged (%s); they are decoded again.",
            folder,
            error,
        )
    with _explaining(folder):
        aside = _partial_of(folder)
        with contextlib.suppress(FileNotFoundError):  # Another process was faster.
            folder.rename(aside)
        _remove(aside)
    return None


def write(
    folder: pathlib.Path,
    num_examples: int,
    image_size: Sequence[int],
    fill: Callable[[Put], tuple[Sequence[str], Sequence[int]]],
) -> None:
    """Writes a folder, unless another process writes the same one first.

    Args:
      folder: that is not there yet.
      num_examples: of the split.
      image_size: height and width.
      fill: hands over all examples, one after the other; returns their names, and the
        ids of those that could not be used.

    Raises:
      schema.DataError: if there is no room, or the folder cannot be written.
    """
    labels_shape = (num_examples, *image_size)
    shapes = ((*labels_shape, 3), labels_shape)
    partial = _partial_of(folder)
    with _explaining(folder), contextlib.ExitStack() as stack:
        stack.callback(_remove, partial)
        partial.mkdir(parents=True)
        _remove_abandoned(folder.parent)
        owner = stack.enter_context((partial / _OWNER).open("w"))
        file_locks.try_lock(owner.fileno())
        owner.write(file_locks.place_of(owner.fileno()))
        owner.flush()
        _check_room(folder, sum(int(np.prod(shape)) for shape in shapes))
        arrays = [
            stack.enter_context(_ArrayFile(partial / f"{name}.npy", shape))
            for name, shape in zip(_FILES, shapes, strict=True)
        ]

        def put(*example: np.ndarray) -> None:
            for array, value in zip(arrays, example, strict=True):
                array.append(value)

        names, bad = fill(put)
        for array in arrays:
            array.close()
        checksums = {
            name: array.checksum for name, array in zip(_FILES, arrays, strict=True)
        }
        description = {"names": names, "bad": bad, "checksums": checksums}
        with (partial / "examples.json").open("w") as file:
            json.dump(description, file)
            file.flush()
            os.fsync(file.fileno())
        (partial / _OWNER).unlink()
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # Else another process was faster.
                raise


class _ArrayFile:
    """A .npy file of uint8 that is written row by row."""

    def __init__(self, path: pathlib.Path, shape: Sequence[int]):
        self._file = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._sample = frozenset(_sample(shape))
        self._num_rows = 0
        self.checksum = 0

    def __enter__(self) -> "_ArrayFile":
        return self

    def __exit__(self, *error) -> None:
        with contextlib.suppress(OSError):  # What could not be written cannot be now.
            self._file.close()

    def append(self, row: np.ndarray) -> None:
        data = np.ascontiguousarray(row, np.uint8).tobytes()
        if self._num_rows in self._sample:
            self.checksum = zlib.crc32(data, self.checksum)
        self._file.write(data)
        self._num_rows += 1

    def close(self) -> None:
        """Closes the file, so that every error of the disk has been seen."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _sample(shape: Sequence[int]) -> np.ndarray:
    """Returns the rows whose checksum is kept: of labels all, of images a part."""
    num_rows, row_bytes = shape[0], int(np.prod(shape[1:]))
    count = num_rows if len(shape) == 3 else max(_SAMPLE_BYTES // row_bytes, 1)
    return np.unique(np.linspace(0, num_rows - 1, min(count, num_rows)).astype(int))


def _verify(
    folder: pathlib.Path, labels_shape: tuple[int, ...], num_classes: int
) -> Examples:
    description = json.loads((folder / "examples.json").read_bytes())
    names, bad = tuple(description["names"]), tuple(description["bad"])
    images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES)
    for array, shape in ((images, (*labels_shape, 3)), (labels, labels_shape)):
        if (
            array.shape != shape
            or array.dtype != np.uint8
            or not array.flags.c_contiguous
        ):
            raise ValueError(
                f"{array.dtype} {list(array.shape)}, not uint8 {list(shape)}"
            )
    if len(names) != len(images) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{len(names)} names for {len(images)} examples")
    if not all(isinstance(index, int) and 0 <= index < len(names) for index in bad):
        raise ValueError("ids that no example has")
    # Folders of older versions have no checksums.
    checksums = description.get("checksums", {})
    for name, array in zip(_FILES, (images, labels), strict=True):
        checksum = 0
        for rows in _chunks(_sample(array.shape)):
            part = np.ascontiguousarray(array[rows])
            checksum = zlib.crc32(part, checksum)
            if name == "labels":
                _check_labels(part, num_classes)
        if checksum != checksums.get(name, checksum):
            raise ValueError(f"the checksum of {name}.npy is another one")
    return Examples(images, labels, names, bad)


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _CHUNK_SIZE):
        yield rows[start : start + _CHUNK_SIZE]


def _check_labels(labels: np.ndarray, num_classes: int) -> None:
    is_wrong = (labels >= num_classes) & (labels != schema.IGNORE_LABEL)
    if is_wrong.any():
        raise ValueError(f"a label is {labels[is_wrong][0]} of {num_classes} classes")


def _check_room(folder: pathlib.Path, num_bytes: int) -> None:
    """Says before hours of decoding what would be found out at their end."""
    free = shutil.disk_usage(folder.parent).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{num_bytes / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB free",
        )


def _partial_of(folder: pathlib.Path) -> pathlib.Path:
    # Not named after the process: in a container its id is that of the killed run too.
    return folder.with_name(f"{folder.name}.partial-{uuid.uuid4().hex}")


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_abandoned(root: pathlib.Path) -> None:
    """Removes the folders that killed processes were writing."""
    for path in root.iterdir():
        if _PARTIAL.fullmatch(path.name) and path.is_dir() and _is_abandoned(path):
            logging.info("Removing %s, which a killed process left.", path)
            _remove(path)


def _is_abandoned(partial: pathlib.Path) -> bool:
    try:
        with (partial / _OWNER).open("r+") as owner:
            is_locked = file_locks.try_lock(owner.fileno())
            if is_locked is False:
                return False
            if is_locked and owner.read() == file_locks.place_of(owner.fileno()):
                return True
    except OSError:
        pass  # It has no owner yet, or no longer, or goes away right now.
    try:
        newest = max(path.stat().st_mtime for path in [partial, *partial.iterdir()])
    except OSError:
        return False
    return time.time() - newest > _ABANDONED_SECS


@contextlib.contextmanager
def _explaining(folder: pathlib.Path) -> Iterator[None]:
    """Turns errors of the file system into what the user can do about them."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise schema.DataError(
                f"--cache=disk: there is no room for {folder} ({error.strerror}); make "
                "room, name another folder by --cache_dir, or use --cache=none.",
                kind="cache_full",
            ) from error
        raise schema.DataError(
            f"--cache_dir={folder.parent}: this folder cannot be used "
            f"({error.strerror or error}: {error.filename or folder}); name another.",
            kind="cache_dir",
        ) from error
