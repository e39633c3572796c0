"""Stopping on request, by SIGTERM or SIGUSR1: save, then exit.

A signal sets a variable that the device loop reads at each step, so that however many
steps a call from Python runs, it ends at the next one. Python's own signal handlers
would wait for the call to return. Where nothing is unsaved (at the start, while
tracing, in an evaluation) the process exits at once. A second signal always does.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from trainer import errors

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_GRACE_SECS = 1.0
"""For the loop to end the process itself, with its own message."""


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self):
        """Makes a request that nobody has made yet."""
        # Not a mirrored variable, and on the host: another thread sets it while the
        # devices are at work.
        with tf.device("/CPU:0"):
            self.variable = tf.Variable(False, trainable=False, name="stop_requested")
        self._has_unsaved_work = lambda: False

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
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # The C handler writes the signal's number at once, whatever Python is doing.
        previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        previous = {s: signal.signal(s, lambda *_: None) for s in _SIGNALS}
        thread = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)
            os.close(writer)  # Ends the thread.
            thread.join()
            os.close(reader)

    def _listen(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] not in _SIGNALS:
                continue
            name = signal.Signals(number[0]).name
            if self.variable.numpy():
                _exit(f"{name} again: exiting at once.")
            self.variable.assign(True)
            if not self._has_unsaved_work():
                _exit(f"{name}: exiting; nothing is unsaved.")
            logging.info("%s: stopping after this step, to save and exit.", name)
            threading.Thread(target=self._wait_for_save, daemon=True).start()

    def _wait_for_save(self) -> None:
        """Ends the process after the save, should the loop not do so by itself.

        A signal during a save finds the loop on its way into an evaluation, which reads
        no stop variable.
        """
        while self._has_unsaved_work():
            time.sleep(0.05)
        time.sleep(_GRACE_SECS)
        _exit("Saved; exiting.")


def _exit(message: str) -> None:
    logging.info(message)
    logging.flush()
    os._exit(errors.Stopped.exit_code)
