"""What a run takes: from what its parts take, and how often they come."""

import dataclasses
import math

from data import pipeline

RESERVE = 0.03
"""Share of a budget of time that is left for what is slower than it was measured."""
_ROOM = 1.1
"""What the smallest budget that is named has over the one that just works."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of the parts of a run.

    Attributes:
      start: from the start of the process to the first step, tracing included.
      measuring: the part of it that only a run has which measures itself.
      step: of one training step, with its share of the lines in the log.
      evaluation: of a pass over the evaluation split, with curves and pictures.
      save: of a checkpoint. At a URL, both are with what they upload.
      end: from the last step's evaluation to the end of the process.
    """

    start: float
    measuring: float = 0.0
    step: float
    evaluation: float = 0.0
    save: float = 0.0
    end: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rhythm:
    """How often the parts of a run come.

    Attributes:
      num_examples: of the training split.
      batch_size: of a step, over all replicas.
      epochs_between_evals: from one evaluation, with a save, to the next.
      checkpoint_interval: steps between two further saves; 0: there are none.
    """

    num_examples: int
    batch_size: int
    epochs_between_evals: int = 1
    checkpoint_interval: int = 0

    def num_evaluations(self, num_steps: int) -> int:
        """Returns how many evaluations, each after a save, a run of a length has."""
        epochs = pipeline.epochs_done(
            num_steps - 1,
            num_examples=self.num_examples,
            global_batch_size=self.batch_size,
        )
        # Those before the last step, which ends with one in any case. Where batches
        # hold several epochs, there is at most one after each.
        return min(epochs // self.epochs_between_evals, num_steps - 1) + 1

    def num_saves(self, num_steps: int) -> int:
        """Returns how many saves a run of a length has, at most."""
        further = 0
        if self.checkpoint_interval:
            further = (num_steps - 1) // self.checkpoint_interval
        return self.num_evaluations(num_steps) + further


def duration(costs: Costs, rhythm: Rhythm, num_steps: int) -> float:
    """Returns the seconds that a run of a length takes, from start to end."""
    return (
        costs.start
        + num_steps * costs.step
        + rhythm.num_evaluations(num_steps) * costs.evaluation
        + rhythm.num_saves(num_steps) * costs.save
        + costs.end
    )


def smallest_budget(costs: Costs, rhythm: Rhythm, num_steps: int) -> float:
    """Returns the whole seconds that a budget needs for a run of a length."""
    return float(math.ceil(_ROOM * duration(costs, rhythm, num_steps) / (1 - RESERVE)))


def most_steps(costs: Costs, rhythm: Rhythm, secs: float, *, limit: int) -> int:
    """Returns the length of the longest run that ends in time; 0 if none does.

    Args:
      costs: of its parts.
      rhythm: how often they come.
      secs: how long it may take.
      limit: the greatest length.
    """
    least, most = 0, limit
    while least < most:  # A longer run never takes less time.
        middle = (least + most + 1) // 2
        if duration(costs, rhythm, middle) <= secs:
            least = middle
        else:
            most = middle - 1
    return least
