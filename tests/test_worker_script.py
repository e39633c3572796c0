"""`launch/worker.sh` finds out which worker of which cluster it is."""

import json
import os
import pathlib
import subprocess

import pytest

from tests import test_membership
from tests.faults import slurm

_ROOT = pathlib.Path(__file__).resolve().parents[1]

_SLURM = {
    "SLURM_JOB_ID": "1283",  # 3 more than twice 640: ports from 12000 + 3 * 32 on.
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "n[08-09,11]x[1]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
_SLURM_WORKERS = [
    "n08x1:12096", "n08x1:12097", "n09x1:12096", "n09x1:12097", "n11x1:12096"
]  # fmt: skip
_KUBERNETES = {
    "JOB_COMPLETION_INDEX": "1",
    "WORKERS": "3",
    "WORKER_HOSTS": "run-{}.run",
}
_KUBERNETES_WORKERS = ["run-0.run:2222", "run-1.run:2222", "run-2.run:2222"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with stand-ins for Slurm, for the GPUs, and for Python."""
    folder = tmp_path_factory.mktemp("worker")
    slurm.install(folder)
    for name, script in (
        ("nvidia-smi", "printf '0\\n1\\n2\\n3\\n4\\n'"),
        ("python", 'echo "$TF_CONFIG"; echo "$CUDA_VISIBLE_DEVICES"; echo "$@"'),
    ):
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return folder


def _run(folder, environment):
    return subprocess.run(
        ["bash", str(_ROOT / "launch/worker.sh"), "--a", "b c"],
        env={
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VENV": str(folder),
            "SLURM_STAND_IN": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("environment", "workers", "index", "gpus"),
    [
        # 5 GPUs, or those named, for 2 tasks: 2 each.
        (_SLURM, _SLURM_WORKERS, 3, "2,3"),
        ({**_SLURM, "CUDA_VISIBLE_DEVICES": "4,5,6,7"}, _SLURM_WORKERS, 3, "6,7"),
        (_KUBERNETES, _KUBERNETES_WORKERS, 1, ""),
        (
            {**_KUBERNETES, "WORKERS": "", "PET_NNODES": "3"},
            _KUBERNETES_WORKERS,
            1,
            "",
        ),
        (
            {**_KUBERNETES, "WORKERS": "2", "WORKER_PORT": "80"},
            ["run-0.run:80", "run-1.run:80"],
            1,
            "",
        ),
    ],
    ids=["slurm", "gpus named", "kubernetes", "kubeflow", "port"],
)
def test_the_cluster_follows_from_the_environment(
    folder, environment, workers, index, gpus
):
    done = _run(folder, environment)
    assert done.returncode == 0, done.stderr
    config, visible, arguments = done.stdout.splitlines()
    task = {"type": "worker", "index": index}
    assert json.loads(config) == {"cluster": {"worker": workers}, "task": task}
    assert visible == gpus
    strategy = "--distribution_strategy=multi_worker_mirrored"
    assert arguments == f"-m trainer.main {strategy} --a b c"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**_SLURM, "SLURM_STEP_NUM_TASKS": "1"},
        {**_KUBERNETES, "WORKERS": "1", "JOB_COMPLETION_INDEX": "0"},
    ],
    ids=["nothing", "one task", "one pod"],
)
def test_one_worker_is_a_run_of_its_own(folder, environment):
    done = _run(folder, environment)
    assert done.stdout.splitlines() == ["", "", "-m trainer.main --a b c"]


def test_no_virtual_environment_is_a_mistake_and_no_failure(folder):
    done = _run(folder, {"VENV": "nowhere"})
    assert done.returncode == 2
    assert "Error: VENV=nowhere: there is no nowhere/bin/python; run" in done.stderr


@pytest.mark.parametrize("variables", test_membership.BOUND)
def test_gpus_that_slurm_has_bound_to_a_task_are_not_shared(folder, variables):
    done = _run(folder, {**_SLURM, **variables, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert (done.stdout.splitlines()[1], done.stderr) == ("0,1", "")


@pytest.mark.parametrize("variables", test_membership.UNBOUND)
def test_gpus_that_slurm_has_not_bound_are_shared(folder, variables):
    done = _run(folder, {**_SLURM, **variables, "CUDA_VISIBLE_DEVICES": "0,1"})
    assert (done.stdout.splitlines()[1], done.stderr) == ("1", "")


def test_a_cluster_that_is_given_counts_before_all_others(folder):
    done = _run(folder, {**_SLURM, **_KUBERNETES, "TF_CONFIG": "{}"})
    assert done.stdout.splitlines()[:2] == ["{}", ""]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {**_KUBERNETES, "WORKERS": ""},
            "Error: WORKERS=: JOB_COMPLETION_INDEX is set",
        ),
        (
            {**_KUBERNETES, "WORKERS": "1"},
            "Error: WORKERS=1, but JOB_COMPLETION_INDEX=1",
        ),
        ({**_KUBERNETES, "WORKER_HOSTS": "run-0"}, "Error: WORKER_HOSTS=run-0: give"),
        (
            {**_SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x3)"},
            "SLURM_STEP_TASKS_PER_NODE=2(x3) make 6 tasks, SLURM_STEP_NUM_TASKS says 5",
        ),
    ],
)
def test_what_contradicts_itself_is_named(folder, environment, message):
    done = _run(folder, environment)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("said", ["No devices were found", "NVIDIA-SMI has failed", ""])
def test_what_nvidia_smi_says_instead_of_a_number_is_no_gpu(folder, tmp_path, said):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{said}, see the manual'\nexit 9\n")
    program.chmod(0o755)
    given = {"TF_CONFIG": "{}", "LOCAL_COUNT": "1", "LOCAL_INDEX": "0"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = _run(folder, {**given, "PATH": path})
    assert (done.stdout.splitlines()[1], done.stderr) == ("", "")


def test_minus_one_is_no_gpu(folder):
    given = {"TF_CONFIG": "{}", "LOCAL_COUNT": "2", "LOCAL_INDEX": "0"}
    done = _run(folder, {**given, "CUDA_VISIBLE_DEVICES": "-1"})
    assert (done.stdout.splitlines()[1], done.stderr) == ("-1", "")


def test_fewer_gpus_than_workers_are_a_warning_of_the_first(folder):
    given = {"TF_CONFIG": "{}", "LOCAL_COUNT": "2", "CUDA_VISIBLE_DEVICES": "3"}
    first, second = (_run(folder, {**given, "LOCAL_INDEX": str(i)}) for i in range(2))
    assert "2 workers on a host of 1 GPUs; start fewer" in first.stderr
    assert second.stderr == ""
    assert first.stdout.splitlines()[1] == "3"
