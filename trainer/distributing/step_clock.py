"""How long the steps since the last report took, and what held them up here."""

import dataclasses
import math
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Times:
    """What a worker measured of its steps, as means.

    Attributes:
      step_secs: duration of a step; with several workers, each waits for the others.
      input_secs: for how long of it the devices waited for this worker's input; NaN
        if that is not measured.
      paused_secs: for how long of it this worker's process did not run.
    """

    step_secs: float
    input_secs: float
    paused_secs: float

    @property
    def input_share(self) -> float:
        """For what share of a step, 0 to 1, the devices waited for input; or NaN."""
        return self.input_secs / self.step_secs

    @property
    def delay_secs(self) -> float:
        """The worker's own delays; a pause that hits the input may count twice."""
        known = 0.0 if math.isnan(self.input_secs) else self.input_secs
        return known + self.paused_secs


class StepClock:
    """Adds up the steps since the last report."""

    def __init__(self, paused_secs: Callable[[], float] = lambda: 0.0):
        """Starts with no step.

        Args:
          paused_secs: for how long the process has not run up to now.
        """
        self._paused_secs = paused_secs
        self._last_phase = None
        self.reset()

    def reset(self) -> None:
        """Forgets the steps so far."""
        self._steps, self._sums = 0, (0.0, 0.0, 0.0)

    def start(self) -> None:
        """Begins to measure a call of the devices."""
        self._began = time.perf_counter(), self._paused_secs()

    def stop(self, num_steps: int, phase: str, input_secs: float) -> None:
        """Adds the steps of the call; the first of each phase traces and compiles.

        Args:
          num_steps: that it took.
          phase: of the run.
          input_secs: for how long the devices waited for input in it.
        """
        secs = time.perf_counter() - self._began[0]
        paused = self._paused_secs() - self._began[1]
        if phase == self._last_phase:
            self._steps += num_steps
            added = secs, input_secs, paused
            self._sums = tuple(map(sum, zip(self._sums, added, strict=True)))
        self._last_phase = phase

    @property
    def times(self) -> Times | None:
        """Means over the steps; None while all there is was tracing."""
        return Times(*(s / self._steps for s in self._sums)) if self._steps else None
