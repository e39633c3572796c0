"""Batches to train on, and what is said of those that cannot be trained on."""

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import tensorflow as tf

from data.stores import reading
from trainer import errors
from trainer.assembly import training
from trainer.steps import phases
from trainer.steps import training as training_steps

_Result = TypeVar("_Result")


class Feed:
    """The training batches of a run, one after the other.

    Whoever trains takes them from here: a run, and whoever only times its steps.
    """

    def __init__(
        self,
        setup: training.TrainSetup,
        start_step: int,
        *,
        is_one_batch: bool = False,
    ):
        """Opens the input.

        Args:
          setup: the objects of the run.
          start_step: the step whose batch comes first.
          is_one_batch: whether that batch comes again and again, for benchmarks.
        """
        self._setup = setup
        self._iterator = setup.make_iterator(start_step, is_one_batch=is_one_batch)
        self._step = start_step  # Of the next batch, whatever steps others have done.
        self._is_one_batch = is_one_batch

    def train(
        self, loop: phases.PhasedLoop | training_steps.TrainLoop, num_steps: int
    ) -> training_steps.TrainResult:
        """Trains on the next batches, and waits for the end.

        Args:
          loop: on the variables of the run.
          num_steps: steps of the call; a phase of the run may end before.

        Raises:
          errors.NonFiniteError: if loss or gradients are NaN or infinite.
          schema.DataError: if an example cannot be read.
        """
        before = self._setup.step
        result = self._run(loop.run, num_steps)
        self._advance(self._setup.step - before)
        if not bool(result.is_finite):
            raise errors.NonFiniteError(self._describe_non_finite(result))
        return result

    def take(
        self, run: Callable[[Iterator, tf.Tensor], _Result], num_steps: int
    ) -> _Result:
        """Has a function take the next batches, as many as it is told.

        Args:
          run: from the iterator and an int32 scalar tensor to anything.
          num_steps: how many batches.

        Raises:
          schema.DataError: if an example cannot be read.
        """
        result = self._run(run, num_steps)
        self._advance(num_steps)
        return result

    def _run(
        self, run: Callable[[Iterator, tf.Tensor], _Result], num_steps: int
    ) -> _Result:
        stop = self._step + (1 if self._is_one_batch else num_steps)
        read_again = functools.partial(self._setup.read_again, self._step, stop)
        with reading.naming_bad(read_again):
            return run(self._iterator, tf.constant(num_steps))

    def _advance(self, num_steps: int) -> None:
        if not self._is_one_batch:
            self._step += num_steps

    def _describe_non_finite(self, result: training_steps.TrainResult) -> str:
        """Names the step and its examples: the data are a function of the step."""
        setup = self._setup
        ids = setup.step_ids(self._step)
        names = ", ".join(setup.examples.names[index] for index in ids)
        return (
            f"The loss or the gradients of step {setup.step} are not finite (gradient "
            f"norm {float(result.gradient_norm)}); no update was made and nothing "
            "saved. Lower --learning_rate, set --global_clipnorm, or look at the "
            f"examples of this step: {names}."
        )
