"""The training loop: when things happen.

Order, an invariant:

    train up to the next boundary -> report -> evaluate -> summaries flushed -> save.

Summaries go before the save: a run killed between the two starts again from the older
checkpoint and drops the newer points, so none is missing and none is there twice.
"""

import time

import tensorflow as tf

from trainer import (
    checkpointing,
    errors,
    experiment,
    metrics,
    progress,
    scoring,
    summaries,
)

BEST_SCORE = "mean_iou"
"""The score by which the best checkpoint is chosen."""


def run(
    setup: experiment.TrainSetup,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
) -> None:
    """Trains from `global_step` to the end of the run.

    Args:
      setup: the objects of the run.
      checkpointer: has restored what there was.
      writer: of curves and pictures.

    Raises:
      errors.NonFiniteError: if loss or gradients are NaN or infinite; nothing is
        saved after it.
    """
    step = int(setup.global_step.numpy())
    calendar = Calendar(setup)
    iterator = setup.make_iterator(step)
    bar = progress.Progress(start_step=step, num_steps=setup.num_steps)
    window = _Window(setup)
    try:
        while step < setup.num_steps:
            stop = calendar.next_stop(step)
            window.train(iterator, stop - step)
            bar.advance(stop - step)
            step = stop
            if calendar.is_report(step):
                _report(setup, window, writer, bar)
            if calendar.is_evaluation(step) and setup.evaluation:
                _evaluate(setup.evaluation, step, checkpointer, writer, bar)
            if calendar.is_save(step):
                writer.flush()
                checkpointer.save()
    finally:
        bar.close()
        writer.flush()


class Calendar:
    """At which steps things are due; a function of the step alone."""

    def __init__(self, setup: experiment.TrainSetup):
        """Reads the intervals from the settings of a run."""
        train = setup.config.train
        self._num_steps = setup.num_steps
        self._steps_per_loop = train.steps_per_loop
        self._log_steps = train.log_steps
        self._checkpoint_interval = train.checkpoint_interval
        self._evaluations = {setup.num_steps}
        epoch = train.epochs_between_evals
        while (step := setup.epoch_end(epoch)) < setup.num_steps:
            self._evaluations.add(step)
            epoch += train.epochs_between_evals

    def is_evaluation(self, step: int) -> bool:
        """Whether epochs enough have ended here, or the run."""
        return step in self._evaluations

    def is_save(self, step: int) -> bool:
        """Whether to save: at each evaluation, and at the interval asked for."""
        interval = self._checkpoint_interval
        return self.is_evaluation(step) or (interval > 0 and step % interval == 0)

    def is_report(self, step: int) -> bool:
        """Whether to report.

        At each save as well: the means since the last report are in no checkpoint.
        """
        return step % self._log_steps == 0 or self.is_save(step)

    def next_stop(self, step: int) -> int:
        """Returns where the device loop that starts at `step` must end."""
        stop = step + 1
        while not self.is_report(stop) and stop - step < self._steps_per_loop:
            stop += 1
        return min(stop, self._num_steps)


class _Window:
    """The steps since the last report, and their means."""

    def __init__(self, setup: experiment.TrainSetup):
        self._setup = setup
        self._is_warm = False
        self.reset()

    def reset(self) -> None:
        """Begins a new window."""
        self._steps, self._loss_sum = 0, 0.0
        self._timed_steps, self._timed_secs = 0, 0.0
        self.gradient_norm = 0.0
        self._setup.confusion.reset()

    @property
    def loss(self) -> float:
        """Mean of the steps in the window."""
        return self._loss_sum / self._steps

    @property
    def step_secs(self) -> float | None:
        """Mean duration of a step; None while all there is was tracing."""
        return self._timed_secs / self._timed_steps if self._timed_steps else None

    def train(self, iterator, num_steps: int) -> None:
        """Trains, and checks that loss and gradients are finite."""
        started = time.perf_counter()
        result = self._setup.train_loop.run(iterator, tf.constant(num_steps))
        loss = float(result.loss)  # Waits for the device.
        if not bool(result.is_finite):
            step = int(self._setup.global_step.numpy())
            raise errors.NonFiniteError(
                f"Loss or gradients of step {step} are not "
                f"finite (gradient norm {float(result.gradient_norm)}); no update was "
                "made and nothing saved. Lower --learning_rate, set "
                "--global_clipnorm, or check the examples."
            )
        if self._is_warm:
            self._timed_secs += time.perf_counter() - started
            self._timed_steps += num_steps
        self._is_warm = True  # The first call of a process traces and compiles.
        self._steps += num_steps
        self._loss_sum += loss * num_steps
        self.gradient_norm = float(result.gradient_norm)


def _report(
    setup: experiment.TrainSetup,
    window: _Window,
    writer: summaries.SummaryWriter,
    bar: progress.Progress,
) -> None:
    """Shows and writes the means of the window, and begins a new one."""
    step = int(setup.global_step.numpy())
    values = {
        "loss": window.loss,
        **metrics.scores(setup.confusion.result(), setup.info.class_names),
        "learning_rate": float(setup.optimizer.learning_rate),
        "gradient_norm": window.gradient_norm,
        "loss_scale": float(setup.loss_scale.scale.numpy()),
    }
    if window.step_secs is not None:
        values["images_per_sec"] = setup.config.train.batch_size / window.step_secs
    writer.write_scalars("train", step, values)
    bar.report(
        step,
        loss=window.loss,
        step_secs=window.step_secs,
        images_per_sec=values.get("images_per_sec"),
    )
    window.reset()


def _evaluate(
    setup: experiment.EvalSetup,
    step: int,
    checkpointer: checkpointing.Checkpointer,
    writer: summaries.SummaryWriter,
    bar: progress.Progress,
) -> None:
    """Scores the model, writes curves and pictures, and notes the best score."""
    scores = scoring.evaluate(setup)
    writer.write_scalars("eval", step, scores.values)
    if setup.config.train.summary_images:
        picture = scoring.draw_examples(setup, setup.config.train.summary_images)
        writer.write_image("eval", step, "photo_truth_prediction", picture)
    is_best = checkpointer.report_score(scores.values[BEST_SCORE])
    bar.say(
        "Step %d: eval loss %.4f, pixel accuracy %.4f, mean IoU %.4f%s, %.0f images/s.",
        step,
        scores.values["loss"],
        scores.values["pixel_accuracy"],
        scores.values["mean_iou"],
        " (best)" if is_best else "",
        scores.values["images_per_sec"],
    )
