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
from typing import NamedTuple

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
      images: uint8 or uint16 [num_examples, height, width, channels], mapped.
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
    folder: pathlib.Path,
    num_examples: int,
    image_size: Sequence[int],
    num_classes: int,
    image_format: schema.ImageFormat = schema.RGB,
) -> Examples | None:
    """Maps the files of a folder that holds what it should.

    All labels are read, and a part of the images, about a second for a gigabyte.

    Args:
      folder: of the files.
      num_examples: of the split.
      image_size: height and width.
      num_classes: labels are below, or `schema.IGNORE_LABEL`.
      image_format: of the images.

    Returns:
      None if there is no such folder. One that is damaged is removed with a warning.

    Raises:
      schema.DataError: if a damaged one cannot be removed.
    """
    if not os.path.lexists(folder):
        return None
    try:
        kinds = _describe_arrays(num_examples, image_size, image_format)
        return _verify(folder, kinds, num_classes)
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
    image_format: schema.ImageFormat = schema.RGB,
) -> None:
    """Writes a folder, unless another process writes the same one first.

    Args:
      folder: that is not there yet.
      num_examples: of the split.
      image_size: height and width.
      fill: hands over all examples, one after the other; returns their names, and the
        ids of those that could not be used.
      image_format: of the images.

    Raises:
      schema.DataError: if there is no room, or the folder cannot be written.
    """
    kinds = _describe_arrays(num_examples, image_size, image_format)
    partial = _partial_of(folder)
    with _explaining(folder), contextlib.ExitStack() as stack:
        stack.callback(_remove, partial)
        partial.mkdir(parents=True)
        _remove_abandoned(folder.parent)
        owner = stack.enter_context((partial / _OWNER).open("w+"))
        # It waits: another process locks it as it looks whether it is abandoned.
        file_locks.share_lock(owner.fileno())
        owner.write(file_locks.place_of(owner.fileno()))
        owner.flush()
        _check_room(folder, sum(kind.num_bytes for kind in kinds))
        arrays = [
            stack.enter_context(_ArrayFile(partial / f"{name}.npy", kind))
            for name, kind in zip(_FILES, kinds, strict=True)
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


class _ArrayKind(NamedTuple):
    """Type and shape of the array in a file."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """What its values take."""
        return self.dtype.itemsize * int(np.prod(self.shape))


def _describe_arrays(
    num_examples: int, image_size: Sequence[int], image_format: schema.ImageFormat
) -> tuple[_ArrayKind, _ArrayKind]:
    """Returns what images and labels of a split are."""
    shape = (num_examples, *image_size)
    image_dtype = np.dtype(image_format.dtype).newbyteorder("<")
    return (
        _ArrayKind(image_dtype, (*shape, image_format.num_channels)),
        _ArrayKind(np.dtype(np.uint8), shape),
    )


class _ArrayFile:
    """A .npy file that is written row by row."""

    def __init__(self, path: pathlib.Path, kind: _ArrayKind):
        self._file = path.open("wb")
        self._dtype = kind.dtype
        header = {
            "descr": kind.dtype.str,
            "fortran_order": False,
            "shape": kind.shape,
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        self._sample = frozenset(_sample(kind))
        self._num_rows = 0
        self.checksum = 0

    def __enter__(self) -> "_ArrayFile":
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # What could not be written cannot be now.
            self._file.close()

    def append(self, row: np.ndarray) -> None:
        data = np.ascontiguousarray(row, self._dtype).tobytes()
        if self._num_rows in self._sample:
            self.checksum = zlib.crc32(data, self.checksum)
        self._file.write(data)
        self._num_rows += 1

    def close(self) -> None:
        """Closes the file, so that every error of the disk has been seen."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _sample(kind: _ArrayKind) -> np.ndarray:
    """Returns the rows whose checksum is kept: of labels all, of images a part."""
    num_rows, is_label = kind.shape[0], len(kind.shape) == 3
    row_bytes = kind.dtype.itemsize * int(np.prod(kind.shape[1:]))
    count = num_rows if is_label else max(_SAMPLE_BYTES // row_bytes, 1)
    return np.unique(np.linspace(0, num_rows - 1, min(count, num_rows)).astype(int))


def _verify(
    folder: pathlib.Path, kinds: tuple[_ArrayKind, _ArrayKind], num_classes: int
) -> Examples:
    description = json.loads((folder / "examples.json").read_bytes())
    names, bad = tuple(description["names"]), tuple(description["bad"])
    images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES)
    for array, kind in zip((images, labels), kinds, strict=True):
        is_right = _ArrayKind(array.dtype, array.shape) == kind
        if not is_right or not array.flags.c_contiguous:
            raise ValueError(
                f"{array.dtype} {list(array.shape)}, not {kind.dtype} "
                f"{list(kind.shape)}"
            )
    if len(names) != len(images) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{len(names)} names for {len(images)} examples")
    if not all(isinstance(index, int) and 0 <= index < len(names) for index in bad):
        raise ValueError("ids that no example has")
    # Folders of older versions have no checksums.
    checksums = description.get("checksums", {})
    for name, array, kind in zip(_FILES, (images, labels), kinds, strict=True):
        checksum = 0
        for rows in _chunks(_sample(kind)):
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
