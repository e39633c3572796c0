"""The training loop: when things happen.

Order, an invariant:

    train up to the next boundary -> report -> summaries flushed -> save
    -> stop if asked -> evaluate -> summaries flushed -> note the score in the save.

Summaries go before the save that covers them: a run killed between the two starts
again from the older checkpoint and drops the newer points, so none is missing and none
is there twice. The save goes before the evaluation: whatever ends the run while it
evaluates, no step is lost; it starts again with the evaluation.
"""

from trainer import errors
from trainer.assembly import training
from trainer.distributing import step_clock, stragglers
from trainer.drawing import pictures
from trainer.evaluating import scoring
from trainer.loop import feed, timetable, verdicts
from trainer.loop import window as window_lib
from trainer.run_folder import checkpointing, summaries
from trainer.running import memory, profiling, progress


class Loop:
    """Trains a run to its end, from what its newest checkpoint gave the variables."""

    def __init__(
        self,
        setup: training.TrainSetup,
        settings: timetable.Settings,
        checkpointer: checkpointing.Checkpointer,
        writer: summaries.SummaryWriter,
        profiler: profiling.Profiler,
        comparison: stragglers.Comparison | None = None,
    ):
        """Makes a loop.

        Args:
          setup: the objects of the run.
          settings: what is due how often.
          checkpointer: has restored what there was.
          writer: of curves and pictures.
          profiler: traces the steps that the settings ask for.
          comparison: of the workers, if there are several.
        """
        self._setup = setup
        self._settings = settings
        self._checkpointer = checkpointer
        self._writer = writer
        self._profiler = profiler
        self._calendar = timetable.make_calendar(settings, setup)
        self._window = window_lib.Window(
            setup.loss, setup.confusion, checkpointer.saved.window
        )
        self._comparison = comparison
        paused_secs = comparison.paused_secs if comparison else lambda: 0.0
        self._clock = step_clock.StepClock(paused_secs)
        self._bar = progress.Progress(start_step=setup.step, num_steps=setup.num_steps)
        self._watch = verdicts.Watch(
            setup.info.class_names,
            num_steps=setup.num_steps,
            has_average_warmup=settings.has_average_warmup,
        )

    def run(self) -> None:
        """Trains, saves and evaluates until all steps are done.

        Raises:
          errors.NonFiniteError: if loss or gradients are NaN or infinite; nothing is
            saved after it.
          errors.Stopped: if the run was asked to stop; it has saved.
          errors.CheckpointError: if saves failed, several in a row or the last one.
          schema.DataError: if an example cannot be read.
        """
        try:
            batches = feed.Feed(self._setup, self._setup.step)
            if self._calendar.is_evaluation_due(self._checkpointer.saved):
                self._evaluate()
            while self._setup.step < self._setup.num_steps and not self._is_early_end:
                self._advance(batches)
        finally:
            self._profiler.close(self._setup.step)
            self._bar.close()
            self._writer.flush()
        self._check_end()

    @property
    def _is_early_end(self) -> bool:
        return self._calendar.is_early_end(self._checkpointer.evaluations_since_best)

    def _advance(self, batches: feed.Feed) -> None:
        """Trains up to the next boundary, and does what is due there."""
        first_step = self._setup.step
        if self._calendar.is_traced(first_step):
            self._profiler.open(first_step)
        phase = self._setup.train_loop.at(first_step)
        if first_step == phase.first_step > 0:
            self._bar.say("From step %d on: %s.", first_step, phase.name)
        self._clock.start()
        num_steps = self._calendar.next_stop(first_step) - first_step
        with self._profiler.marking(first_step):
            result = batches.train(self._setup.train_loop, num_steps)
        step = self._setup.step
        self._clock.stop(step - first_step, phase.name, float(result.input_secs))
        self._window.add(result)
        self._bar.advance(step - first_step)
        is_stopped = bool(result.is_stopped)
        if not self._calendar.is_traced(step):
            self._profiler.close(step)
        if self._calendar.is_histogram(step):
            kept = phase.loop.keeper.distributions()
            self._writer.write_histograms("train", step, kept)
        if self._calendar.is_report(step):
            self._report(step, float(result.gradient_norm))
        if is_stopped or self._calendar.is_save(step):
            self._writer.flush()
            self._checkpointer.save(self._window.state())
        if is_stopped:
            raise errors.Stopped(
                f"Stopped on request at step {self._checkpointer.saved.step}, saved; "
                "the same command goes on from there."
            )
        if self._setup.evaluation and self._calendar.is_evaluation(step):
            self._evaluate()

    def _report(self, step: int, gradient_norm: float) -> None:
        """Shows and writes the means of the window, and begins a new one."""
        state = self._setup.state
        values = {
            **self._window.scores(),
            "learning_rate": float(state.optimizer.learning_rate),
            "gradient_norm": gradient_norm,
            "loss_scale": float(state.loss_scale.value()),
            **memory.scores(),
        }
        times = self._clock.times
        if times:
            values["images_per_sec"] = self._setup.batch_size / times.step_secs
            values["input_share"] = times.input_share
            if self._comparison:  # What all workers wait for is in it.
                values.update(self._comparison.report(times))
        self._writer.write_scalars("train", step, values)
        self._bar.report(
            step,
            loss=values["loss"],
            mean_iou=values["mean_iou"],
            step_secs=times and times.step_secs,
            images_per_sec=values.get("images_per_sec"),
        )
        self._window.close()
        self._clock.reset()

    def _evaluate(self) -> None:
        """Scores the model, writes curves and pictures, and notes the best score."""
        step, evaluation = self._setup.step, self._setup.evaluation
        self._profiler.close(step)
        scores = scoring.evaluate(evaluation)
        counts = evaluation.confusion.counts()
        self._writer.write_scalars("eval", step, scores)
        if self._settings.summary_images:
            picture = scoring.draw_examples(evaluation, self._settings.summary_images)
            self._writer.write_image("eval", step, "photo_truth_prediction", picture)
            picture = pictures.draw_confusion(counts, evaluation.confusion.class_names)
            self._writer.write_image("eval", step, "confusion", picture)
        self._writer.flush()
        score = scores[self._settings.best_metric]
        is_best = self._checkpointer.mark_evaluated(step, score)
        self._bar.say(
            "Step %d: eval loss %.4f, pixel accuracy %.4f, mean IoU %.4f%s, %.0f "
            "images/s.",
            step,
            scores["loss"],
            scores["pixel_accuracy"],
            scores["mean_iou"],
            " (best)" if is_best else "",
            scores["images_per_sec"],
        )
        if self._is_early_end:
            best_score = self._checkpointer.best_score
            self._bar.say(
                "Stopping early at step %d: for %d evaluations no %s has been %s.",
                step,
                self._checkpointer.evaluations_since_best,
                self._settings.best_metric,
                "a number" if best_score is None else f"better than {best_score:.4f}",
            )
        recent = self._window.recent_counts()
        for verdict in self._watch.judge(step, recent, counts):
            self._bar.say("Warning at step %d: %s", step, verdict)

    def _check_end(self) -> None:
        """Checks that the last step is saved, and its score noted."""
        saved, folder = self._checkpointer.saved, self._checkpointer.model_dir
        if saved.step < self._setup.step:
            raise errors.CheckpointError(
                "The run is at its end, but its last checkpoint is of step "
                f"{saved.step}: the last save failed. Make room in {folder} and start "
                "again to train the rest."
            )
        if not self._checkpointer.is_noted:
            raise errors.CheckpointError(
                "The run is at its end, but the score of its last step could not be "
                f"written. Make room in {folder} and start again to evaluate it."
            )
