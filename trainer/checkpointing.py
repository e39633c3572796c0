"""Checkpoints: folders that are whole or not there.

    MODEL_DIR/checkpoints/step-00000375/
        state.index, state.data-...   what `tf.train.Checkpoint` wrote
        metadata.json                 step, best score, identity of the run

A checkpoint is written under a temporary name, synced to disk and renamed.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from trainer import errors

_FOLDER = re.compile(r"step-(\d{8,})")
_PARTIAL_SUFFIX = ".partial"
_DAMAGED_SUFFIX = ".damaged"
_MAX_FAILED_SAVES = 3
"""So many saves in a row may fail, on a full disk for instance, before a run ends."""


@dataclasses.dataclass
class Metadata:
    """What a checkpoint says of itself.

    Attributes:
      step: steps done.
      identity: what a run must agree in to go on from here.
      is_evaluated: whether the evaluation that is due at this step, if one is, has been
        made and written. The save comes before it.
      best_step: the step with the best score so far, None before the first score.
      best_score: that score; higher is better.
      window: sums since the last report, as `trainer.loop` keeps them.
    """

    step: int
    identity: Mapping[str, Any]
    is_evaluated: bool = False
    best_step: int | None = None
    best_score: float | None = None
    window: Mapping[str, Any] | None = None


class Checkpointer:
    """Writes and restores the checkpoints of a model dir."""

    def __init__(
        self,
        model_dir: str,
        *,
        state: Mapping[str, Any],
        identity: Mapping[str, Any],
        max_to_keep: int,
        legacy: Mapping[str, Any] | None = None,
        is_chief: bool = True,
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
          max_to_keep: newest checkpoints to keep, besides the best one.
          is_chief: whether this process writes.
        """
        self._folder = pathlib.Path(model_dir) / "checkpoints"
        self._checkpoint = tf.train.Checkpoint(**state)
        self._global_step = state["global_step"]
        self._max_to_keep = max_to_keep
        self._legacy = legacy or {}
        self._is_chief = is_chief
        self._failed_saves = 0
        self.saved = Metadata(step=0, identity=dict(identity))
        self.is_saving = False

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
        """
        metadata = dataclasses.replace(
            self.saved,
            step=int(self._global_step.numpy()),
            is_evaluated=False,
            window=window,
        )
        self.is_saving = True
        try:
            if self._is_chief:
                self._write(metadata)
            self._failed_saves = 0
            self.saved = metadata
        except (OSError, tf.errors.OpError) as error:
            self._on_failed_save(metadata.step, error)
        finally:
            self.is_saving = False
        if self._is_chief:
            self._prune()

    def mark_evaluated(self, step: int, score: float) -> bool:
        """Notes in the newest checkpoint that its evaluation is made and written.

        Where the save of this step failed, nothing is noted: there is no checkpoint to
        call the best, and a resumed run comes by here again.

        Args:
          step: that was evaluated.
          score: of the model at this step; higher is better.

        Returns:
          Whether the score is the best so far.
        """
        if self.saved.step != step:
            return False
        best = self.saved.best_score
        is_best = best is None or score > best
        self.saved.is_evaluated = True
        if is_best:
            self.saved.best_step, self.saved.best_score = self.saved.step, score
        folder = _path_of(self._folder, self.saved.step)
        if self._is_chief and folder.is_dir():
            _write_metadata(folder, self.saved)
        return is_best

    def restore(self) -> bool:
        """Restores the newest checkpoint that can be read.

        What a killed save left is removed; a damaged checkpoint is renamed, to be out
        of the way of the run's own saves.

        Returns:
          Whether there was one; False means a fresh start.

        Raises:
          errors.CheckpointError: if the checkpoint is of another run, or if there
            are checkpoints and none can be read.
        """
        if self._is_chief:
            for path in self._folder.glob(f"step-*{_PARTIAL_SUFFIX}"):
                shutil.rmtree(path, ignore_errors=True)
        paths = list_checkpoints(self._folder)
        damaged = []
        for path in reversed(paths):
            try:
                metadata = read_metadata(path)
                self._check_identity(metadata)
                self._checkpoint.read(str(path / "state")).assert_consumed()
            except errors.CheckpointError:
                raise
            except Exception as error:  # Damage shows as many kinds of error.
                logging.warning("Skipping %s: it cannot be read (%s).", path, error)
                damaged.append(path)
                continue
            self.saved = metadata
            for bad in damaged if self._is_chief else ():
                _set_aside(bad)
            logging.info("Restored %s.", path)
            return True
        if paths:
            raise errors.CheckpointError(
                f"{self._folder} holds {len(paths)} checkpoints, but none can be read; "
                "the run does not start over by itself. Move the folder away to do so."
            )
        return False

    def _write(self, metadata: Metadata) -> None:
        final = _path_of(self._folder, metadata.step)
        if final.exists():  # This very state; what is damaged was set aside before.
            return
        partial = final.with_name(final.name + _PARTIAL_SUFFIX)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._checkpoint.write(str(partial / "state"))
        _write_metadata(partial, metadata)
        # Without a sync, a power cut can leave renamed but empty files.
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        partial.rename(final)
        _sync(self._folder)

    def _on_failed_save(self, step: int, error: Exception) -> None:
        self._failed_saves += 1
        partial = f"{_path_of(self._folder, step)}{_PARTIAL_SUFFIX}"
        shutil.rmtree(partial, ignore_errors=True)  # It may hold the last free space.
        message = f"The checkpoint of step {step} could not be written ({error})"
        if self._failed_saves >= _MAX_FAILED_SAVES:
            raise errors.CheckpointError(
                f"{message}, nor could the {self._failed_saves - 1} before it; make "
                f"room in {self._folder} and start again from step {self.saved.step}."
            ) from error
        logging.warning("%s; the one of step %d is kept.", message, self.saved.step)

    def _check_identity(self, metadata: Metadata) -> None:
        identity = {**self._legacy, **metadata.identity}
        differences = [
            f"{name} was {identity.get(name)!r} and is {value!r}"
            for name, value in self.saved.identity.items()
            if identity.get(name) != value
        ]
        if differences:
            raise errors.CheckpointError(
                f"{self._folder.parent} holds a run with other settings: "
                f"{'; '.join(differences)}. Use another --model_dir, or the settings "
                "of that run."
            )

    def _prune(self) -> None:
        for path in list_checkpoints(self._folder)[: -self._max_to_keep]:
            if _step_of(path) != self.saved.best_step:
                shutil.rmtree(path)


def has_any(model_dir: str) -> bool:
    """Tells whether a run has saved before, so that a training goes on from there."""
    return bool(list_checkpoints(pathlib.Path(model_dir) / "checkpoints"))


def find(model_dir: str, which: str) -> pathlib.Path:
    """Finds a checkpoint of a run.

    Args:
      model_dir: the folder of the run.
      which: `last`, `best`, the name of a checkpoint, or the path of its folder.

    Raises:
      errors.CheckpointError: if it is not there.
    """
    folder = pathlib.Path(model_dir) / "checkpoints"
    if which not in ("last", "best"):
        return _find_named(folder, which)
    paths = list_checkpoints(folder)
    if not paths:
        raise errors.CheckpointError(
            f"{folder} holds no checkpoint; train with this --model_dir first, or name "
            "a checkpoint with --checkpoint."
        )
    best_step = read_metadata(paths[-1]).best_step
    is_best = which == "best" and best_step is not None
    return _path_of(folder, best_step) if is_best else paths[-1]


def _find_named(folder: pathlib.Path, which: str) -> pathlib.Path:
    """Returns the checkpoint of a name or path."""
    path = folder / which  # An absolute path stays what it is.
    if not path.is_dir():
        path = pathlib.Path(which)
    if (path / "metadata.json").is_file():
        return path
    names = [path.name for path in list_checkpoints(folder)]
    reason = "there is no such folder"
    if (path / "checkpoints").is_dir():
        reason = "this is the folder of a run, which --model_dir names"
    elif path.is_dir():
        reason = "this folder is no checkpoint"
    raise errors.CheckpointError(
        f"--checkpoint={which}: {reason}; say last, best, or one of "
        f"{', '.join(names) or 'none that there were'} in {folder}."
    )


def restore_model(model: tf.Module, ema: tf.Module | None, path: pathlib.Path) -> int:
    """Restores the weights alone, for evaluation.

    Args:
      model: the built model.
      ema: moving averages to restore as well, or None.
      path: of the checkpoint.

    Returns:
      The step of the checkpoint.

    Raises:
      errors.CheckpointError: if it cannot be read or does not fit the model.
    """
    try:
        step = read_metadata(path).step
        state = {"model": model, "ema": ema} if ema else {"model": model}
        status = tf.train.Checkpoint(**state).read(str(path / "state"))
        status.expect_partial().assert_existing_objects_matched()
    except Exception as error:  # Damage shows as many kinds of error.
        raise errors.CheckpointError(
            f"{path} cannot be restored ({error}); name another one with --checkpoint."
        ) from error
    logging.info("Restored the weights of %s.", path)
    return step


def list_checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the finished checkpoints of a folder, oldest first."""
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)]
    return sorted(paths, key=_step_of)


def read_metadata(path: pathlib.Path) -> Metadata:
    """Reads what a checkpoint says of itself."""
    return Metadata(**json.loads((path / "metadata.json").read_text()))


def _path_of(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"step-{step:08d}"


def _write_metadata(folder: pathlib.Path, metadata: Metadata) -> None:
    partial = folder / f"metadata.json{_PARTIAL_SUFFIX}"
    partial.write_text(json.dumps(dataclasses.asdict(metadata), indent=2))
    _sync(partial)
    partial.replace(folder / "metadata.json")


def _set_aside(path: pathlib.Path) -> None:
    """Renames a damaged checkpoint, which may still hold something for somebody."""
    number = 1
    while (aside := path.with_name(f"{path.name}{_DAMAGED_SUFFIX}-{number}")).exists():
        number += 1
    path.rename(aside)


def _step_of(path: pathlib.Path) -> int:
    return int(_FOLDER.fullmatch(path.name).group(1))


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
