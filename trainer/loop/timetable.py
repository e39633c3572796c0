"""When things are due in a run: a function of the step alone."""

import dataclasses
from collections.abc import Callable

from trainer.assembly import training
from trainer.run_folder import checkpoint_folders
from trainer.settings import config as config_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What is due how often in a run.

    Attributes:
      steps_per_loop: steps of a call of the devices, at most.
      log_steps: steps between two reports.
      checkpoint_interval: steps between two saves, besides those at evaluations; 0:
        none.
      epochs_between_evals: epochs between two evaluations.
      summary_images: examples in the picture of each evaluation; 0: no picture.
      best_metric: the score by which the best checkpoint is chosen.
      early_stopping_patience: evaluations without a better score that end the run; 0:
        none do.
      has_average_warmup: whether moving averages soon forget their initial values.
      histogram_steps: steps between two histograms of weights and gradients; 0: none.
      profile_steps: the first and the last step to trace; empty: none.
    """

    steps_per_loop: int
    log_steps: int
    checkpoint_interval: int
    epochs_between_evals: int
    summary_images: int
    best_metric: str
    early_stopping_patience: int
    has_average_warmup: bool
    histogram_steps: int
    profile_steps: tuple[int, ...]


def read_settings(config: config_lib.Config) -> Settings:
    """Returns what the flags say of how often things are due."""
    train = config.train
    return Settings(
        steps_per_loop=train.steps_per_loop,
        log_steps=train.log_steps,
        checkpoint_interval=train.checkpoint_interval,
        epochs_between_evals=train.epochs_between_evals,
        summary_images=train.summary_images,
        best_metric=config.evaluation.best_metric,
        early_stopping_patience=config.evaluation.early_stopping_patience,
        has_average_warmup=train.moving_average_warmup,
        histogram_steps=config.monitoring.summary_histograms,
        profile_steps=config.monitoring.profile_steps,
    )


class Calendar:
    """At which steps things are due; a function of the step alone."""

    def __init__(
        self,
        settings: Settings,
        *,
        num_steps: int,
        epochs_done: Callable[[int], int],
        has_evaluation: bool,
    ):
        """Makes the calendar of a run.

        Args:
          settings: what is due how often.
          num_steps: length of the run.
          epochs_done: how many epochs have been seen whole after a number of steps.
          has_evaluation: whether the run has one.
        """
        self._settings = settings
        self._num_steps = num_steps
        self._epochs_done = epochs_done
        self._has_evaluation = has_evaluation

    def is_evaluation(self, step: int) -> bool:
        """Whether epochs enough have ended here, or the run."""
        if step >= self._num_steps:
            return step == self._num_steps
        before, after = (
            self._epochs_done(end) // self._settings.epochs_between_evals
            for end in (step - 1, step)
        )
        return after > before

    def is_evaluation_due(self, saved: checkpoint_folders.Metadata) -> bool:
        """Whether the newest checkpoint is at an evaluation that is still to make."""
        is_open = self.is_evaluation(saved.step) and not saved.is_evaluated
        return self._has_evaluation and saved.step > 0 and is_open

    def is_done(self, saved: checkpoint_folders.Metadata) -> bool:
        """Whether the newest checkpoint is the end of the run."""
        if self.is_early_end(saved.evaluations_since_best):
            return True
        return saved.step >= self._num_steps and not self.is_evaluation_due(saved)

    def is_early_end(self, evaluations_since_best: int) -> bool:
        """Whether the scores have not grown better for so long that the run ends.

        A run without evaluations has no scores to wait for. So one that ended early
        goes on where it is started again without them.
        """
        patience = self._settings.early_stopping_patience
        return self._has_evaluation and 0 < patience <= evaluations_since_best

    def is_save(self, step: int) -> bool:
        """Whether to save: at each evaluation, and at the interval asked for."""
        interval = self._settings.checkpoint_interval
        return self.is_evaluation(step) or (interval > 0 and step % interval == 0)

    def is_report(self, step: int) -> bool:
        """Whether to write the means since the last report."""
        return step % self._settings.log_steps == 0 or step == self._num_steps

    def is_histogram(self, step: int) -> bool:
        """Whether to write the distributions of weights and gradients."""
        interval = self._settings.histogram_steps
        return interval > 0 and step % interval == 0

    def is_traced(self, step: int) -> bool:
        """Whether the step that follows after so many steps is one to trace."""
        first, last = self._settings.profile_steps or (0, 0)
        return first <= step + 1 <= last

    def next_stop(self, step: int) -> int:
        """Returns where the device loop that starts at `step` must end, or earlier."""
        last = min(step + self._settings.steps_per_loop, self._num_steps)
        for stop in range(step + 1, last):
            if self.is_report(stop) or self.is_save(stop) or self.is_histogram(stop):
                return stop
            if self.is_traced(stop) != self.is_traced(stop - 1):
                return stop
        return last


def make_calendar(settings: Settings, setup: training.TrainSetup) -> Calendar:
    """Makes the calendar of a run of these objects."""
    return Calendar(
        settings,
        num_steps=setup.num_steps,
        epochs_done=setup.epochs_done,
        has_evaluation=setup.evaluation is not None,
    )
