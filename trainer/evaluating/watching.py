"""`--mode=evaluate --watch`: scores the checkpoints of a training beside it.

Each one once and in order, until the training has ended or gives no heartbeat. The
model is built once; each checkpoint gives it other weights. Order, an invariant:

    hold the checkpoint -> weights -> scores -> TensorBoard -> evaluations.jsonl
    -> choose the best one and let go.

A signal ends the process at once, but not while it writes.
"""

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NoReturn

from absl import logging

from trainer import errors
from trainer.assembly import devices, evaluation, restoring
from trainer.drawing import pictures
from trainer.evaluating import scoring
from trainer.run_folder import (
    checkpoint_folders,
    evaluations,
    run_lock,
    saved_weights,
    summaries,
    waiting,
    watched,
)
from trainer.running import signals, stall
from trainer.settings import config as config_lib
from trainer.settings import layers


def run(config: config_lib.Config) -> None:
    """Scores all checkpoints, those that are there and those that come.

    Raises:
      errors.ConfigError: if another process does so already.
      errors.RunError: if there is no checkpoint, or what is written cannot be.
      schema.DataError: if examples cannot be used.
    """
    model_dir = config.run.model_dir
    with run_lock.holding(
        model_dir, is_chief=True, file_name=run_lock.WATCH_FILE_NAME
    ) as lock:
        writing = _Writing(lock)
        with signals.listening(writing.exit):
            _watch(config, lock, writing)


def _watch(
    config: config_lib.Config, lock: run_lock.RunLock, writing: "_Writing"
) -> None:
    """Makes what scores models, and scores them."""
    model_dir, timeout_secs = config.run.model_dir, config.runtime.stall_timeout
    training = _Training(model_dir)
    with stall.watching(timeout_secs, lambda: training.num_looks, devices=["none yet"]):
        training.wait_for_first()
    saved = restoring.find_run(model_dir)
    with writing.protected():
        watched.hold(model_dir, checkpoint_folders.step_of(saved.paths[0]))
    for remark in layers.check_trained_with(config, saved.identity, model_dir):
        logging.warning("%s", remark)
    strategy = devices.prepare_devices(config, trains=False)
    setup, _ = evaluation.prepare_evaluation(config, strategy, saved)
    writer = summaries.SummaryWriter(
        model_dir, keeps_points=False, check_lock=lock.check
    )
    watcher = _Watcher(config, setup, writer, writing)
    with stall.watching(
        timeout_secs,
        lambda: (training.num_looks, setup.eval_loop.num_calls),
        devices=strategy.extended.worker_devices,
    ):
        watcher.run(training)
    writer.close()


class _Writing:
    """What no signal interrupts."""

    def __init__(self, lock: run_lock.RunLock):
        self._lock = lock
        self._busy = threading.Lock()

    @contextlib.contextmanager
    def protected(self) -> Iterator[None]:
        """Lets a signal wait until what is begun here is written."""
        with self._busy:
            self._lock.check()
            yield

    def exit(self, name: str) -> NoReturn:
        """Ends the process, from the thread that hears signals."""
        with self._busy:
            self._lock.release()
            logging.info("%s: exiting; what was evaluated is noted.", name)
            logging.flush()
            os._exit(errors.Stopped.exit_code)


class _Training:
    """The training that is watched, as its folder shows it.

    Attributes:
      num_looks: grows while this is waited for, to be watched.
    """

    def __init__(self, model_dir: str):
        self._model_dir = model_dir
        self._pulse = run_lock.Pulse(model_dir)
        self.num_looks = 0

    def look(self) -> bool:
        """Tells whether it lives."""
        self.num_looks += 1
        return self._pulse.is_alive()

    def checkpoints(self) -> list[pathlib.Path]:
        """Lists its checkpoints, the oldest first."""
        folder = pathlib.Path(self._model_dir) / "checkpoints"
        return checkpoint_folders.list_checkpoints(folder)

    def wait_for_first(self) -> None:
        """Waits until there is a checkpoint.

        Raises:
          errors.CheckpointError: if none has come, and nobody trains.
        """
        waiting.wait(
            self._model_dir,
            "checkpoint",
            lambda: bool(self.checkpoints()),
            on_look=self.look,
        )  # Without one, what needs it says so.

    def describe_end(self) -> str:
        """Says how it ended, once it does not live any more."""
        if self._pulse.holder:
            return f"no longer gives a heartbeat ({self._pulse.holder})"
        return "has ended"


