"""Signals that ask a process to end, heard whatever Python is doing."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from trainer import children


@contextlib.contextmanager
def listening(on_signal: Callable[[str], None]) -> Iterator[None]:
    """Listens to signals, from the main thread; puts back what was before.

    SIGINT and SIGHUP stay ignored where whoever started the process ignores them, as
    `nohup` does.

    Args:
      on_signal: called from another thread with the name of each signal. Python's own
        handlers would wait for the main thread to come back from TensorFlow.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The C handler writes the signal's number at once, whatever Python is doing.
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = {
        number: signal.signal(number, lambda *_: None)
        for number in children.ASKING_TO_END
        if not _is_ignored(number)
    }

    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def listen() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGHUP:
                _silence(terminals)
            if number[0] in previous:
                on_signal(signal.Signals(number[0]).name)

    thread = threading.Thread(target=listen, daemon=True, name="signals")
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


def _is_ignored(number: signal.Signals) -> bool:
    can_be = number in (signal.SIGINT, signal.SIGHUP)
    return can_be and signal.getsignal(number) == signal.SIG_IGN


def _silence(terminals: Sequence[int]) -> None:
    """Lets nothing more be written to a terminal that is gone: it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
