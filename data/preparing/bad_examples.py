"""What becomes of examples that cannot be used."""

import threading

from absl import logging

from data import schema


class BadExamples:
    """Stops at the first bad example of a split, or counts those that are replaced.

    An example that is replaced keeps its place, with all of its pixels ignored, so the
    order of the others does not change.
    """

    def __init__(self, *, replaces: bool = False, maximum: int = 0):
        """Starts a count.

        Args:
          replaces: whether bad examples are replaced.
          maximum: how many may be; the next one is an error.
        """
        self.replaces = replaces
        self._maximum = maximum
        self._found: set[int] = set()
        self._lock = threading.Lock()

    def handle(self, index: int, error: schema.DataError) -> None:
        """Takes note of a bad example, the first time with a warning.

        Args:
          index: its id.
          error: says what is wrong with it.

        Raises:
          schema.DataError: `error`, or that there are too many.
        """
        if not self.replaces:
            raise error
        with self._lock:
            is_new = index not in self._found
            self._found.add(index)
            count = len(self._found)
        if count > self._maximum:
            raise schema.DataError(
                f"{error} It is bad example number {count} of its split, and "
                f"--max_bad_examples={self._maximum}; mend or remove the files, which "
                "--mode=doctor lists, or allow more."
            ) from error
        if is_new:
            logging.warning(
                "%s All of its pixels are ignored (bad example %d of at most %d).",
                error,
                count,
                self._maximum,
            )


STOP = BadExamples()
"""Replaces none."""
