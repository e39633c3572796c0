"""Waiting for what a training in another process writes."""

import time
from collections.abc import Callable

from absl import logging

from trainer.run_folder import run_lock

MOST_SECS = 600.0
"""To wait without a training."""
POLL_SECS = 1.0


def wait(
    model_dir: str,
    what: str,
    is_there: Callable[[], bool],
    on_look: Callable[[], None] = lambda: None,
) -> bool:
    """Waits for something, as long as a training runs that may write it.

    Where none runs, one may be about to start: that has ten minutes.

    Args:
      model_dir: the folder of the run.
      what: is waited for, in a word.
      is_there: tells whether it has come.
      on_look: called again and again meanwhile.

    Returns:
      Whether it is there.
    """
    pulse = run_lock.Pulse(model_dir)
    has_said = False
    last = time.monotonic()
    while not is_there():
        if pulse.is_alive():
            last = time.monotonic()
        if time.monotonic() - last > MOST_SECS:
            return is_there()
        if not has_said:
            logging.info(
                "There is no %s in %s yet; waiting, but no longer than %.0f minutes "
                "without a training there.",
                what,
                model_dir,
                MOST_SECS / 60,
            )
            has_said = True
        on_look()
        time.sleep(POLL_SECS)
    return True
