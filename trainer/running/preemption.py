"""Stopping on request, by SIGTERM, SIGUSR1, SIGINT or SIGHUP: save, then exit.

A signal sets a variable that the device loop reads at each step, so that however many
steps a call from Python runs, it ends at the next one. Where nothing is unsaved (at the
start, while tracing, in an evaluation) the process exits at once. A second signal
always does.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import tensorflow as tf
from absl import logging

from trainer import errors
from trainer.running import signals

_GRACE_SECS = 2.0
"""For the loop to end the process itself, with its own message."""
_POLL_SECS = 0.05


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self, before_exit: Callable[[], None] = lambda: None):
        """Makes a request that nobody has made yet.

        Args:
          before_exit: called before the process is ended from another thread.
        """
        self._before_exit = [before_exit]
        # Not a mirrored variable, and on the host: another thread sets it while the
        # devices are at work.
        with tf.device("/CPU:0"):
            self.variable = tf.Variable(False, trainable=False, name="stop_requested")
        self._has_unsaved_work = lambda: False

    def call_before_exit(self, call: Callable[[], None]) -> None:
        """Has something done, too, before the process is ended from another thread."""
        self._before_exit.append(call)

    def protect(self, has_unsaved_work: Callable[[], bool]) -> None:
        """Sets the question whether an exit right now would lose anything.

        Args:
          has_unsaved_work: called from another thread, at any time after a signal.
        """
        self._has_unsaved_work = has_unsaved_work

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listens to signals, from the main thread; puts back what was before.

        Enter it after the strategy was made: `MultiWorkerMirroredStrategy` replaces
        the handlers that it finds.
        """
        with signals.listening(self._on_signal):
            yield

    def _on_signal(self, name: str) -> None:
        if self.variable.numpy():
            if name == "SIGHUP":
                return  # A terminal that closes sends it twice.
            self._exit(f"{name} again: exiting at once.")
        self.variable.assign(True)
        if not self._has_unsaved_work():
            self._exit(f"{name}: exiting; nothing is unsaved.")
        logging.info("%s: stopping after this step, to save and exit.", name)
        threading.Thread(target=self._wait_for_save, daemon=True).start()

    def _wait_for_save(self) -> None:
        """Ends the process after the save, should the loop not do so by itself.

        A signal during a save finds the loop on its way into an evaluation, which reads
        no stop variable.
        """
        while self._has_unsaved_work():
            time.sleep(_POLL_SECS)
        # Not at once: while the machine stands still, the loop does so, too.
        for _ in range(round(_GRACE_SECS / _POLL_SECS)):
            time.sleep(_POLL_SECS)
        self._exit("Saved; exiting.")

    def _exit(self, message: str) -> NoReturn:
        for call in reversed(self._before_exit):
            call()
        logging.info(message)
        logging.flush()
        os._exit(errors.Stopped.exit_code)
