"""Signals end a process in order, hung terminals included; a start that hangs ends."""

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from tests.faults import processes
from trainer import errors
from trainer.running import signals


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"])
def test_each_signal_is_heard_and_put_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    heard, is_heard = [], threading.Event()

    def on_signal(name):
        heard.append(name)
        is_heard.set()

    with signals.listening(on_signal):
        os.kill(os.getpid(), number)
        assert is_heard.wait(timeout=300)
    assert heard == [name]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_nohup_ignores_stays_ignored(number):
    before, heard = signal.signal(number, signal.SIG_IGN), []
    try:
        with signals.listening(heard.append):
            assert signal.getsignal(number) == signal.SIG_IGN
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
    assert heard == []  # The thread that hears them has ended.


def test_a_closed_terminal_is_no_error_of_what_is_still_written():
    program = (
        "import threading\n"
        "from trainer.running import signals\n"
        "is_heard = threading.Event()\n"
        "with signals.listening(lambda name: is_heard.set()):\n"
        "    print('ready', flush=True)\n"
        "    is_heard.wait(300)\n"
        "    print('still here', flush=True)\n"
        "    raise SystemExit(7)\n"
    )
    terminal, end = pty.openpty()
    # The terminal controls no session, so that the one SIGHUP is the one sent below.
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=processes.ROOT,
        stdout=end,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.close(end)
    # An unbuffered Python writes the line and its end one after the other.
    written = b""
    while not written.endswith(b"\n"):
        written += os.read(terminal, 100)
    assert written.startswith(b"ready")
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 7, said


def _run(program):
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


_COMMAND = """
import contextlib, os, signal, threading
from trainer import flags, main
from trainer.remote import mirrors

def wait(*_):
    os.kill(os.getpid(), signal.{name})
    threading.Event().wait(300)

@contextlib.contextmanager
def session():
    try:
        yield
    finally:
        wait()

{function} = {replacement}
main.main(["--mode=report", "--model_dir=nowhere"])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
@pytest.mark.parametrize(
    ("function", "replacement"),
    # Both may take minutes: --watch waits for a run, or files are downloaded, and
    # uploaded.
    [("flags.read_config", "wait"), ("mirrors.session", "session")],
)
def test_a_signal_ends_a_command_in_order_before_its_mode_and_after_it(
    name, function, replacement
):
    result = _run(
        _COMMAND.format(name=name, function=function, replacement=replacement)
    )
    assert result.returncode == errors.Stopped.exit_code, result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_ends_though_another_process_keeps_its_noise():
    """That process has all pipes that were open when it was forked."""
    result = _run(
        "from trainer import main\n"
        "main.main(['--mode=report', '--model_dir=nowhere'], owns_process=True)\n"
    )
    assert result.returncode == errors.CheckpointError.exit_code, result.stderr


def _run_start(body, secs=1):
    return _run(
        "import os, sys, time\n"
        "from trainer.running import stall\n"
        f"with stall.watching_start({secs}):\n{body}"
    )


def test_a_start_that_waits_for_a_pipe_ends(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    result = _run_start(f"    open({str(tmp_path / 'x.png')!r}).read()\n")
    assert result.returncode == errors.StallError.exit_code
    assert "no progress for --stall_timeout=1 seconds" in result.stderr
    assert 'File "<string>", line 4' in result.stderr


def test_a_start_that_computes_goes_on():
    # For 2.5 seconds in which it is looked at, the most of them asleep.
    body = "    for _ in range(50): sum(range(10**5)); time.sleep(0.05)\n"
    assert _run_start(body).returncode == 0


def test_steps_take_the_place_of_the_start():
    """A process that computes and makes no step ends; one that makes steps does not."""
    body = (
        "    ticks = iter(range(10**9))\n"
        "    with stall.watching(1, lambda: next(ticks), devices=[]):\n"
        "        time.sleep(2)\n"
        "    with stall.watching(1, lambda: 0, devices=['GPU:7']):\n"
        "        while True: sum(range(10000)); time.sleep(0.01)\n"
    )
    result = _run_start(body)
    assert result.returncode == errors.StallError.exit_code
    assert "devices: GPU:7" in result.stderr


def test_a_hanging_tracker_keeps_neither_the_others_nor_the_end():
    program = (
        "import threading\n"
        "from trainer.running import stall\n"
        "from trainer.tracking import fan\n"
        "class Tracker:\n"
        "    run_id = ''\n"
        "    def close(self, status): print('told', status, flush=True)\n"
        "class Hanging(Tracker):\n"
        "    def close(self, status): threading.Event().wait()\n"
        "sent_to = fan.Fan({'hanging': Hanging(), 'other': Tracker()})\n"
        "stall._FAREWELL_SECS = 3\n"
        "with (\n"
        "    stall.calling_before_end(threading.Event().wait),\n"
        "    stall.calling_before_end(lambda: sent_to.close('failed', secs=0.1)),\n"
        "    stall.watching_start(1),\n"
        "):\n"
        "    threading.Event().wait()\n"
    )
    result = _run(program)
    # By the backstop, which takes 10 s, the exit code would be 1.
    assert result.returncode == errors.StallError.exit_code, result.stderr
    assert result.stdout == "told failed\n"
