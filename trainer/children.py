"""Processes that do a part of this one's work, and end with it.

    python -m trainer.children PIPE MODULE ARGUMENT ...

A child reads from a pipe into which nobody writes. Its parent alone has the other end,
so the kernel ends the reading as soon as the parent ends: by a signal, by an error, by
`os._exit`, even by SIGKILL. Then the child ends, too.
"""

import contextlib
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

ASKING_TO_END = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""The signals that ask a process of this package to end."""

_ROOT = pathlib.Path(__file__).absolute().parents[1]

_living: set[int] = set()
"""The ids of the processes that `run` waits for."""


class Ended(NamedTuple):
    """How a child has ended.

    Attributes:
      code: its exit code; below 0: the signal that killed it.
      output: what it has written to standard output and standard error.
    """

    code: int
    output: str


def run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Ended:
    """Runs the function `main` of a module in a new process, and waits for its end.

    Args:
      module: its name; `main` gets the list of arguments.
      arguments: the texts that `main` gets.
      environment: variables besides those of this process.
    """
    reader, writer = os.pipe()
    with open(writer, "wb"):
        try:
            child = _start([str(reader), module, *arguments], environment or {}, reader)
        finally:
            os.close(reader)
        _living.add(child.pid)
        try:
            output, _ = child.communicate()
        finally:  # An error leaves it running.
            _living.discard(child.pid)
            child.kill()
            child.wait()
    return Ended(child.returncode, output)


def computing_secs() -> float:
    """Returns the processor time of all children that run; 0 where nobody says it."""
    ticks = 0
    for pid in tuple(_living):
        with contextlib.suppress(OSError):
            # The name of the program, in brackets, may have spaces.
            text = pathlib.Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
            ticks += sum(map(int, text.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _start(
    arguments: Sequence[str], environment: Mapping[str, str], pipe: int
) -> subprocess.Popen:
    paths = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])
    with _blocking_signals():
        return subprocess.Popen(
            # -P: The working folder may have a `data.py` of its own.
            [sys.executable, "-P", "-m", "trainer.children", *arguments],
            env={**os.environ, **environment, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[pipe],
        )


@contextlib.contextmanager
def _blocking_signals() -> Iterator[None]:
    """Makes what is started here deaf to signals, from its first moment on.

    A terminal sends them to all processes at once, and so do supervisors. A child that
    ended by one would be an error to its parent, which is about to end with a code of
    its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main(arguments: Sequence[str]) -> None:
    """Does the work of a child: runs a module, unless the parent ends."""
    pipe, module, *rest = arguments
    threading.Thread(
        target=_end_with_parent, args=(int(pipe),), daemon=True, name="parent"
    ).start()
    importlib.import_module(module).main(rest)


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
