"""Traces of some steps, by TensorFlow's profiler."""

import contextlib
import pathlib

import tensorflow as tf
from absl import logging


class Profiler:
    """Opens and closes traces; one that fails ends no training."""

    def __init__(self, folder: str | pathlib.Path, *, is_chief: bool = True):
        """Makes a profiler.

        Args:
          folder: that TensorBoard is shown, or one in it; made with the first trace.
          is_chief: whether this process traces; the others only go through the motions.

        Attributes:
          is_open: whether a trace is being made, or written.
        """
        self._folder = pathlib.Path(folder)
        self._is_chief = is_chief
        self._first_step = 0
        self.is_open = False

    def open(self, step: int) -> None:
        """Begins a trace, if none is open.

        Args:
          step: steps done.
        """
        if self.is_open or not self._is_chief:
            return
        try:
            tf.profiler.experimental.start(str(self._folder))
        except (OSError, tf.errors.OpError) as error:
            self._warn(error)
        else:
            self._first_step, self.is_open = step + 1, True

    def marking(self, step: int) -> contextlib.AbstractContextManager:
        """Returns a context that an open trace shows as one step of training.

        Args:
          step: steps done. What follows may be several, of one call of the devices.
        """
        if not self.is_open:
            return contextlib.nullcontext()
        return tf.profiler.experimental.Trace("train", step_num=step, _r=1)

    def close(self, step: int) -> None:
        """Ends the trace and writes it, if one is open.

        Args:
          step: steps done.
        """
        if not self.is_open:
            return
        try:
            tf.profiler.experimental.stop()
        except (OSError, tf.errors.OpError) as error:
            self._warn(error)
        else:
            logging.info(
                "The trace of steps %d to %d is in %s.",
                self._first_step,
                step,
                self._folder,
            )
        self.is_open = False

    def _warn(self, error: Exception) -> None:
        logging.warning(
            "No trace is written to %s; training goes on (%s).", self._folder, error
        )
