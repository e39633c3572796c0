"""How long the process did not get to run."""

import threading
import time
from collections.abc import Callable

_INTERVAL_SECS = 0.05
"""Between two looks at the clock. A look that comes less than this late is no pause: it
is what a busy machine does to every thread."""


class PauseMeter:
    """Adds up the time in which the process was stopped, or waited for a processor.

    A thread looks at the clock again and again. Where it comes late, nothing of the
    process ran: it was stopped by a signal, its container had used up its share of the
    processors, or the machine itself stood still. Code that holds Python's lock counts,
    too; a call of the devices does not hold it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Makes a meter that stands at 0.

        Args:
          clock: in seconds.
        """
        self._clock = clock
        self._last_and_sum = clock(), 0.0  # Both at once: another thread reads them.

    @property
    def secs(self) -> float:
        """Seconds in all, up to now."""
        return self._read()[1]

    def start(self) -> None:
        """Begins to measure, until the end of the process."""
        threading.Thread(target=self._watch, daemon=True, name="pauses").start()

    def look(self) -> None:
        """Looks at the clock once."""
        self._last_and_sum = self._read()

    def _watch(self) -> None:
        while True:
            time.sleep(_INTERVAL_SECS)
            self.look()

    def _read(self) -> tuple[float, float]:
        last, secs = self._last_and_sum
        now = self._clock()
        late = now - last - _INTERVAL_SECS
        return now, secs + (late if late > _INTERVAL_SECS else 0.0)