class _Watcher:
    """Scores one checkpoint after the other, with one model."""

    def __init__(
        self,
        config: config_lib.Config,
        setup: evaluation.EvalSetup,
        writer: summaries.SummaryWriter,
        writing: _Writing,
    ):
        """Makes a watcher.

        Args:
          config: all settings.
          setup: scores its model.
          writer: of curves.
          writing: protects what is written.

        Raises:
          errors.ConfigError: if `--best_metric` is no score of the evaluation.
        """
        self._config = config
        self._model_dir = config.run.model_dir
        self._num_pictures = config.train.summary_images
        self._setup = setup
        self._writer = writer
        self._writing = writing
        self._scored = scoring.describe(
            config,
            setup,
            precision=setup.model.dtype_policy.name,
            uses_averages=setup.ema is not None,
        )
        self._criterion = scoring.find_criterion(
            config.evaluation.best_metric, setup.eval_loop
        )
        self._seen: set[tuple[str, int]] = set()
        self._scores: dict[pathlib.Path, float] = {}
        self._num_evaluated = 0

    def run(self, training: _Training) -> None:
        """Scores checkpoints until the training is over and all are scored."""
        for path in training.checkpoints():
            with contextlib.suppress(OSError, ValueError):
                origin = checkpoint_folders.read_origin(path)
                self._recall(path, evaluations.describe(origin))
        self._publish()
        while True:
            # Before the list: the last save comes before the end.
            is_alive = training.look()
            path = next((p for p in training.checkpoints() if self._see(p)), None)
            if path:
                self._take(path)
            elif is_alive:
                time.sleep(waiting.POLL_SECS)
            else:
                break
        self._publish()
        print(
            f"The training in {self._model_dir} {training.describe_end()}. "
            f"Checkpoints evaluated: {self._num_evaluated}{self._describe_best()}.",
            flush=True,
        )

    def _see(self, path: pathlib.Path) -> bool:
        """Notes that a checkpoint was looked at, and tells whether it is new."""
        key = path.name, 0
        with contextlib.suppress(OSError):
            # A run that began anew has other checkpoints by the same names.
            key = path.name, (path / "state.index").stat().st_mtime_ns
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new

    def _recall(self, path: pathlib.Path, subject: evaluations.Subject) -> bool:
        """Takes over the score of a checkpoint, if it was noted before."""
        names = self._setup.eval_loop.result().keys()
        scores = evaluations.find(self._model_dir, subject, self._scored, names)
        if scores is None:
            return False
        self._see(path)
        self._scores[path] = scores[self._criterion.metric]
        return True

    def _take(self, path: pathlib.Path) -> None:
        """Scores a checkpoint, and writes its scores."""
        with self._writing.protected():
            watched.hold(self._model_dir, checkpoint_folders.step_of(path))
        subject = self._load(path)
        if not subject:
            return
        setup = self._setup
        outcome = scoring.score_all(setup)
        shown = {}
        if self._num_pictures:
            shown["photo_truth_prediction"] = scoring.draw_examples(
                setup, self._num_pictures
            )
            names = setup.confusion.class_names
            shown["confusion"] = pictures.draw_confusion(outcome.confusion, names)
        scores = outcome.scores
        with self._writing.protected():
            self._writer.write_scalars("watch", subject.step, scores)
            for tag, image in shown.items():
                self._writer.write_image("watch", subject.step, tag, image)
            self._writer.flush()
            scoring.record(self._config, setup, subject, self._scored, outcome)
            self._scores[path] = scores[self._criterion.metric]
            self._num_evaluated += 1
            self._choose_best()
        self._say(path, scores)

    def _load(self, path: pathlib.Path) -> evaluations.Subject | None:
        """Gives the model the weights of a checkpoint that is to be scored.

        Returns:
          The checkpoint; None if it has been scored before, is damaged, or was removed
          by the training.
        """
        setup = self._setup
        try:
            subject = evaluations.describe(checkpoint_folders.read_origin(path))
            if self._recall(path, subject):
                return None
            with setup.strategy.scope():
                saved_weights.restore_model(setup.model, setup.ema, [path])
        except (OSError, ValueError, errors.CheckpointError) as error:
            reason = f"it cannot be read ({error})"
            if not path.is_dir():
                reason = "the training has removed it; a larger --max_to_keep keeps it"
            logging.warning("%s is left out: %s.", path, reason)
            return None
        return subject

    def _best(self) -> tuple[pathlib.Path, float] | None:
        """Returns the best of the checkpoints that are there, and its score."""
        best = None
        for path in sorted(self._scores, key=checkpoint_folders.step_of):
            score = self._scores[path]
            is_there = checkpoint_folders.is_checkpoint(path)
            if is_there and self._criterion.is_better(score, best and best[1]):
                best = path, score
        return best

    def _publish(self) -> None:
        """Says which checkpoint is the best, and that none is read."""
        with self._writing.protected():
            self._choose_best()

    def _choose_best(self) -> None:
        found = watched.read(self._model_dir)  # By an earlier process, which stays.
        if best := self._best():
            found = watched.Watched(
                best_step=checkpoint_folders.step_of(best[0]),
                best_score=best[1],
                best_metric=self._criterion.metric,
            )
        watched.write(self._model_dir, dataclasses.replace(found, reading=None))

    def _describe_best(self) -> str:
        best = self._best()
        if best is None:
            return ""
        return f"; the best is {best[0].name}, {self._criterion.metric} {best[1]:.4f}"

    def _say(self, path: pathlib.Path, scores: Mapping[str, float]) -> None:
        best = self._best()
        print(
            f"{path.name}: loss {scores['loss']:.4f}, pixel accuracy "
            f"{scores['pixel_accuracy']:.4f}, mean IoU {scores['mean_iou']:.4f}"
            f"{' (best)' if best and best[0] == path else ''}, "
            f"{scores['images_per_sec']:.0f} images/s.",
            flush=True,
        )
