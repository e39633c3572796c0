"""What a run writes to be watched: TensorBoard events and a file of JSON lines.

MODEL_DIR/train and MODEL_DIR/eval hold the events of the two splits, so that
TensorBoard draws both curves of a score in one chart; MODEL_DIR/metrics.jsonl holds
the scalars again, one line for each point, for programs.
"""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from absl import logging


class SummaryWriter:
    """Writes scalars, text and pictures of a run, from the host.

    A point that cannot be written, on a full disk for instance, is lost with a warning:
    curves are not worth a run.
    """

    def __init__(self, model_dir: str, *, is_chief: bool = True):
        """Makes a writer; files are opened with the first point.

        Args:
          model_dir: the folder of the run.
          is_chief: whether this process writes; the others only go through the motions.
        """
        self._is_chief = is_chief
        self._folder = pathlib.Path(model_dir)
        self._writers = {}
        self._has_warned = False

    def write_scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Writes one point of each curve.

        Args:
          split: `train` or `eval`.
          step: steps done.
          values: the points by tag; those that are not finite (the IoU of an absent
            class) are left out.
        """
        if not self._is_chief:
            return
        values = {tag: v for tag, v in values.items() if math.isfinite(v)}
        with self._losing_points(), self._writer(split).as_default(step=step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)
        line = json.dumps({"step": step, "split": split, **values}) + "\n"
        with self._losing_points(), (self._folder / "metrics.jsonl").open("a") as file:
            file.write(line)

    def write_text(self, split: str, step: int, tag: str, text: str) -> None:
        """Writes a text in Markdown."""
        if not self._is_chief:
            return
        with self._losing_points(), self._writer(split).as_default(step=step):
            tf.summary.text(tag, text)

    def write_image(self, split: str, step: int, tag: str, image: np.ndarray) -> None:
        """Writes a picture, uint8 [height, width, 3]."""
        if not self._is_chief:
            return
        with self._losing_points(), self._writer(split).as_default(step=step):
            tf.summary.image(tag, image[np.newaxis])

    def flush(self) -> None:
        """Hands all points to the operating system; a killed process loses none."""
        for writer in self._writers.values():
            with self._losing_points():
                writer.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        for writer in self._writers.values():
            with self._losing_points():
                writer.close()
        self._writers = {}

    @contextlib.contextmanager
    def _losing_points(self) -> Iterator[None]:
        """Turns errors of the files into one warning."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            if not self._has_warned:
                logging.warning(
                    "Points of the curves in %s cannot be written and are lost; "
                    "training goes on (%s).",
                    self._folder,
                    error,
                )
            self._has_warned = True

    def _writer(self, split: str):
        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(
                str(self._folder / split)
            )
        return self._writers[split]


def drop_points_after(model_dir: str, last_steps: Mapping[str, int]) -> None:
    """Removes the points that a resumed run writes again.

    Args:
      model_dir: the folder of the run, in which no writer is open.
      last_steps: the last step to keep of each split.
    """
    folder = pathlib.Path(model_dir)
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        lines = metrics.read_text().splitlines(keepends=True)
        # Of a killed process's last line, the end alone may be missing.
        kept = [
            line.rstrip("\n") + "\n" for line in lines if _is_kept(line, last_steps)
        ]
        if kept != lines:
            _replace(metrics, lambda path: path.write_text("".join(kept)))
    for split, step in last_steps.items():
        for file in sorted((folder / split).glob("events.out.tfevents.*")):
            _drop_events(file, step)


def read_last_point(model_dir: str, split: str) -> dict[str, float] | None:
    """Reads the newest point of `metrics.jsonl`, None if there is none."""
    metrics = pathlib.Path(model_dir) / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    points = [json.loads(line) for line in lines if _is_kept(line, {})]
    return next((p for p in reversed(points) if p["split"] == split), None)


def _is_kept(line: str, last_steps: Mapping[str, int]) -> bool:
    try:
        point = json.loads(line)
    except ValueError:  # The end of a line that a killed process was writing.
        return False
    return point["step"] <= last_steps.get(point["split"], math.inf)


def _drop_events(file: pathlib.Path, step: int) -> None:
    records, is_damaged = [], False
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            records.append(record)
    except tf.errors.DataLossError:  # A record that a killed process was writing.
        is_damaged = True
    kept = [r for r in records if tf.compat.v1.Event.FromString(r).step <= step]
    if len(kept) == len(records) and not is_damaged:
        return

    def write(path: pathlib.Path) -> None:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in kept:
                writer.write(record)

    _replace(file, write)


def _replace(file: pathlib.Path, write) -> None:
    """Writes a new version beside `file` and renames it, so that neither is lost."""
    # A name that TensorBoard does not take for an event file.
    partial = file.with_name(f"partial-{file.name.replace('tfevents', 'events')}")
    write(partial)
    partial.replace(file)
