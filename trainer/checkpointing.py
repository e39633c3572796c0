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


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a checkpoint says of itself.

    Attributes:
      step: steps done.
      best_step: the step with the best score so far, None before the first score.
      best_score: that score; higher is better.
      identity: what a run must agree in to go on from here.
    """

    step: int
    best_step: int | None
    best_score: float | None
    identity: Mapping[str, Any]


class Checkpointer:
    """Writes and restores the checkpoints of a model dir."""

    def __init__(
        self,
        model_dir: str,
        *,
        state: Mapping[str, Any],
        identity: Mapping[str, Any],
        max_to_keep: int,
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
          max_to_keep: newest checkpoints to keep, besides the best one.
          is_chief: whether this process writes.
        """
        self._folder = pathlib.Path(model_dir) / "checkpoints"
        self._checkpoint = tf.train.Checkpoint(**state)
        self._global_step = state["global_step"]
        self._identity = dict(identity)
        self._max_to_keep = max_to_keep
        self._is_chief = is_chief
        self.best_step: int | None = None
        self.best_score: float | None = None

    def report_score(self, score: float) -> bool:
        """Notes the score of the present step; tells whether it is the best so far."""
        is_best = self.best_score is None or score > self.best_score
        if is_best:
            self.best_step, self.best_score = int(self._global_step.numpy()), score
        return is_best

    def save(self) -> None:
        """Writes the present state, then removes what is no longer to be kept."""
        if not self._is_chief:
            return
        step = int(self._global_step.numpy())
        metadata = Metadata(step, self.best_step, self.best_score, self._identity)
        final = _path_of(self._folder, step)
        if final.exists():
            return
        partial = final.with_name(final.name + _PARTIAL_SUFFIX)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._checkpoint.write(str(partial / "state"))
        (partial / "metadata.json").write_text(
            json.dumps(dataclasses.asdict(metadata), indent=2)
        )
        # Without a sync, a power cut can leave renamed but empty files.
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        partial.rename(final)
        _sync(self._folder)
        self._prune()

    def restore(self) -> bool:
        """Restores the newest checkpoint that can be read.

        Returns:
          Whether there was one; False means a fresh start.

        Raises:
          errors.CheckpointError: if the checkpoint is of another run, or if there
            are checkpoints and none can be read.
        """
        paths = list_checkpoints(self._folder)
        for path in reversed(paths):
            try:
                metadata = read_metadata(path)
                self._check_identity(metadata)
                self._checkpoint.read(str(path / "state")).assert_consumed()
            except errors.CheckpointError:
                raise
            except Exception as error:  # Damage shows as many kinds of error.
                logging.warning("Skipping %s: it cannot be read (%s).", path, error)
                continue
            self.best_step, self.best_score = metadata.best_step, metadata.best_score
            logging.info("Restored %s.", path)
            return True
        if paths:
            raise errors.CheckpointError(
                f"{self._folder} holds {len(paths)} checkpoints, but none can be read; "
                "the run does not start over by itself. Move the folder away to do so."
            )
        return False

    def _check_identity(self, metadata: Metadata) -> None:
        differences = [
            f"{name} was {metadata.identity.get(name)!r} and is {value!r}"
            for name, value in self._identity.items()
            if metadata.identity.get(name) != value
        ]
        if differences:
            raise errors.CheckpointError(
                f"{self._folder.parent} holds a run with other settings: "
                f"{'; '.join(differences)}. Use another --model_dir, or the settings "
                "of that run."
            )

    def _prune(self) -> None:
        for path in list_checkpoints(self._folder)[: -self._max_to_keep]:
            if _step_of(path) != self.best_step:
                shutil.rmtree(path)


def restore_model(model: tf.Module, model_dir: str, which: str) -> int:
    """Restores the weights alone, for evaluation.

    Args:
      model: the built model.
      model_dir: the folder of the run.
      which: `last`, `best`, or the path of a checkpoint folder.

    Returns:
      The step of the checkpoint.

    Raises:
      errors.CheckpointError: if it is not there or does not fit the model.
    """
    path = _find(pathlib.Path(model_dir) / "checkpoints", which)
    try:
        step = read_metadata(path).step
        status = tf.train.Checkpoint(model=model).read(str(path / "state"))
        status.expect_partial().assert_existing_objects_matched()
    except Exception as error:  # Damage shows as many kinds of error.
        raise errors.CheckpointError(
            f"{path} cannot be restored into this model ({error}); were encoder, "
            "decoder, image size or classes other ones in training? "
            f"{model_dir}/config.flags holds that run's flags."
        ) from error
    logging.info("Restored the weights of %s.", path)
    return step


def _find(folder: pathlib.Path, which: str) -> pathlib.Path:
    if which not in ("last", "best"):
        return pathlib.Path(which)
    paths = list_checkpoints(folder)
    if not paths:
        raise errors.CheckpointError(
            f"{folder} holds no checkpoint; train with this --model_dir first, or name "
            "a checkpoint with --checkpoint."
        )
    best_step = read_metadata(paths[-1]).best_step
    if which == "best" and best_step is not None:
        return _path_of(folder, best_step)
    return paths[-1]


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


def _step_of(path: pathlib.Path) -> int:
    return int(_FOLDER.fullmatch(path.name).group(1))


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
