"""`launch/slurm.sbatch`: what becomes of a job, by the exit codes of its tasks."""

import os
import pathlib
import signal
import subprocess

import pytest

from tests.faults import processes, slurm

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_SCRIPT = _ROOT / "launch" / "slurm.sbatch"

_WORKER = """#!/usr/bin/env bash
# Stands for Python: a worker that does what its number says.
index="$SLURM_PROCID"
echo "start $index: $*"
echo "$index" >>"{folder}/starts"
run="$(grep -c "$index" "{folder}/starts")"
{body}
"""


def _submit(folder, body, *options, cwd=_ROOT, **environment):
    """Starts a job of two tasks that stand in for workers."""
    found = slurm.install(folder)
    program = folder / "bin" / "python"
    program.write_text(_WORKER.format(folder=folder, body=body))
    program.chmod(0o755)
    command = ["--nodes=1", "--ntasks-per-node=2", *options, str(_SCRIPT), "--flag=a b"]
    return subprocess.Popen(
        [str(folder / "bin" / "sbatch"), *command],
        cwd=cwd,
        env={
            **os.environ,
            **found,
            "VENV": str(folder),
            "LOG_DIR": str(folder / "logs"),
            "GRACE_SECS": "600",
            **environment,
        },
    )


def _finish(folder, process):
    """Returns the job's exit code, its output and how often it was requeued."""
    code = processes.finish(process)
    requeues = [c for c in slurm.calls(folder, "scontrol") if c.startswith("requeue")]
    return code, (folder / "slurm-7.out").read_text(), len(requeues)


def test_a_job_that_succeeds_has_a_log_for_each_worker(tmp_path):
    job = _submit(tmp_path, "exit 0")
    assert _finish(tmp_path, job) == (0, "", 0)
    for index in range(2):
        log = (tmp_path / "logs" / f"worker-{index}.log").read_text()
        assert f"start {index}: -m trainer.main --distribution_strategy=" in log
        assert log.endswith("--flag=a b\n")
    assert slurm.calls(tmp_path, "srun")[0].startswith("--distribution=block ")


def test_a_mistake_of_one_worker_ends_the_job_and_is_shown(tmp_path):
    body = '[ $index = 0 ] && exec sleep 600\necho "Error: photo.jpg"\nexit 5'
    job = _submit(tmp_path, body, GRACE_SECS="1")
    code, output, requeues = _finish(tmp_path, job)
    assert (code, requeues) == (5, 0)
    assert "Worker 1 on " in output and "failed first, with code 5" in output
    assert "    Error: photo.jpg\n" in output


def test_a_failure_brings_the_job_back_for_some_times(tmp_path):
    body = "[ $index = 0 ] && exit 75\necho killed; kill -KILL $$"
    code, output, requeues = _finish(
        tmp_path, _submit(tmp_path, body, MAX_RESTARTS="2")
    )
    assert (code, requeues) == (137, 2)
    assert output.count("Requeueing the job after code 137") == 2
    assert output.endswith("Given up after 2 restarts.\n")


def test_failures_count_from_the_last_stop_on_request_on(tmp_path):
    # Fails, is stopped, fails, succeeds.
    body = "case $run in 1 | 3) exit 70 ;; 2) exit 143 ;; esac"
    code, output, requeues = _finish(
        tmp_path, _submit(tmp_path, body, MAX_RESTARTS="1")
    )
    assert (code, requeues) == (0, 3)
    assert output.count("Saved on request; requeueing the job.") == 1


def test_failures_of_an_older_job_do_not_count(tmp_path):
    codes = []
    for number, body in (("6", "exit 70"), ("7", "[ $run = 2 ] || exit 70")):
        folder = tmp_path / number
        folder.mkdir()
        environment = {"STAND_IN_JOB_ID": number, "MAX_RESTARTS": "1"}
        job = _submit(folder, body, LOG_DIR=str(tmp_path / "logs"), **environment)
        codes.append(processes.finish(job))
    # The first gives up after two failures; the second has one.
    assert codes == [70, 0]


def _wait_until_ready(folder, job):
    files = [folder / f"ready-{index}" for index in range(2)]
    processes.wait_for(lambda: all(file.exists() for file in files), job)


_SAVES = (
    "trap 'kill $!; exit 143' USR1 TERM\n"
    "[ $run = 1 ] || exit 0\n"
    "sleep 600 & touch {folder}/ready-$index; wait"
)


def test_before_the_time_limit_tasks_save_and_the_job_comes_back(tmp_path):
    job = _submit(tmp_path, _SAVES.format(folder=tmp_path))
    _wait_until_ready(tmp_path, job)
    # As the script asks for: to all processes of the tasks, and not to the script.
    assert "#SBATCH --signal=USR1@120\n" in _SCRIPT.read_text()
    slurm.signal_tasks(tmp_path, signal.SIGUSR1)
    code, output, requeues = _finish(tmp_path, job)
    assert (code, requeues) == (0, 1)
    assert output == "Saved on request; requeueing the job.\n"


def test_a_job_that_is_cancelled_does_not_come_back(tmp_path):
    job = _submit(tmp_path, _SAVES.format(folder=tmp_path))
    _wait_until_ready(tmp_path, job)
    os.kill(int((tmp_path / "batch").read_text()), signal.SIGTERM)
    slurm.signal_tasks(tmp_path, signal.SIGTERM)
    code, output, requeues = _finish(tmp_path, job)
    assert (code, requeues) == (143, 0)
    assert output.startswith("Cancelled; the same command goes on")


def test_the_repository_is_where_the_job_was_submitted(tmp_path):
    code, output, _ = _finish(tmp_path, _submit(tmp_path, "exit 0", cwd=tmp_path))
    assert code == 2
    assert (
        output
        == f"Error: {tmp_path} is not the repository's folder; run sbatch there.\n"
    )


@pytest.mark.parametrize(
    ("names", "hosts"),
    [
        ("a,b-1", ["a", "b-1"]),
        ("n[08-10,2]", ["n08", "n09", "n10", "n2"]),
        ("r[1-2]n[1,3],x", ["r1n1", "r1n3", "r2n1", "r2n3", "x"]),
    ],
)
def test_the_stand_in_expands_names_as_slurm_does(names, hosts):
    assert slurm.expand(names) == hosts
