"""Measures the parts of a run on the very objects of the run, then puts them back.

Nothing of it stays: the variables get their values back, the counts are set to zero,
and what is written goes into a folder that is removed. What was traced for it serves
the run, which then does not trace again.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator

from data.stores import reading
from trainer.assembly import training
from trainer.distributing import cluster
from trainer.drawing import pictures
from trainer.evaluating import scoring
from trainer.loop import feed
from trainer.loop import window as window_lib
from trainer.planning import costs
from trainer.remote import mirrors
from trainer.run_folder import checkpointing, model_dir, summaries
from trainer.settings import config as config_lib
from trainer.settings import train as train_settings

_WARM_UP_SHARE = 0.2
"""Of the time for steps: how long to run before it counts, for allocators and caches
to settle."""
_EXIT_SECS = 1.0
"""From the last line of the program to the end of the process, about."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """What to rehearse.

    Attributes:
      step_secs: how long to time steps, about.
      evaluation_secs: how long to time evaluation, about.
      steps_per_call: most steps of a call of the devices.
      log_steps: steps between two reports.
      summary_images: examples in the picture of each evaluation.
      is_chief: whether this process writes.
    """

    step_secs: float
    evaluation_secs: float
    steps_per_call: int
    log_steps: int
    summary_images: int
    is_chief: bool = True

    @classmethod
    def of_run(
        cls,
        config: config_lib.Config,
        *,
        step_secs: float,
        evaluation_secs: float,
        is_chief: bool = True,
    ) -> "Script":
        """Returns what a run with these settings does, to be timed for so long."""
        return cls(
            step_secs=step_secs,
            evaluation_secs=evaluation_secs,
            steps_per_call=config.train.steps_per_loop,
            log_steps=config.train.log_steps,
            summary_images=config.train.summary_images,
            is_chief=is_chief,
        )


def rehearse(
    setup: training.TrainSetup,
    folder: str,
    script: Script,
    *,
    started: float,
    clock: Callable[[], float] = time.perf_counter,
) -> costs.Costs:
    """Measures what the parts of a run take; all workers must call it.

    Args:
      setup: of a run that has not begun.
      folder: the model dir.
      script: what to measure, and for how long.
      started: when the run began, on that clock.
      clock: tells the seconds.

    Returns:
      What they take, as this worker has measured it.

    Raises:
      errors.NonFiniteError: if loss or gradients are NaN or infinite.
      schema.DataError: if an example cannot be read.
    """
    stage = _Stage(setup, script, clock)
    with (
        model_dir.rehearsing(folder, is_chief=script.is_chief) as scratch,
        stage.put_back(),
    ):
        writer = summaries.SummaryWriter(str(scratch), is_chief=script.is_chief)
        opening, step = stage.time_steps(writer)
        save = stage.time_save(scratch) + stage.time_upload(scratch)
        evaluation, end = 0.0, _EXIT_SECS
        if setup.evaluation:
            evaluation = stage.time_evaluation() + stage.time_writing(writer)
            evaluation += stage.time_upload(scratch / "eval")
            end += stage.time_end(scratch)
        writer.close()
    return costs.Costs(
        start=clock() - started + opening,
        measuring=stage.measuring,
        step=step,
        evaluation=evaluation,
        save=save,
        end=end,
    )


class _Stage:
    """Where a run is rehearsed.

    Attributes:
      measuring: seconds of what was done only to be timed.
    """

    def __init__(
        self, setup: training.TrainSetup, script: Script, clock: Callable[[], float]
    ):
        self._setup = setup
        self._script = script
        self._clock = clock
        self.measuring = 0.0

    @contextlib.contextmanager
    def put_back(self) -> Iterator[None]:
        """Leaves the objects, in the end, as they were."""
        with self._setup.state.put_back():
            try:
                yield
            finally:
                self._setup.confusion.reset()
                if self._setup.evaluation:
                    self._setup.evaluation.eval_loop.reset()

    def _time(self, run: Callable[..., object], *args) -> float:
        started = self._clock()
        run(*args)
        secs = self._clock() - started
        self.measuring += secs
        return secs

    def _count_for(
        self, secs: float, one: float, most: int = train_settings.MAX_STEPS
    ) -> int:
        """Returns how many of something take a time, the same on all workers."""
        count = min(max(round(secs / max(one, 1e-6)), 1), most)
        return int(cluster.from_chief(self._setup.strategy, count))

    def time_steps(self, writer: summaries.SummaryWriter) -> tuple[float, float]:
        """Returns the seconds of opening the input, and of a step with its reports."""
        setup, script, feeds = self._setup, self._script, []
        opening = self._time(lambda: feeds.append(feed.Feed(setup, 0)))
        (batches,) = feeds
        window = window_lib.Window(setup.loss, setup.confusion)

        def train(num_steps: int) -> None:
            step = 0
            while step < num_steps:
                to_report = script.log_steps - step % script.log_steps
                count = min(script.steps_per_call, num_steps - step, to_report)
                window.add(batches.train(setup.train_loop, count))
                step += count
                if step % script.log_steps == 0:
                    writer.write_scalars("train", step, window.scores())
                    window.close()

        train(1)  # Traces, and compiles.
        one = self._time(train, 1)
        count = self._count_for(_WARM_UP_SHARE * script.step_secs, one)
        one = self._time(train, count) / count
        count = self._count_for(script.step_secs, one)
        return opening, self._time(train, count) / count

    def time_save(self, scratch: pathlib.Path) -> float:
        """Returns the seconds of a save."""
        checkpointer = checkpointing.Checkpointer(
            str(scratch),
            state=self._setup.state.to_save(),
            identity={},
            max_to_keep=1,
            is_chief=self._script.is_chief,
        )
        checkpointer.save()
        self._setup.state.global_step.assign_add(1)  # The same one is not saved twice.
        return self._time(checkpointer.save)

    def time_evaluation(self) -> float:
        """Returns the seconds of a pass over the evaluation split."""
        evaluation = self._setup.evaluation
        iterator = evaluation.make_iterator()
        # From the first batch on: a pass may end between two calls.
        read_again = functools.partial(evaluation.read_again, 0, evaluation.num_batches)

        def score(num_batches: int) -> None:
            most = evaluation.batches_per_call
            with reading.naming_bad(read_again):
                for first in range(0, num_batches, most):
                    evaluation.eval_loop.score(iterator, min(most, num_batches - first))
                evaluation.eval_loop.result()  # Waits for the devices.

        def score_none() -> None:
            with scoring.model_to_score(evaluation):
                evaluation.eval_loop.reset()

        # Apart from the batches: averages of the weights are put in place and back,
        # which may take longer than a batch does.
        frame = self._time(score_none)
        with scoring.model_to_score(evaluation):
            score(1)  # Traces.
            one = self._time(score, 1)
            secs, most = self._script.evaluation_secs, evaluation.num_batches
            count = self._count_for(secs, one, most)
            return frame + self._time(score, count) / count * most

    def time_upload(self, folder: pathlib.Path) -> float:
        """Returns the seconds in which a folder gets to the URL of the run, if any."""
        return self._time(mirrors.try_upload, folder)

    def time_writing(self, writer: summaries.SummaryWriter) -> float:
        """Returns the seconds of the curves and pictures of an evaluation."""
        evaluation, num_images = self._setup.evaluation, self._script.summary_images

        def write() -> None:
            writer.write_scalars("eval", 0, evaluation.eval_loop.result())
            if num_images:
                picture = scoring.draw_examples(evaluation, num_images)
                writer.write_image("eval", 0, "photo_truth_prediction", picture)
                picture = pictures.draw_confusion(
                    evaluation.confusion.counts(), evaluation.info.class_names
                )
                writer.write_image("eval", 0, "confusion", picture)
            writer.flush()

        write()
        return self._time(write)

    def time_end(self, scratch: pathlib.Path) -> float:
        """Returns the seconds of what comes after the last step and evaluation."""

        def draw() -> None:
            picture = scoring.draw_examples(self._setup.evaluation)
            if self._script.is_chief:
                pictures.write_png(scratch / "predictions.png", picture)

        draw()
        return self._time(draw)
