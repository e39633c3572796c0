"""The phases of a run: training loops that follow each other."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from trainer.steps import training


class Phase(NamedTuple):
    """Steps that are all traced alike.

    Attributes:
      name: what is special about it, such as `frozen encoder`.
      first_step: how many steps are done when it begins.
      loop: trains, wherever the run is.
    """

    name: str
    first_step: int
    loop: training.TrainLoop


class PhasedLoop:
    """Trains with the loop of the phase that a run is in.

    All loops work on the same variables, so a run may be stopped and restored anywhere.
    """

    def __init__(self, phases: Sequence[Phase], global_step: tf.Variable):
        """Makes a loop of loops.

        Args:
          phases: in their order, the first one from step 0 on.
          global_step: the number of steps done; on the host.

        Attributes:
          phases: as given.
        """
        self.phases = tuple(phases)
        self._global_step = global_step

    def at(self, step: int) -> Phase:
        """Returns the phase that the run is in after so many steps."""
        return next(p for p in reversed(self.phases) if p.first_step <= step)

    def run(self, iterator: Iterator, num_steps: tf.Tensor) -> training.TrainResult:
        """Trains for some steps, but not beyond the phase; see `TrainLoop.run`."""
        step = int(self._global_step.numpy())
        ends = [phase.first_step for phase in self.phases if phase.first_step > step]
        if ends:
            num_steps = tf.minimum(num_steps, min(ends) - step)
        return self.at(step).loop.run(iterator, num_steps)

    def prepare(self, iterator: Iterator, step: int) -> None:
        """Traces the loop of a step ahead, without a step of training.

        Args:
          iterator: of batches like those to come, in shape and kind.
          step: where the run will begin.
        """
        self.at(step).loop.prepare(iterator)
