"""The terminal: no noise of TensorFlow's start, no word lost, colours for people."""

import io
import logging as std_logging
import os
import subprocess
import sys

import pytest
from absl import logging

from trainer import main
from trainer.running import colors, progress

_NOISE = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to "
    b"STDERR\n"
    b"I0000 00:00:1795751742.123456    5218 port.cc:153] oneDNN custom operations.\n"
    b"E0000 00:00:1795751742.123456    5218 cuda_platform.cc:52] failed call to cuInit"
    b": INTERNAL\n"
)
_START = (
    "import os, sys, time\n"
    "from trainer.running import startup_noise\n"
    "noise = startup_noise.keep_back()\n"
    f"os.write(2, {_NOISE!r})\n"
)


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _stderr(program: str) -> str:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", _START + program],
        env={**os.environ, "PYTHONPATH": root},
        stderr=subprocess.PIPE,
        check=False,
        timeout=300,
        start_new_session=True,
    )
    return done.stderr.decode()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("noise.drop()", ""),
        ("os.write(2, b'oneDNN? no end'); noise.drop()", "oneDNN? no end"),
        (
            "import subprocess\n"
            f"child = 'import os; os.write(2, ' + repr({_NOISE!r}) + ')'\n"
            "subprocess.run([sys.executable, '-c', child])\n"
            "noise.drop()",
            "",
        ),
        ("print('a\\nb', file=sys.stderr); noise.drop()", "a\nb\n"),
        (
            "os.write(2, b'F0000 00:00:1.5 7 a.cc:1] Check failed\\n'); noise.drop()",
            "F0000 00:00:1.5 7 a.cc:1] Check failed\n",
        ),
        (
            "os.write(2, b'W0000 00:00:1.5 7 a.cc:1] No memory\\n'); noise.drop()",
            "W0000 00:00:1.5 7 a.cc:1] No memory\n",
        ),
    ],
    ids=["noise", "half a line", "of a child", "python", "fatal", "warning"],
)
def test_noise_alone_is_hidden_of_a_run_that_succeeds(program, expected):
    assert _stderr(program) == expected


def test_a_signal_to_the_whole_group_takes_no_word_away():
    """As Slurm sends it, to all processes of a task."""
    program = (
        "import signal\n"
        "child = open(f'/proc/self/task/{os.getpid()}/children').read().strip()\n"
        "deaf = 0\n"
        "while not deaf & 1:  # Until SIGHUP, the last of those, is ignored.\n"
        "    status = open(f'/proc/{child}/status').read()\n"
        "    deaf = int(status.split('SigIgn:')[1].split()[0], 16)\n"
        "for name in ('SIGTERM', 'SIGUSR1', 'SIGINT', 'SIGHUP'):\n"
        "    number = getattr(signal, name)\n"
        "    signal.signal(number, lambda *_: None)\n"
        "    os.killpg(0, number)\n"
        "os.write(2, b'saved'); noise.drop()"
    )
    assert _stderr(program) == "saved"


@pytest.mark.parametrize(
    "program", ["os.abort()", "os.kill(os.getpid(), 9)", "os._exit(70)"]
)
def test_noise_is_shown_of_a_run_that_dies(program):
    assert _stderr(program).startswith(_NOISE.decode())


def test_an_error_that_nobody_expected_shows_the_noise_and_its_traceback():
    text = _stderr("1 / 0")
    assert _NOISE.decode() in text
    assert "ZeroDivisionError" in text


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (_Screen(), {}, "\x1b[31mno\x1b[0m"),
        (_Screen(), {"NO_COLOR": "1"}, "no"),
        (_Screen(), {"NO_COLOR": ""}, "\x1b[31mno\x1b[0m"),
        (_Screen(), {"TERM": "dumb"}, "no"),
        (io.StringIO(), {}, "no"),
    ],
)
def test_colours_are_for_terminals(monkeypatch, stream, environment, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colors.paint("no", colors.RED, stream) == expected


@pytest.fixture
def verbosity():
    """Lets a test set the verbosity of the log."""
    before = logging.get_verbosity()
    yield logging.set_verbosity
    logging.set_verbosity(before)


def _show_bar(monkeypatch) -> str:
    screen = _Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = progress.Progress(start_step=0, num_steps=40)
    bar.advance(20)
    bar.report(20, loss=0.5, mean_iou=0.25, step_secs=0.1, images_per_sec=80.0)
    bar.close()
    return screen.getvalue()


def test_a_terminal_has_one_live_line(monkeypatch, verbosity):
    verbosity("info")
    text = _show_bar(monkeypatch)
    assert "Step 20/40" in text
    assert "loss 0.500, mean IoU 0.250, 80.0 images/s, " in text
    assert text.count("\n") == 1  # That of the end: the line is written over.


def test_who_wants_warnings_alone_has_no_live_line(monkeypatch, verbosity):
    verbosity("warning")
    assert _show_bar(monkeypatch) == ""


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["of others", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_log_level_says_what_is_logged(verbosity, level, shown):
    handler = logging.get_absl_handler()
    filters, here = list(handler.filters), main.__file__
    try:
        main.set_log_level(level)
        logger = std_logging.getLogger("absl")
        records = [
            logger.makeRecord("absl", number, path, 1, text, (), None)
            for number, path, text in (
                (std_logging.WARNING, "/elsewhere/tensorflow.py", "of others"),
                (std_logging.INFO, here, "info"),
                (std_logging.WARNING, here, "warning"),
                (std_logging.ERROR, here, "error"),
            )
        ]
        passed = [
            r.getMessage()
            for r in records
            if logger.isEnabledFor(r.levelno) and handler.filter(r)
        ]
        assert passed == shown
    finally:
        handler.filters[:] = filters


_ALL_OF_IT = """
import logging, os, sys, types
from trainer import main

def run(config):
    logging.getLogger("absl").warning("This is read by nobody.")
    print("Nor is this.")
    print("Nor this.", file=sys.__stderr__)
    assert not {0, 1, 2} & {os.open(os.devnull, os.O_RDONLY)}
    if config.run.seed:
        raise main.errors.CheckpointError("Nor this.")

main._import_at_once = lambda name: types.SimpleNamespace(run=run)
sys.argv = ["segloop", *sys.argv[1:]]
main.run()
"""
"""The program, with a mode that touches all streams, and needs no TensorFlow."""


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [("--model_dir=x", 0), ("--model_dir=x --seed=1", 3), ("--no_such_flag", 2)],
)
def test_a_stream_that_is_closed_ends_nothing(tmp_path, closed, arguments, code):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {arguments} {closed}']
        + [sys.executable, _ALL_OF_IT],
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=300,
        start_new_session=True,
    )
    assert done.returncode == code
