"""What a process starts ends with it, and ends it by nothing but its own failure."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.faults import processes
from trainer import children, errors


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


_PARENT = """
import sys
from trainer import children, main
from trainer.running import signals

sys.path.append(sys.argv[1])
with signals.listening(main._exit_on_signal):
    children.run("waiting", [sys.argv[2]])
    sys.exit(9)  # As if the child had failed.
"""

_WAITING = """
import os, pathlib, threading

def main(arguments):
    path = pathlib.Path(arguments[0])
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    threading.Event().wait()
"""


@pytest.fixture(name="family")
def _family(tmp_path):
    """Returns a process that waits for a child, and the id of the child."""
    (tmp_path / "waiting.py").write_text(_WAITING)
    path = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path), str(path)],
        cwd=processes.ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # As a terminal has one for what it starts.
    )
    processes.wait_for(path.exists, parent)
    child = int(path.read_text())
    yield parent, child
    for pid in (parent.pid, child):  # As after a test that failed.
        if not _has_ended(pid):
            os.kill(pid, signal.SIGKILL)


def _has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _read_blocked(pid):
    """Returns the signals that a process does not take."""
    with open(f"/proc/{pid}/status") as file:
        mask = int(re.search(r"SigBlk:\s*(\w+)", file.read())[1], 16)
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"])
def test_a_signal_to_all_ends_both_with_the_code_of_the_parent(family, name):
    parent, child = family
    number = getattr(signal, name)
    assert number in _read_blocked(child)  # It must not seem to have failed.
    os.killpg(parent.pid, number)
    assert processes.finish(parent) == errors.Stopped.exit_code
    processes.wait_for(lambda: _has_ended(child))


def test_a_killed_process_takes_its_child_with_it(family):
    parent, child = family
    parent.kill()
    assert processes.finish(parent) == -signal.SIGKILL
    processes.wait_for(lambda: _has_ended(child))


def _run(tmp_path, monkeypatch, body, *arguments, environment=None):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (tmp_path / "some_child.py").write_text(
        f"import os, sys, time\ndef main(arguments):\n{lines}"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return children.run("some_child", arguments, environment)


def test_what_a_child_says_and_how_it_ends_is_known(tmp_path, monkeypatch):
    (tmp_path / "trainer.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRST", "1")
    body = (
        "print(arguments, os.environ['FIRST'] + os.environ['SECOND'], flush=True)\n"
        "print(repr(sys.stdin.read()), file=sys.stderr)\n"
        "sys.exit(3)"
    )
    done = _run(tmp_path, monkeypatch, body, "a b", environment={"SECOND": "2"})
    assert done == (3, "['a b'] 12\n''\n")
    assert children._living == set()
    done = _run(tmp_path, monkeypatch, "os.kill(os.getpid(), 9)")
    assert done.code == -signal.SIGKILL


def test_an_error_of_the_parent_leaves_no_child(tmp_path, monkeypatch):
    def fail(child):
        started.append(child.pid)
        raise KeyboardInterrupt

    started = []
    monkeypatch.setattr(subprocess.Popen, "communicate", fail)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, monkeypatch, "time.sleep(600)")
    assert _has_ended(started[0])
    assert children._living == set()


def test_a_process_whose_child_computes_is_at_work(tmp_path):
    """It itself does nothing for longer than a watch allows; see `test_signals`."""
    (tmp_path / "busy.py").write_text(
        "import time\n"
        "def main(arguments):\n"
        "    while time.process_time() < 2: sum(range(10000))\n"
    )
    program = (
        "import sys\n"
        "from trainer import children\n"
        "from trainer.running import stall\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "with stall.watching_start(1):\n"
        "    sys.exit(children.run('busy', []).code)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=processes.ROOT)
    assert processes.finish(parent) == 0
