"""Contenders in processes of their own that train in turn, never at once.

The parent tells one worker at a time to run some steps; the others wait for a line on
stdin. A phase in which a shared machine is slow thus hits all of them alike.

A worker writes JSON lines: a description once it is ready, then the seconds of each
turn. Its log, whatever its libraries print, is a file that is shown if it fails.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

ROOT = pathlib.Path(__file__).resolve().parents[2]

_LOG_TAIL = 3000
"""Characters of a failed process's log to show."""


class ProcessError(RuntimeError):
    """A process that failed; the message shows the end of its log."""

    def __init__(self, name: str, exit_code: int, log: str):
        """Makes the error of a process with this name, exit code and log."""
        tail = log[-_LOG_TAIL:]
        super().__init__(f"{name} ended with exit code {exit_code}:\n{tail}")


class Contender:
    """A worker process, seen from the parent."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        log: pathlib.Path,
        environment: Mapping[str, str] | None = None,
    ):
        """Starts the process; it prepares itself while others do.

        Args:
          name: in the results.
          module: what `python -m` runs; it calls `serve`.
          arguments: of the command line.
          log: file for all that the process prints.
          environment: variables besides those of this process.
        """
        self.name = name
        self._log = log
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **(environment or {})},
            )

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()

    def describe(self) -> dict[str, Any]:
        """Waits until the worker is ready; returns what it says of itself."""
        return self._read()

    def run(self, num_steps: int) -> float:
        """Runs some steps; returns how many seconds each took on average."""
        try:
            self._process.stdin.write(f"{num_steps}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self._read()["seconds"] / num_steps

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> ProcessError:
        log = self._log.read_text(errors="replace")
        return ProcessError(self.name, self._process.wait(), log)


def open_channel() -> TextIO:
    """Returns a worker's way to its parent; what others print goes to the log.

    To be called before a library has a chance to print.
    """
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def serve(
    train: Callable[[int], None],
    description: Mapping[str, Any],
    *,
    orders: TextIO,
    channel: TextIO,
) -> None:
    """Runs steps for the parent until it closes `orders`.

    Args:
      train: runs a number of steps and waits for the device.
      description: what `Contender.describe` shall return.
      orders: numbers of steps, one a line.
      channel: of `open_channel`.
    """
    print(json.dumps(description), file=channel, flush=True)
    for order in orders:
        started = time.perf_counter()
        train(int(order))
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds}), file=channel, flush=True)


def take_turns(
    contenders: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    warmup_rounds: int = 0,
) -> dict[str, list[float]]:
    """Lets each run once in every round, another one first each time.

    Args:
      contenders: by name, what runs and returns a duration.
      rounds: how many are measured.
      warmup_rounds: how many go before, to trace and to fill caches.

    Returns:
      By name, the durations of the measured rounds.
    """
    durations = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(-warmup_rounds, rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            duration = contenders[name]()
            if number >= 0:
                durations[name].append(duration)
    return durations
