"""The training loop: when things happen.

Order, an invariant:

    train up to the next boundary -> report -> summaries flushed -> save
    -> stop if asked -> evaluate -> summaries flushed -> note the score in the save.

Summaries go before the save that covers them: a run killed between the two starts
again from the older checkpoint and drops the newer points, so none is missing and none
is there twice. The save goes before the evaluation: whatever ends the run while it
evaluates, no step is lost; it starts again with the evaluation.
"""

import time

import numpy as np
import tensorflow as tf

from data.stores import reading
from trainer import errors, scoring, verdicts
from trainer import window as window_lib
from trainer.assembly import experiment
from trainer.run_folder import checkpoint_folders, checkpointing, summaries
from trainer.running import preemption, progress
from trainer.steps import training as training_steps

BEST_SCORE = "mean_iou"
"""The score by which the best checkpoint is chosen."""


def run(
    setup: experiment.TrainSetup,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
    stop: preemption.StopRequest,
) -> None:
    """Trains from `global_step` to the end of the run.

    Args:
      setup: the objects of the run.
      checkpointer: has restored what there was.
      writer: of curves and pictures.
      stop: listens to signals.

    Raises:
      errors.NonFiniteError: if loss or gradients are NaN or infinite; nothing is
        saved after it.
      errors.Stopped: if the run was asked to stop; it has saved.
      errors.CheckpointError: if saves failed, several in a row or the last one.
    """
    step = int(setup.global_step.numpy())
    calendar = Calendar(setup)
    iterator = setup.make_iterator(step)
    bar = progress.Progress(start_step=step, num_steps=setup.num_steps)
    window = window_lib.Window(setup.loss, setup.confusion, checkpointer.saved.window)
    clock = _Clock()
    watch = verdicts.Watch(
        setup.info.class_names,
        num_steps=setup.num_steps,
        has_average_warmup=setup.config.train.moving_average_warmup,
    )

    def evaluate() -> None:
        evaluation = _evaluate(setup.evaluation, step, checkpointer, writer, bar)
        for verdict in watch.judge(step, window.recent_counts(), evaluation):
            bar.say("Warning at step %d: %s", step, verdict)

    try:
        if calendar.is_evaluation_due(checkpointer.saved):
            evaluate()
        while step < setup.num_steps:
            started = time.perf_counter()
            result = _train(setup, iterator, calendar.next_stop(step) - step)
            num_steps = int(setup.global_step.numpy()) - step
            clock.add(num_steps, time.perf_counter() - started)
            window.add(result)
            bar.advance(num_steps)
            step += num_steps
            is_stopped = bool(result.is_stopped)
            if calendar.is_report(step):
                _report(setup, window, clock, float(result.gradient_norm), writer, bar)
            if is_stopped or calendar.is_save(step):
                writer.flush()
                checkpointer.save(window.state())
            if is_stopped:
                raise errors.Stopped(
                    f"Stopped on request at step {checkpointer.saved.step}, saved; the "
                    "same command goes on from there."
                )
            if setup.evaluation and calendar.is_evaluation(step):
                evaluate()
    finally:
        bar.close()
        writer.flush()
    if checkpointer.saved.step < step:
        raise errors.CheckpointError(
            f"The run is at its end, but its last checkpoint is of step "
            f"{checkpointer.saved.step}: the last save failed. Make room in "
            f"{setup.config.run.model_dir} and start again to train the rest."
        )
    if not checkpointer.is_noted:
        raise errors.CheckpointError(
            "The run is at its end, but the score of its last step could not be "
            f"written. Make room in {setup.config.run.model_dir} and start again to "
            "evaluate it."
        )


class Calendar:
    """At which steps things are due; a function of the step alone."""

    def __init__(self, setup: experiment.TrainSetup):
        """Reads the intervals from the settings of a run."""
        train = setup.config.train
        self._num_steps = setup.num_steps
        self._has_evaluation = setup.evaluation is not None
        self._steps_per_loop = train.steps_per_loop
        self._log_steps = train.log_steps
        self._checkpoint_interval = train.checkpoint_interval
        self._epochs_between_evals = train.epochs_between_evals
        self._epochs_done = setup.epochs_done

    def is_evaluation(self, step: int) -> bool:
        """Whether epochs enough have ended here, or the run."""
        if step >= self._num_steps:
            return step == self._num_steps
        before, after = (
            self._epochs_done(end) // self._epochs_between_evals
            for end in (step - 1, step)
        )
        return after > before

    def is_evaluation_due(self, saved: checkpoint_folders.Metadata) -> bool:
        """Whether the newest checkpoint is at an evaluation that is still to make."""
        is_open = self.is_evaluation(saved.step) and not saved.is_evaluated
        return self._has_evaluation and saved.step > 0 and is_open

    def is_done(self, saved: checkpoint_folders.Metadata) -> bool:
        """Whether the newest checkpoint is the end of the run."""
        return saved.step >= self._num_steps and not self.is_evaluation_due(saved)

    def is_save(self, step: int) -> bool:
        """Whether to save: at each evaluation, and at the interval asked for."""
        interval = self._checkpoint_interval
        return self.is_evaluation(step) or (interval > 0 and step % interval == 0)

    def is_report(self, step: int) -> bool:
        """Whether to write the means since the last report."""
        return step % self._log_steps == 0 or step == self._num_steps

    def next_stop(self, step: int) -> int:
        """Returns where the device loop that starts at `step` must end."""
        last = min(step + self._steps_per_loop, self._num_steps)
        for stop in range(step + 1, last):
            if self.is_report(stop) or self.is_save(stop):
                return stop
        return last


