"""Keeps what TensorFlow says of its own start off the screen, unless a run fails.

TensorFlow writes to file descriptor 2 from C++, before anything can be asked of it. So
the descriptor becomes a pipe, and a process that knows the lines in question reads it.
That process lives on when this one is killed, so that no word of a crash is lost.
Python's own output takes another way, straight to where standard error was.
"""

import collections
import contextlib
import os
import re
import select
import signal
import sys
import typing

from absl import logging

from trainer import children

_PREFIX = rb"[%s]\d{4} \d\d:\d\d:[\d.]+ +\d+ \S+\.(?:cc|h):\d+\] "
_NOISE = re.compile(
    b"|".join(
        (
            rb"WARNING: All log messages before absl::InitializeLog\(\)",
            _PREFIX % b"I",
            _PREFIX % b"WE" + rb"(?:"
            rb"failed call to cuInit|"
            rb"Unable to register cu\w+ factory|"
            rb"computation placer already registered|"
            rb"oneDNN supports DT_\w+ only)",
            rb"To enable the following instructions: ",
        )
    )
)
_MOST_LINES = 200
"""To show after a failure, the last ones."""
_PATIENCE_SECS = 0.2
"""How long a line may wait for its end; a question or a bar has none."""


class Noise:
    """Lines that are kept back; they are shown at the end, unless all went well."""

    def __init__(self, control: int | None = None):
        """Holds the way to the process that keeps the lines; None: there is none."""
        self._control = control

    def drop(self) -> None:
        """Says that nothing failed, so that nobody has to see the lines."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                os.write(self._control, b"+")
            self._control = None


def keep_back() -> Noise:
    """Begins to keep the lines back; before TensorFlow is imported.

    The first process of a container takes all others with it when it ends, so there the
    lines are shown as they come.
    """
    if os.getpid() == 1 or sys.stderr is None:
        return Noise()
    sys.stderr.flush()
    try:
        screen = os.dup(2)
        source, sink = os.pipe()
        verdict, control = os.pipe()
        child = os.fork()
    except OSError:  # No process or descriptor is left: no reason to end a run.
        return Noise()
    if child == 0:
        _become_reader(source, verdict, screen, to_close=(sink, control))
    os.close(source)
    os.close(verdict)
    os.dup2(sink, 2)
    os.close(sink)
    sys.stderr = open(  # noqa: SIM115
        screen,
        "w",
        buffering=1,
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
    )
    logging.get_absl_handler().python_handler.setStream(sys.stderr)
    return Noise(control)


def _become_reader(
    source: int, verdict: int, screen: int, *, to_close: tuple[int, ...]
) -> typing.NoReturn:
    """Reads until nobody can write any more, deaf to signals for the run."""
    try:
        for number in children.ASKING_TO_END:
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # Of standard output, a reader awaits the end.
            os.dup2(nowhere, descriptor)
        for descriptor in to_close:
            os.close(descriptor)
        held = _pass_on(source, screen)
        if os.read(verdict, 1) != b"+":
            _write(screen, b"".join(held))
    finally:
        os._exit(0)


def _pass_on(source: int, screen: int) -> collections.deque[bytes]:
    """Copies all lines but those in question, and returns these."""
    held, rest = collections.deque(maxlen=_MOST_LINES), b""
    while True:
        is_ready = select.select([source], [], [], _PATIENCE_SECS if rest else None)[0]
        if not is_ready:
            _write(screen, rest)
            rest = b""
            continue
        data = os.read(source, 65536)
        *lines, rest = (rest + data).splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n") or not data:
            lines, rest = [*lines, rest], b""
        for line in lines:
            if _NOISE.match(line):
                held.append(line)
            else:
                _write(screen, line)
        if not data:
            return held


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
