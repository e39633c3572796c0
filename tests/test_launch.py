"""Scripts and flagfiles do what their comments say."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests.faults import processes
from trainer import flags

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SCRIPTS = sorted((_ROOT / "launch").glob("*.s[hb]*"))
"""Those for bash, and that for Slurm's sbatch."""
_FLAGFILES = sorted((_ROOT / "launch" / "flagfiles").glob("*.flags"))


@pytest.mark.parametrize("path", [*_SCRIPTS, _ROOT / ".ci/run"], ids=lambda p: p.name)
def test_script_parses(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_shellcheck_finds_nothing_in_the_scripts():
    program = pathlib.Path(sys.executable).with_name("shellcheck")
    if not program.exists():
        pytest.skip("shellcheck is not installed: pip install '.[test]'")
    assert {path.name for path in _SCRIPTS} >= {"local.sh", "slurm.sbatch", "worker.sh"}
    done = subprocess.run(
        [str(program), *_SCRIPTS, _ROOT / ".ci/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", _SCRIPTS, ids=lambda p: p.name)
def test_script_holds_no_hyperparameter(path):
    # Those belong into flagfiles; test.sh shortens its run on the command line.
    assert "--learning_rate" not in path.read_text()


@pytest.mark.parametrize("path", _FLAGFILES, ids=lambda p: p.name)
def test_flagfile_makes_a_config(path):
    assert flags.read_config(["--model_dir=x", f"--flagfile={path}"]).remarks == []


@pytest.mark.parametrize("path", _FLAGFILES, ids=lambda p: p.name)
def test_flagfile_says_command_hardware_time_and_result(path):
    head = path.read_text().split("\n--")[0]
    assert f"--flagfile=launch/flagfiles/{path.name}" in head
    assert "Hardware:" in head and "Time:" in head
    assert re.search(r"Result: .*0\.\d|figure is .*0\.\d", head, re.DOTALL)


def test_the_interpreter_is_checked_before_anything_is_made(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/usr/bin/env bash\necho Python 3.8\nexit 1\n")
    fake.chmod(0o755)
    result = subprocess.run(
        ["bash", str(_ROOT / "launch/install.sh")],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(fake), "VENV": str(tmp_path / "v")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "segloop needs Python 3.11 to 3.13" in result.stderr
    assert not (tmp_path / "v").exists()


_PYTHON = """#!/usr/bin/env bash
# Stands for Python: makes an environment, of which it is the Python, and notes it.
case "$*" in
  "-m venv "*)
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo made >>"$3/notes" ;;
  "-m pip --version") ;;
  "-m pip install "*) exit {installing} ;;
  "-m pip show "*) exit {showing} ;;
  "-m trainer.main "*) echo "trained $3" ;;
esac
"""


def _write_python(path, installing=0, showing=0):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(_PYTHON.format(installing=installing, showing=showing))
    path.chmod(0o755)


def _run_with(folder, script):
    return subprocess.run(
        ["bash", str(_ROOT / "launch" / script)],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHON": str(folder / "python"),
            "VENV": str(folder / "venv"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_environment_that_was_not_finished_is_made_again(tmp_path):
    venv, program = tmp_path / "venv", tmp_path / "venv/bin/python"
    _write_python(tmp_path / "python")
    assert _run_with(tmp_path, "install.sh").returncode == 0
    # A second time it is there.
    assert _run_with(tmp_path, "install.sh").returncode == 0
    assert (venv / "notes").read_text() == "made\n"
    # As venv leaves it that does not get to its last step: "No module named pip".
    program.write_text("#!/bin/sh\nexit 1\n")
    assert _run_with(tmp_path, "install.sh").returncode == 0
    assert (venv / "notes").read_text() == "made\nmade\n"


@pytest.mark.parametrize(
    ("installing", "showing", "code"), [(0, 1, 0), (1, 0, 0), (1, 1, 1)]
)
def test_quickstart_goes_on_without_a_network(tmp_path, installing, showing, code):
    """With what is there, if anything is."""
    for name in ("python", "venv/bin/python"):
        _write_python(tmp_path / name, installing, showing)
    done = _run_with(tmp_path, "quickstart.sh")
    assert done.returncode == code
    flagfile = "--flagfile=launch/flagfiles/quickstart.flags"
    assert done.stdout == ("" if code else f"trained {flagfile}\n")
    assert ("Warning: launch/install.sh failed" in done.stderr) == (
        (installing, code) == (1, 0)
    )


def _pins(name: str) -> dict[str, str]:
    """Returns the versions of a file of constraints."""
    text = (_ROOT / "launch" / name).read_text()
    return dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))


def _floors() -> dict[str, str]:
    """Returns the lowest versions that setup.py allows."""
    text = (_ROOT / "setup.py").read_text()
    return dict(re.findall(r'"([\w-]+)(?:\[[\w-]+\])?>=([\w.]+)', text))


def test_every_dependency_has_a_tested_version():
    assert len(_floors()) > 10
    assert _floors().keys() <= _pins("constraints.txt").keys()


def test_lowest_versions_are_those_that_tests_run_with():
    assert _floors() == _pins("constraints-lowest.txt")


def test_lowest_python_is_the_same_everywhere():
    setup, install, readme, style = (
        (_ROOT / name).read_text()
        for name in ("setup.py", "launch/install.sh", "README.md", "pyproject.toml")
    )
    minor = re.search(r'python_requires=">=3\.(\d+)"', setup)[1]
    assert f"(3, {minor}) <= sys.version_info" in install
    assert f"Python 3.{minor} to 3.13" in install and f"3.{minor} to 3.13" in readme
    assert f'target-version = "py3{minor}"' in style


def test_readme_names_the_lowest_tensorflow():
    named = re.search(
        r"TensorFlow (\d+\.\d+) or newer", (_ROOT / "README.md").read_text()
    )
    assert _pins("constraints-lowest.txt")["tensorflow"].startswith(named[1])


def test_a_cross_section_is_run_with_the_lowest_versions():
    text = (_ROOT / "launch" / "test.sh").read_text()
    assert "CONSTRAINTS=launch/constraints-lowest.txt" in text
    assert "-m cross_section" in text
    marked = sum(
        path.read_text().count("pytest.mark.cross_section")
        for path in (_ROOT / "tests").glob("test_*.py")
        if path != pathlib.Path(__file__)
    )
    assert marked > 10


_STAND_IN = """#!/usr/bin/env bash
# Stands for Python: gives addresses, or is a worker that does what its number says.
PATH="${{PATH#*:}}"
if [ "$1" = - ]; then
  {addressing}
  exec {python} "$@"
fi
index="${{TF_CONFIG##*index\\\": }}"
index="${{index%%\\}}*}}"
echo $$ >"{folder}/worker-$index"
echo "start $index" >>"{folder}/starts"
run="$(grep -c "start $index" "{folder}/starts")"
{body}
"""


_TIMER = """#!/usr/bin/env bash
# Stands for the `sleep` of the script: the time is over when the test says so.
PATH="${{PATH#*:}}"
echo "$1" >>"{folder}/timers"
until rm "{folder}/time-is-over" 2>/dev/null; do sleep 0.02; done
"""


def _start_local(folder, body, *, count=("3",), addressing=":", **environment):
    """Starts `launch/local.sh` with workers, and a clock, that stand in for real ones.

    What is in `addressing` is done before the workers' addresses are looked for.
    No time of the script is over before `_let_time_pass`.
    """
    for name, text in (("python", _STAND_IN), ("sleep", _TIMER)):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        text = text.format(
            python=sys.executable, folder=folder, body=body, addressing=addressing
        )
        program.write_text(text)
        program.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(_ROOT / "launch" / "local.sh"), *count, "--flag=a b"],
        env={
            **os.environ,
            "PATH": path,
            "VENV": str(folder),
            "GRACE_SECS": "7",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    try:
        output, errors = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output + errors


def _pid(folder, worker):
    """Returns the process id of a worker; 0: it has not begun."""
    file = folder / f"worker-{worker}"
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else 0


def _wait_for(folder, process, *, ended=(), stopped=()):
    """Waits until the script knows which workers have ended, and others are stopped."""
    processes.wait_for(
        lambda: (
            not any(_is_there(folder, worker) for worker in ended)
            and all(processes.is_stopped(_pid(folder, worker)) for worker in stopped)
        ),
        process,
    )


def _is_there(folder, worker):
    pid = _pid(folder, worker)
    return not pid or pathlib.Path(f"/proc/{pid}").exists()


def _let_time_pass(folder, process, secs):
    """Ends the first time that the script gives workers to end."""
    file = folder / "timers"
    processes.wait_for(lambda: file.exists() and file.read_text(), process)
    assert file.read_text() == f"{secs}\n"
    (folder / "time-is-over").touch()


_WAIT_FOR_ALL = (
    "[ $run = 1 ] || exit 0\n"
    "until [ $(grep -c start {folder}/starts) = 3 ]; do sleep 0.02; done\n"
)
"""In the first start, until all have begun."""


def test_a_worker_that_hangs_once_another_failed_is_killed(tmp_path):
    body = _WAIT_FOR_ALL.format(folder=tmp_path)
    body += "[ $index = 0 ] && exit 75\nkill -STOP $$\nsleep 600"
    process = _start_local(tmp_path, body)
    _wait_for(tmp_path, process, ended=[0], stopped=[1, 2])
    _let_time_pass(tmp_path, process, 7)
    code, errors = _finish(process)
    assert code == 0
    assert "Killing 2 workers that do not end" in errors
    assert "Killed" not in errors  # As bash would say of each.
    assert "Worker 0 ended with code 75; starting all again" in errors
    starts = (tmp_path / "starts").read_text().split("\n")
    assert sorted(starts)[1:] == [f"start {i}" for i in (0, 0, 1, 1, 2, 2)]


def test_a_worker_that_hangs_once_the_others_are_done_is_killed(tmp_path):
    """In ten times the time: the chief still draws and writes."""
    body = _WAIT_FOR_ALL.format(folder=tmp_path)
    process = _start_local(tmp_path, f"{body}[ $index = 0 ] || exit 0\nkill -STOP $$")
    _wait_for(tmp_path, process, ended=[1, 2], stopped=[0])
    _let_time_pass(tmp_path, process, 70)
    code, errors = _finish(process)
    assert (code, "starting all again" in errors) == (0, True)


@pytest.mark.parametrize("mistake", [1, 6])
def test_a_mistake_ends_all_at_once_and_is_shown(tmp_path, mistake):
    body = (
        "echo $index says $*\n"
        f"[ $index = 1 ] && echo Error: no such file >&2 && exit {mistake}\n"
        "exec sleep 600"
    )
    logs = tmp_path / "logs"
    code, output = _finish(_start_local(tmp_path, body, LOG_DIR=str(logs)))
    assert code == mistake
    assert "again" not in output
    assert f"Worker 1 failed first, with code {mistake}; the end of {logs}" in output
    assert "\n    Error: no such file\n" in output
    # Each worker's lines are shown, and kept.
    assert "[1] Error: no such file\n" in output
    says = "1 says -m trainer.main --distribution_strategy=multi_worker_mirrored"
    assert f"[1] {says} --flag=a b\n" in output
    assert (logs / "worker-1.log").read_text().startswith(says)


def test_one_supervised_worker_is_no_cluster(tmp_path):
    body = 'echo "$TF_CONFIG; $*"; [ -e {0} ] || (touch {0}; exit 137)'
    process = _start_local(tmp_path, body.format(tmp_path / "begun"), count=("1",))
    code, output = _finish(process)
    assert (code, output.count("starting all again")) == (0, 1)
    assert output.count("[0] ; -m trainer.main --flag=a b\n") == 2


def test_without_a_number_it_becomes_the_one_process(tmp_path):
    process = _start_local(tmp_path, 'echo "$$; $*"; exit 70', count=())
    code, output = _finish(process)
    assert (code, output) == (70, f"{process.pid}; -m trainer.main --flag=a b\n")


@pytest.mark.parametrize(
    ("count", "environment", "message"),
    [
        ("0", {}, "Error: 0 workers; say 1 or more, or leave"),
        ("00", {}, "Error: 0 workers; say 1 or more, or leave"),
        ("2", {"MAX_RESTARTS": "ten"}, "Error: MAX_RESTARTS=ten: give a whole number."),
        ("2", {"GRACE_SECS": "1m"}, "Error: GRACE_SECS=1m: give whole seconds."),
    ],
)
def test_numbers_that_cannot_work_are_refused(tmp_path, count, environment, message):
    process = _start_local(tmp_path, "exit 0", count=(count,), **environment)
    code, output = _finish(process)
    assert (code, message in output) == (2, True)
    assert not (tmp_path / "starts").exists()


def test_a_number_may_begin_with_zeros(tmp_path):
    assert _finish(_start_local(tmp_path, "exit 0", count=("08",)))[0] == 0
    assert (tmp_path / "starts").read_text().count("start") == 8


def test_in_the_end_it_gives_up(tmp_path):
    code, errors = _finish(_start_local(tmp_path, "exit 70", MAX_RESTARTS="1"))
    assert code == 70
    assert "Given up after 1 restarts" in errors


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
)
def test_signals_are_passed_on_and_who_does_not_listen_is_killed(tmp_path, number):
    body = (
        "[ $index = 2 ] && kill -STOP $$\n"
        "trap 'kill $!; exit 143' TERM\n"
        f"touch {tmp_path}/ready-$index\n"
        "sleep 600 & wait"
    )
    process = _start_local(tmp_path, body)
    files = [tmp_path / name for name in ("ready-0", "ready-1")]
    processes.wait_for(lambda: all(file.exists() for file in files), process)
    _wait_for(tmp_path, process, stopped=[2])
    process.send_signal(number)
    _wait_for(tmp_path, process, ended=[0, 1])

    def is_killed():
        # Again and again: who ends by itself gives the others the time anew.
        (tmp_path / "time-is-over").touch()
        return not _is_there(tmp_path, 2)

    processes.wait_for(is_killed, process)
    code, errors = _finish(process)
    assert code == 143
    assert "Killing 1 workers" in errors


def test_a_stop_before_there_are_workers_starts_none(tmp_path):
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    process = _start_local(
        tmp_path,
        "exit 0",
        addressing=f"touch {asked}; until [ -e {answer} ]; do sleep 0.02; done",
    )
    processes.wait_for(asked.exists, process)
    process.send_signal(signal.SIGTERM)
    answer.touch()
    assert _finish(process)[0] == 143
    assert not (tmp_path / "starts").exists()


def test_a_stop_while_workers_are_started_reaches_all_of_them(tmp_path):
    logs, held = tmp_path / "logs", tmp_path / "held"
    logs.mkdir()
    # The script opens it before it starts the second worker, and waits for a reader.
    os.mkfifo(logs / "worker-1.log")
    body = f"echo; sleep 30 & wait $! && touch {tmp_path}/missed-$index"
    process = _start_local(tmp_path, body, LOG_DIR=str(logs))
    processes.wait_for(lambda: _pid(tmp_path, 0), process)
    process.send_signal(signal.SIGTERM)
    # The worker gets a file: `tail` waits at a pipe whose writer has ended already.
    (logs / "worker-1.log").rename(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    assert _finish(process)[0] == 143
    os.close(reader)
    assert list(tmp_path.glob("missed-*")) == []


def test_a_script_that_is_killed_has_its_workers_save_and_end(tmp_path):
    body = (
        f"trap 'kill $!; touch {tmp_path}/saved-$index; exit 143' TERM\n"
        f"touch {tmp_path}/ready-$index\n"
        "sleep 600 & wait"
    )
    process = _start_local(tmp_path, body)
    ready = [tmp_path / f"ready-{index}" for index in range(3)]
    try:
        processes.wait_for(lambda: all(path.exists() for path in ready), process)
        process.kill()
        assert _finish(process)[0] == -signal.SIGKILL
        processes.wait_for(
            lambda: not any(_is_there(tmp_path, worker) for worker in range(3))
        )
    finally:
        for pid in filter(None, (_pid(tmp_path, worker) for worker in range(3))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    assert len(list(tmp_path.glob("saved-*"))) == 3