class _Clock:
    """How long the steps since the last report took."""

    def __init__(self):
        """Starts with no step."""
        self._is_warm = False
        self.reset()

    def reset(self) -> None:
        """Forgets the steps so far."""
        self._steps, self._secs = 0, 0.0

    def add(self, num_steps: int, secs: float) -> None:
        """Adds the steps of one call; the first of a process traces and compiles."""
        if self._is_warm:
            self._steps += num_steps
            self._secs += secs
        self._is_warm = True

    @property
    def step_secs(self) -> float | None:
        """Mean duration of a step; None while all there is was tracing."""
        return self._secs / self._steps if self._steps else None


def _train(
    setup: experiment.TrainSetup, iterator, num_steps: int
) -> training_steps.TrainResult:
    """Trains for some steps, and waits for their end.

    Raises:
      errors.NonFiniteError: if loss or gradients are not finite.
      schema.DataError: if an example cannot be read.
    """
    first_step = int(setup.global_step.numpy())
    try:
        result = setup.train_loop.run(iterator, tf.constant(num_steps))
    except reading.READ_ERRORS:
        setup.read_again(first_step + num_steps)
        raise
    if not bool(result.is_finite):
        raise errors.NonFiniteError(_describe_non_finite(setup, result))
    return result


def _describe_non_finite(
    setup: experiment.TrainSetup, result: training_steps.TrainResult
) -> str:
    """Names the step and its examples: the data are a function of the step alone."""
    step = int(setup.global_step.numpy())
    names = ", ".join(setup.examples.names[index] for index in setup.step_ids(step))
    return (
        f"The loss or the gradients of step {step} are not finite (gradient norm "
        f"{float(result.gradient_norm)}); no update was made and nothing saved. Lower "
        "--learning_rate, set --global_clipnorm, or look at the examples of this step: "
        f"{names}."
    )


def _report(
    setup: experiment.TrainSetup,
    window: window_lib.Window,
    clock: _Clock,
    gradient_norm: float,
    writer: summaries.SummaryWriter,
    bar: progress.Progress,
) -> None:
    """Shows and writes the means of the window, and begins a new one."""
    step = int(setup.global_step.numpy())
    values = {
        **window.scores(),
        "learning_rate": float(setup.optimizer.learning_rate),
        "gradient_norm": gradient_norm,
        "loss_scale": float(setup.loss_scale.scale.numpy()),
    }
    step_secs = clock.step_secs
    if step_secs is not None:
        values["images_per_sec"] = setup.config.train.batch_size / step_secs
    writer.write_scalars("train", step, values)
    bar.report(
        step,
        loss=values["loss"],
        step_secs=step_secs,
        images_per_sec=values.get("images_per_sec"),
    )
    window.close()
    clock.reset()


def _evaluate(
    setup: experiment.EvalSetup,
    step: int,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
    bar: progress.Progress,
) -> np.ndarray:
    """Scores the model, writes curves and pictures, and notes the best score.

    Returns:
      The confusion matrix, int64 [classes, classes].
    """
    scores = scoring.evaluate(setup)
    writer.write_scalars("eval", step, scores)
    if setup.config.train.summary_images:
        picture = scoring.draw_examples(setup, setup.config.train.summary_images)
        writer.write_image("eval", step, "photo_truth_prediction", picture)
    writer.flush()
    is_best = checkpointer.mark_evaluated(step, scores[BEST_SCORE])
    bar.say(
        "Step %d: eval loss %.4f, pixel accuracy %.4f, mean IoU %.4f%s, %.0f images/s.",
        step,
        scores["loss"],
        scores["pixel_accuracy"],
        scores["mean_iou"],
        " (best)" if is_best else "",
        scores["images_per_sec"],
    )
    return setup.confusion.counts()
