"""Checkpoints: folders that are whole or not there.

    MODEL_DIR/checkpoints/step-00000375/
        state.index, state.data-...   what `tf.train.Checkpoint` wrote
        metadata.json                 step, best score, identity of the run

A checkpoint is written under a temporary name, synced to disk and renamed. One in which
the name of the folder, the metadata and the restored step differ is damaged, as is one
that cannot be read; the next older one then serves.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from trainer import errors, files
from trainer.run_folder import (
    checkpoint_folders,
    criterion,
    identities,
    older_checkpoints,
    saved_weights,
    watched,
)
from trainer.run_folder import model_dir as model_dir_lib

_MAX_FAILED_SAVES = 3
"""So many saves in a row may fail, on a full disk for instance, before a run ends."""


class Checkpointer:
    """Writes and restores the checkpoints of a model dir."""

    def __init__(
        self,
        model_dir: str,
        *,
        state: Mapping[str, Any],
        identity: Mapping[str, Any],
        max_to_keep: int,
        best: criterion.Criterion | None = criterion.MEAN_IOU,
        legacy: Mapping[str, Any] | None = None,
        is_chief: bool = True,
        is_window: Callable[[Any], bool] = lambda window: True,
        check_lock: Callable[[], None] = lambda: None,
        publish: Callable[[], None] = lambda: None,
    ):
        """Makes a checkpointer; touches no file.

        Args:
          model_dir: the folder of the run.
          state: what a checkpoint holds, by name: objects that `tf.train.Checkpoint`
            tracks, their variables all built, `global_step` among them. None of them
            may hold a variable that is summed when it is read: only the chief saves.
          identity: values, as JSON gives them back, in which a checkpoint must agree
            with this run to be restored.
          legacy: what a checkpoint counts as that knows nothing of a value.
          max_to_keep: newest checkpoints to keep, besides the best one, and the one
            that another process reads; see `watched`.
          best: by which score that is chosen; None: what was chosen before stays.
          is_chief: whether this process writes.
          is_window: whether metadata hold a window that the run can go on with.
          check_lock: called before anything is written; raises an error if the folder
            is no longer this run's.
          publish: called, by the one that writes, after each save and each score that
            is noted.

        Attributes:
          saved: what the newest checkpoint says of itself.
          best_score: of all evaluations, of a step that was saved or not; None: none.
          evaluations_since_best: how many there have been since, the same on all
            workers.
        """
        self._folder = pathlib.Path(model_dir) / "checkpoints"
        self._holds = watched.Holds(model_dir)
        self._state = dict(state)
        self._checkpoint = tf.train.Checkpoint(**state)
        self._global_step = state["global_step"]
        self._max_to_keep = max_to_keep
        self._legacy = legacy or {}
        self._is_chief = is_chief
        self._is_window = is_window
        self._check_lock = check_lock
        self._publish = publish
        self._failed_saves, self.is_saving = 0, False
        self._is_scored, self._criterion = best is not None, best or criterion.MEAN_IOU
        self.best_score: float | None = None
        self.evaluations_since_best = 0
        metric, _, subject = self._criterion
        self.saved = checkpoint_folders.Metadata(
            0, dict(identity), best_metric=metric, best_subject=subject
        )
        self.is_noted = True  # Whether the newest checkpoint knows its evaluation.

    @property
    def model_dir(self) -> pathlib.Path:
        """The folder of the run."""
        return self._folder.parent

    @property
    def has_unsaved_work(self) -> bool:
        """Whether a process that ended now would lose a step, or half a save."""
        return self.is_saving or int(self._global_step.numpy()) > self.saved.step

    def save(self, window: Mapping[str, Any] | None = None) -> None:
        """Writes the present state, then removes what is no longer to be kept.

        A save that fails leaves the older checkpoints as they are.

        Args:
          window: goes into the metadata.

        Raises:
          errors.CheckpointError: after several failures in a row.
          errors.LockLostError: if another run has taken the folder over.
        """
        self._check_lock()
        metadata = dataclasses.replace(
            self.saved,
            step=int(self._global_step.numpy()),
            is_evaluated=False,
            window=window,
            **self._tally(),
        )
        with self._saving():
            try:
                if self._is_chief:
                    self._write(metadata)
                self._failed_saves = 0
                self.saved, self.is_noted = metadata, True
            except (OSError, tf.errors.OpError) as error:
                self._on_failure(f"The checkpoint of step {metadata.step}", error)
            if self._is_chief:
                self.prune()
                self._publish()

    def mark_evaluated(self, step: int, score: float) -> bool:
        """Notes in the newest checkpoint that its evaluation is made and written.

        Where the save of this step failed, nothing is noted: there is no checkpoint to
        call the best, and a resumed run comes by here again. Where the note itself
        fails, the next save makes up for it; after the last one, the run is not done.

        Args:
          step: that was evaluated.
          score: of the model at this step; NaN is never the best.

        Returns:
          Whether the score is the best so far.

        Raises:
          errors.CheckpointError: after several failures in a row.
          errors.LockLostError: if another run has taken the folder over.
        """
        self._check_lock()
        is_better = self._criterion.is_better(score, self.best_score)
        # Counted also where the save failed, which only the chief knows of: all workers
        # must come to the same number.
        self.evaluations_since_best += 1
        if is_better:
            self.best_score, self.evaluations_since_best = score, 0
        if self.saved.step != step:
            return False
        is_best = self._criterion.is_better(score, self.saved.best_score)
        if is_best:
            self.saved.best_step, self.saved.best_score = self.saved.step, score
        tally = self._tally()
        self.saved = dataclasses.replace(self.saved, is_evaluated=True, **tally)
        folder = checkpoint_folders.path_of(self._folder, self.saved.step)
        if self._is_chief and folder.is_dir():
            try:
                checkpoint_folders.write_metadata(folder, self.saved)
                self._failed_saves, self.is_noted = 0, True
            except OSError as error:
                self.is_noted = False
                self._on_failure(f"The score of step {step}", error)
            with self._saving():
                self._publish()
        return is_best

    def _tally(self) -> dict[str, Any]:
        """Returns what metadata say of all evaluations, where a save failed, too.

        So a killed run stops early where one does that is not killed.
        """
        is_of_saved = self.best_score == self.saved.best_score
        return {
            "best_seen": None if is_of_saved else self.best_score,
            "evaluations_since_best": self.evaluations_since_best,
        }

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Lets a stop wait for what is saved inside."""
        self.is_saving = True
        try:
            yield
        finally:
            self.is_saving = False

    def restore(self) -> bool:
        """Restores the newest checkpoint that can be read.

        What a killed save left is removed; a damaged checkpoint is renamed, to be out
        of the way of the run's own saves.

        Returns:
          Whether there was one; False means a fresh start.

        Raises:
          errors.CheckpointError: if the checkpoint is of another run, or if there
            are checkpoints and none can be read.
          errors.LockLostError: if another run has taken the folder over.
        """
        if self._is_chief:
            self._check_lock()  # The start of a large run takes minutes.
            checkpoint_folders.remove_partial(self._folder)
        paths = checkpoint_folders.list_checkpoints(self._folder)
        damaged = []
        for path in reversed(paths):
            try:
                metadata = checkpoint_folders.read_metadata(path)
                self._check_identity(metadata)
                self._read(path, metadata)
            except errors.CheckpointError:
                raise
            except Exception as error:  # Damage shows as many kinds of error.
                logging.warning("Skipping %s: it cannot be read (%s).", path, error)
                damaged.append(path)
                continue
            self._take(metadata)
            for bad in damaged if self._is_chief else ():
                files.set_aside(bad)
            logging.info("Restored %s.", path)
            return True
        if paths:
            raise errors.CheckpointError(
                f"{self._folder} holds {len(paths)} checkpoints, but none can be read; "
                "the run does not start over by itself. Move the folder away to do so."
            )
        if self._is_chief:
            watched.forget(self.model_dir)  # Of a run that was here before.
        return False

    def _take(self, metadata: checkpoint_folders.Metadata) -> None:
        """Goes on from what a checkpoint says of itself."""
        metric, subject = metadata.best_metric, metadata.best_subject
        if self._is_scored:
            metadata.best_metric = self._criterion.metric
            metadata.best_subject = self._criterion.subject
            if change := self._criterion.explain_change(metric, subject):
                if metadata.best_step is not None:
                    logging.info("%s", change)
                # The best one so far stays that, and is kept, until there is another
                # one: a run that is done makes no evaluation any more.
                metadata.best_score, metadata.best_seen = None, None
                metadata.evaluations_since_best = 0
        self.saved, self.best_score = metadata, metadata.best_seen
        if self.best_score is None:
            self.best_score = metadata.best_score
        self.evaluations_since_best = metadata.evaluations_since_best

    def _read(self, path: pathlib.Path, metadata: checkpoint_folders.Metadata) -> None:
        """Restores all variables.

        Raises:
          ValueError: if metadata and variables do not belong together.
        """
        if metadata.window is not None and not self._is_window(metadata.window):
            raise ValueError("metadata.json: window is not one of this run")
        with model_dir_lib.readable_by_tensorflow(path) as readable:
            prefix = str(readable / "state")
            checkpoint = self._checkpoint
            if stand_ins := older_checkpoints.find_stand_ins(prefix, self._state):
                checkpoint = tf.train.Checkpoint(**{**self._state, **stand_ins})
            checkpoint.read(prefix).assert_consumed()
        saved_weights.check_step(metadata.step, self._global_step)

    def _write(self, metadata: checkpoint_folders.Metadata) -> None:
        final = checkpoint_folders.path_of(self._folder, metadata.step)
        if checkpoint_folders.is_checkpoint(final):
            return  # This very state; what is damaged was set aside before.
        if os.path.lexists(final):
            files.set_aside(final)
        partial = checkpoint_folders.partial_of(final)
        files.remove(partial)
        try:
            partial.mkdir(parents=True)
            self._checkpoint.write(str(partial / "state"))
            checkpoint_folders.write_metadata(partial, metadata)
            # Without a sync, a power cut can leave renamed but empty files.
            for path in [*partial.iterdir(), partial]:
                files.sync(path)
            self._check_lock()  # To write a large checkpoint may take minutes.
            partial.rename(final)
        except Exception:
            files.remove(partial)  # It may hold the last free space.
            raise
        files.sync(self._folder)

    def _on_failure(self, what: str, error: Exception) -> None:
        self._failed_saves += 1
        message = f"{what} could not be written ({error})"
        if self._failed_saves >= _MAX_FAILED_SAVES:
            raise errors.CheckpointError(
                f"{message}, nor could the {self._failed_saves - 1} before it; make "
                f"room in {self._folder} and start again from step {self.saved.step}."
            ) from error
        kept = self.saved.step
        logging.warning("%s; the checkpoint of step %d is kept.", message, kept)

    def _check_identity(self, metadata: checkpoint_folders.Metadata) -> None:
        identity = {**self._legacy, **metadata.identity}
        if message := identities.refuse(
            str(self.model_dir), identity, self.saved.identity
        ):
            raise errors.CheckpointError(message)

    def prune(self) -> None:
        """Removes what is no longer to be kept.

        A save does so. The last save of a run may have been killed before.
        """
        paths = checkpoint_folders.list_checkpoints(self._folder)
        for path in paths[: -self._max_to_keep]:
            kept = self._holds.steps(self.saved.best_step)
            if checkpoint_folders.step_of(path) not in kept:
                files.remove(path)
