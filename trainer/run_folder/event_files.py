"""TensorBoard's event files, repaired and cut without taking room on the disk.

A file is a sequence of records: 8 bytes of length, 4 of checksum, the event, 4 of
checksum. What follows a half written record is never read, so none may stay.
"""

import itertools
import pathlib

import tensorflow as tf

from trainer import files

PATTERN = "events.out.tfevents.*"
MOST_BYTES = 2**20
"""A file that has so many is left for a new one: that of a run at a URL is uploaded
whole after each save."""
_FRAME_BYTES = 16


def cut_half_record(path: pathlib.Path) -> None:
    """Cuts off the record at the end that is not whole; removes a file without any."""
    steps, ends = _read(path)
    if not steps:
        path.unlink()
    elif ends[-1] < path.stat().st_size:
        _truncate(path, ends[-1])


def drop_after(path: pathlib.Path, last_step: int) -> None:
    """Removes the events after a step, and a record at the end that is not whole.

    A file that holds no event is set aside.

    Raises:
      errors.WriteError: if the file cannot be changed.
    """
    if not path.stat().st_size:
        path.unlink()
        return
    steps, ends = _read(path)
    if not steps:
        # TensorBoard reads whatever has "tfevents" in its name.
        files.set_aside(path, name=path.name.replace("tfevents", "events"))
        return
    is_kept = [step <= last_step for step in steps]
    num_kept = sum(is_kept)
    if all(is_kept[:num_kept]):
        if (end := ends[num_kept - 1] if num_kept else 0) < path.stat().st_size:
            _truncate(path, end)
        return
    data = path.read_bytes()
    starts = [0, *ends[:-1]]
    records = (data[a:b] for a, b in zip(starts, ends, strict=True))
    files.write_bytes(path, b"".join(itertools.compress(records, is_kept)))


def _read(path: pathlib.Path) -> tuple[list[int], list[int]]:
    """Returns step and end of each record up to the first that is not whole."""
    steps, ends = [], []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            steps.append(_step_of(record))
            ends.append((ends or [0])[-1] + _FRAME_BYTES + len(record))
    except (tf.errors.DataLossError, ValueError):
        pass  # A record that a killed process was writing, or a file of another kind.
    return steps, ends


def _step_of(record: bytes) -> int:
    try:
        return tf.compat.v1.Event.FromString(record).step
    except Exception as error:  # protobuf's own kind of error.
        raise ValueError("not an event") from error


def _truncate(path: pathlib.Path, size: int) -> None:
    with files.explaining(path), path.open("rb+") as file:
        file.truncate(size)
