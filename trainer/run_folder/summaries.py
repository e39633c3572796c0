"""What a run writes to be watched: TensorBoard events and a file of JSON lines.

MODEL_DIR/train and MODEL_DIR/eval hold the events of the two splits, so that
TensorBoard draws both curves of a score in one chart; MODEL_DIR/metrics.jsonl holds the
scalars again, for programs: see `scalars`. MODEL_DIR/hparams holds the line of the
run in TensorBoard's table of runs, MODEL_DIR/watch the events of a process that
evaluates the checkpoints beside the training. Trackers get the scalars, too.
"""

import contextlib
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from trainer.run_folder import boards, event_files, scalars
from trainer.tracking import fan

_SESSION = "hparams"
"""A folder of its own: the table of runs shows all scalars of the folder."""


class SummaryWriter:
    """Writes scalars, text and pictures of a run, from the host.

    A point that cannot be written, on a full disk for instance, is lost with a warning:
    curves are not worth a run.
    """

    def __init__(
        self,
        model_dir: str,
        *,
        is_chief: bool = True,
        keeps_points: bool = True,
        check_lock: Callable[[], None] = lambda: None,
        trackers: fan.Fan | None = None,
    ):
        """Makes a writer; files are opened with the first point.

        Args:
          model_dir: the folder of the run.
          is_chief: whether this process writes; the others only go through the motions.
          keeps_points: whether scalars go to `metrics.jsonl`, too, which only the
            training may write.
          check_lock: called before anything is written; raises an error if the folder
            is no longer this run's.
          trackers: get the scalars, too.
        """
        self._is_chief = is_chief
        self._keeps_points = keeps_points
        self._folder = pathlib.Path(model_dir)
        self._check_lock = check_lock
        self._trackers = trackers
        self._writers = {}
        self._older_files = {}
        self._has_warned = False

    def write_scalars(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Writes one point of each curve.

        Args:
          split: `train`, `eval` or `watch`.
          step: steps done.
          values: the points by tag; those that are not finite (the IoU of an absent
            class) are left out.
        """
        if not self._is_chief:
            return
        self._check_lock()
        values = {tag: v for tag, v in values.items() if math.isfinite(v)}
        with self._losing_points(split), self._writer(split).as_default(step=step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)
        if not self._keeps_points:
            return
        line = json.dumps({"step": step, "split": split, **values})
        with self._losing_points():
            scalars.append(self._folder, line)
        if self._trackers:
            self._trackers.write_scalars(split, step, values)

    def write_histograms(
        self, split: str, step: int, values: Mapping[str, np.ndarray]
    ) -> None:
        """Writes the distribution of the finite numbers in each array, by tag."""
        if not self._is_chief:
            return
        self._check_lock()
        # A device may have no room for them.
        with (
            self._losing_points(split),
            self._writer(split).as_default(step=step),
            tf.device("/CPU:0"),
        ):
            for tag, array in values.items():
                finite = array[np.isfinite(array)]
                if finite.size:
                    tf.summary.histogram(tag, finite)

    def write_layout(self, split: str, step: int) -> None:
        """Writes which curves TensorBoard's custom scalars show, and in which order."""
        self._write_summary(split, step, boards.make_layout())

    def begin_session(self, settings: Mapping[str, bool | float | str]) -> None:
        """Makes the line of the run in the table of runs, in place of an older one.

        Args:
          settings: to compare runs by.
        """
        if self._is_chief:
            self._check_lock()
            with self._losing_points():
                for path in (self._folder / _SESSION).glob(event_files.PATTERN):
                    path.unlink()
        start = boards.make_session_start(settings, str(self._folder))
        self._write_summary(_SESSION, 0, start)

    def end_session(self, status: str, step: int, scores: Mapping[str, float]) -> None:
        """Ends the line of the run in the table of runs.

        Args:
          status: `finished` or `failed`.
          step: steps done.
          scores: the final ones, by tag.
        """
        self._write_summary(_SESSION, step, boards.make_session_end(status))
        if not self._is_chief:
            return
        with self._losing_points(_SESSION), self._writer(_SESSION).as_default(step):
            for tag, value in scores.items():
                tf.summary.scalar(f"final/{tag}", value)

    def _write_summary(self, split: str, step: int, summary: bytes) -> None:
        if not self._is_chief:
            return
        self._check_lock()
        with self._losing_points(split), self._writer(split).as_default(step=step):
            tf.summary.experimental.write_raw_pb(summary)

    def write_text(self, split: str, step: int, tag: str, text: str) -> None:
        """Writes a text in Markdown."""
        if not self._is_chief:
            return
        self._check_lock()
        with self._losing_points(split), self._writer(split).as_default(step=step):
            tf.summary.text(tag, text)

    def write_image(self, split: str, step: int, tag: str, image: np.ndarray) -> None:
        """Writes a picture, uint8 [height, width, 3]."""
        if not self._is_chief:
            return
        self._check_lock()
        with self._losing_points(split), self._writer(split).as_default(step=step):
            tf.summary.image(tag, image[np.newaxis])

    def flush(self) -> None:
        """Hands all points to the operating system; a killed process loses none."""
        if not self._writers:
            return
        # Whoever has taken the folder over writes these points again.
        self._check_lock()
        for split, writer in list(self._writers.items()):
            with self._losing_points(split):
                writer.flush()
                if self._num_bytes(split) >= event_files.MOST_BYTES:
                    writer.close()
                    del self._writers[split]

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    @contextlib.contextmanager
    def _losing_points(self, split: str | None = None) -> Iterator[None]:
        """Turns errors of the files into one warning.

        Args:
          split: whose event file is written, if any.
        """
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
            if split:
                self._give_up_file(split)

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        if split not in self._writers:
            folder = self._folder / split
            self._older_files[split] = set(folder.glob(event_files.PATTERN))
            self._writers[split] = tf.summary.create_file_writer(str(folder))
        return self._writers[split]

    def _own_files(self, split: str) -> set[pathlib.Path]:
        """Returns the files that the open writer has made; it is one."""
        found = set((self._folder / split).glob(event_files.PATTERN))
        return found - self._older_files[split]

    def _num_bytes(self, split: str) -> int:
        return sum(path.stat().st_size for path in self._own_files(split))

    def _give_up_file(self, split: str) -> None:
        """Leaves the event file that failed, cut to whole records, for a new one."""
        writer = self._writers.pop(split, None)
        with contextlib.suppress(OSError, tf.errors.OpError):
            if writer:
                writer.close()
        del writer  # It holds the file open.
        for path in self._own_files(split):
            with contextlib.suppress(OSError):
                event_files.cut_half_record(path)


def drop_points_after(model_dir: str, last_steps: Mapping[str, int]) -> None:
    """Removes the points that a resumed run writes again.

    Args:
      model_dir: the folder of the run, in which no writer is open.
      last_steps: the last step to keep of each split.

    Raises:
      errors.WriteError: if a file cannot be changed.
    """
    folder = pathlib.Path(model_dir)
    scalars.drop_after(folder, last_steps)
    for split, step in last_steps.items():
        for path in sorted((folder / split).glob(event_files.PATTERN)):
            if path.is_file():
                event_files.drop_after(path, step)
