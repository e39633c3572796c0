"""Scripts and flagfiles do what their comments say."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

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
if [ "$1" = - ]; then exec {python} "$@"; fi
index="${{TF_CONFIG##*index\\\": }}"
index="${{index%%\\}}*}}"
echo $$ >"{folder}/worker-$index"
echo "start $index" >>"{folder}/starts"
run="$(grep -c "start $index" "{folder}/starts")"
{body}
"""


def _start_local(folder, body, *, count=("3",), **environment):
    """Starts `launch/local.sh` with workers that stand in for real ones."""
    program = folder / "bin" / "python"
    program.parent.mkdir()
    program.write_text(
        _STAND_IN.format(python=sys.executable, folder=folder, body=body)
    )
    program.chmod(0o755)
    return subprocess.Popen(
        ["bash", str(_ROOT / "launch" / "local.sh"), *count, "--flag=a b"],
        env={**os.environ, "VENV": str(folder), "GRACE_SECS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    output, errors = process.communicate(timeout=30)
    return process.returncode, output + errors


def test_a_worker_that_hangs_once_another_failed_is_killed(
    tmp_path,
):
    body = "[ $run = 1 ] || exit 0\n[ $index = 0 ] && exit 75\nkill -STOP $$\nsleep 60"
    code, errors = _finish(_start_local(tmp_path, body))
    assert code == 0
    assert "Killing 2 workers that do not end" in errors
    assert "Killed" not in errors  # As bash would say of each.
    assert "Worker 0 ended with code 75; starting all again" in errors
    starts = (tmp_path / "starts").read_text().split("\n")
    assert sorted(starts)[1:] == [f"start {i}" for i in (0, 0, 1, 1, 2, 2)]


def test_a_worker_that_hangs_once_the_others_are_done_is_killed(tmp_path):
    """In ten times the time: the chief still draws and writes."""
    body = "[ $run = 1 ] || exit 0\n[ $index = 0 ] || exit 0\nkill -STOP $$"
    started = time.monotonic()
    code, errors = _finish(_start_local(tmp_path, body))
    assert (code, "starting all again" in errors) == (0, True)
    assert time.monotonic() - started > 9


@pytest.mark.parametrize("mistake", [1, 6])
def test_a_mistake_ends_all_at_once_and_is_shown(tmp_path, mistake):
    body = (
        "echo $index says $*\n"
        f"[ $index = 1 ] && echo Error: no such file >&2 && exit {mistake}\n"
        "exec sleep 60"
    )
    logs = tmp_path / "logs"
    code, output = _finish(
        _start_local(tmp_path, body, GRACE_SECS="60", LOG_DIR=str(logs))
    )
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


def _is_stopped(folder, worker):
    """Tells whether a worker has got SIGSTOP: until then it would heed a signal."""
    try:
        number = int((folder / f"worker-{worker}").read_text())
        state = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2]
    except (OSError, ValueError):  # It has not begun.
        return False
    return state.split()[0] == "T"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
)
def test_signals_are_passed_on_and_who_does_not_listen_is_killed(tmp_path, number):
    body = (
        "[ $index = 2 ] && kill -STOP $$\n"
        "trap 'kill $!; exit 143' TERM\n"
        f"touch {tmp_path}/ready-$index\n"
        "sleep 60 & wait"
    )
    process = _start_local(tmp_path, body)
    deadline = time.monotonic() + 30
    files = [tmp_path / name for name in ("ready-0", "ready-1")]
    while not all(file.exists() for file in files) or not _is_stopped(tmp_path, 2):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    code, errors = _finish(process)
    assert code == 143
    assert "Killing 1 workers" in errors
