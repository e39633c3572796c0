"""Several workers of one cluster: two real processes on this host."""

import contextlib
import functools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import shallow
from tests.faults import processes, slurm
from trainer import errors
from trainer.distributing import cluster

_start = functools.partial(processes.start, program="tests.faults.short_program")

_FLAGS = (
    "--distribution_strategy=multi_worker_mirrored",
    "--train_split=validation",
    "--eval_split=validation",
    "--train_epochs=0",
    "--train_steps=10",
    "--log_steps=2",
    "--checkpoint_interval=4",
    "--startup_timeout=60",
    "--cache=memory",
)
_TRAINING = ("--mode=train", "--epochs_between_evals=100000")
"""For a run without evaluations, which saves at its intervals alone."""

_TIMES = ("step", "input", "paused")
"""Of each worker, in the curves."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with weights of the short encoder."""
    folder = tmp_path_factory.mktemp("cluster")
    shallow.write_weights(folder / "encoder.weights.h5")
    return folder


def _addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for opened in sockets:
        opened.close()
    return addresses


def _config(addresses, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def _start_two(folder, model_dir, *flags):
    addresses = _addresses(2)
    return [
        _start(folder, model_dir, *_FLAGS, *flags, TF_CONFIG=_config(addresses, index))
        for index in range(2)
    ]


def _wait_for_log(model_dir, pattern, secs=120):
    _wait_for(pathlib.Path(f"{model_dir}.log"), pattern, secs)


def _wait_for(file, pattern, secs=120):
    """Waits for what a pattern is of to be in a file."""
    text, deadline = "", time.monotonic() + secs
    while not re.search(pattern, text):
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(0.05)
        text = file.read_text(errors="replace") if file.exists() else ""


def test_two_workers_train_as_one_process_and_decode_half_each(folder):
    # The border, of which each picture has another share, is ignored: the Dice of each
    # worker would be another.
    (folder / "border.csv").write_text("body,body\nbackground,rest\nborder,ignore\n")
    flags = ["--loss=ce+0.5*dice", f"--label_map={folder / 'border.csv'}"]
    one, two = folder / "one", folder / "two"
    workers = _start_two(folder, two, *flags)
    of_clusters = ("--distribution_strategy=", "--startup_timeout=")
    flags += [flag for flag in _FLAGS if not flag.startswith(of_clusters)]
    alone = _start(folder, one, *flags)
    for process in (*workers, alone):
        assert processes.finish(process) == 0, processes.read_log(two)[-500:]
    points, expected = processes.read_points(two), processes.read_points(one)
    assert {point["split"] for point in points} == {"train", "eval"}
    for point, other in zip(points, expected, strict=True):
        assert point.pop("split") == other.pop("split")
        assert point["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert point == pytest.approx(other, rel=1e-3, abs=1e-3)
        assert point["loss/dice"] > 0.1
    weights = processes.read_state(two)
    for name, value in processes.read_state(one).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(weights[name], value, rtol=1e-3, atol=1e-4)
    # 40 examples in each of the two splits, half of them on each of the two workers.
    log = processes.read_log(two)
    assert len(re.findall("Decoded 20 of synthetic/validation", log)) == 4
    # One of the two writes.
    assert log.count("Watch the curves") == 1


def _assert_death_ends_the_other(folder, victim):
    """Kills one of two workers; returns the run's folder."""
    model_dir = folder / f"death-{victim}"
    workers = _start_two(folder, model_dir, *_TRAINING, "--train_steps=3000")
    _wait_for_log(model_dir, r"Step 20/3000")
    workers[victim].kill()
    started = time.monotonic()
    assert processes.finish(workers[1 - victim], 90) == errors.PeerError.exit_code
    assert time.monotonic() - started < 60
    assert "Error: Another worker went away" in processes.read_log(model_dir)
    return model_dir


def test_the_death_of_a_worker_ends_the_chief(folder):
    """`test_local_sh_brings_a_run_through_...` restarts after it."""
    _assert_death_ends_the_other(folder, victim=1)


def test_the_death_of_the_chief_ends_the_other_and_a_restart_of_all_resumes(folder):
    model_dir = _assert_death_ends_the_other(folder, victim=0)
    saved = json.loads((processes.newest(model_dir) / "metadata.json").read_text())
    last = saved["step"] + 8
    workers = _start_two(folder, model_dir, *_TRAINING, f"--train_steps={last}")
    for process in workers:
        assert processes.finish(process) == 0
    assert f"Resuming at step {saved['step']} of {last}" in processes.read_log(
        model_dir
    )


def test_a_signal_to_one_worker_stops_both_at_the_same_step(folder):
    target = 1  # Who says it to the chief; that tells all in any case.
    model_dir = folder / "stopped"
    # Device loops of 100 steps; the second begins as soon as the first is reported.
    flags = (
        *_TRAINING,
        "--train_steps=100000",
        "--steps_per_loop=100000",
        "--log_steps=100",
        "--checkpoint_interval=0",
    )
    workers = _start_two(folder, model_dir, *flags)
    _wait_for_log(model_dir, "Step 100/100000")
    workers[target].send_signal(signal.SIGTERM)
    codes = [processes.finish(process, 60) for process in workers]
    assert codes == [errors.Stopped.exit_code] * 2
    steps = re.findall(
        r"Stopped on request at step (\d+)", processes.read_log(model_dir)
    )
    assert len(steps) == 2 and steps[0] == steps[1]
    # Not where a loop ends by itself.
    assert int(steps[0]) > 100 and int(steps[0]) % 100
    assert "stopping after this step" in processes.read_log(model_dir)


def test_two_workers_measure_and_agree_on_the_length_of_a_run(folder):
    model_dir = folder / "budget"
    without = ("--train_epochs=", "--train_steps=", "--mode=")
    flags = [flag for flag in (*_FLAGS, *_TRAINING) if not flag.startswith(without)]
    addresses = _addresses(2)
    workers = [
        _start(
            folder,
            model_dir,
            *flags,
            "--mode=train",
            "--time_budget=2m",
            TF_CONFIG=_config(addresses, index),
        )
        for index in range(2)
    ]
    _wait_for_log(model_dir, r"Step \d+/\d+")
    workers[0].send_signal(signal.SIGTERM)
    for process in workers:
        assert processes.finish(process) == errors.Stopped.exit_code
    num_steps = json.loads((model_dir / "length.json").read_text())["num_steps"]
    log = processes.read_log(model_dir)
    assert log.count(f"--time_budget=2m: {num_steps} steps, ") == 2
    assert set(re.findall(r"Step \d+/(\d+)", log)) == {str(num_steps)}


def test_a_worker_that_is_slow_or_stopped_is_named(folder):
    model_dir = folder / "slow"
    addresses = _addresses(2)
    flags = (*_FLAGS, *_TRAINING, "--cache=none", "--train_steps=5000")
    flags = (*flags, "--checkpoint_interval=0")
    workers = [
        _start(
            folder,
            model_dir,
            *flags,
            TF_CONFIG=_config(addresses, index),
            # Four pictures of each batch are drawn here.
            **({"SECS_PER_EXAMPLE": "0.1"} if index else {}),
        )
        for index in range(2)
    ]
    named = r"Worker {} on \S+ keeps the others waiting: .*Of these, {}"
    own_input = named.format(1, r"it waits (\d{2,}) ms for its input; look at the disk")
    _wait_for_log(model_dir, own_input)
    paused = named.format(0, r"for (\d{3,}) ms its process does not run; look at what")
    for _ in range(20):  # What hits the chief between two calls is in no step.
        if re.search(paused, processes.read_log(model_dir)):
            break
        for number in (signal.SIGSTOP, signal.SIGCONT):
            workers[0].send_signal(number)
            time.sleep(1)  # The pause that is to be measured, and the report of it.
    else:
        pytest.fail(processes.read_log(model_dir)[-2000:])
    workers[0].send_signal(signal.SIGTERM)
    for process in workers:
        assert processes.finish(process) == errors.Stopped.exit_code
    # The curves of the reports that named them; others depend on the machine.
    log = processes.read_log(model_dir)
    for worker, delay, pattern in ((1, "input", own_input), (0, "paused", paused)):
        ms = _worker_times(model_dir, f"{worker} {delay}", re.search(pattern, log)[1])
        assert ms.keys() == {f"{w} {n}" for w in (0, 1) for n in _TIMES}
        delays = [ms[f"{index} input"] + ms[f"{index} paused"] for index in range(2)]
        assert delays[worker] > delays[1 - worker]
        assert all(ms[f"{index} step"] >= ms[f"{index} input"] > 0 for index in (0, 1))


def _worker_times(model_dir, name, rounded):
    """Returns all workers' times in ms, of the first report where one is as given."""
    for line in (model_dir / "metrics.jsonl").read_text().splitlines():
        found = re.findall(r'"workers/(\d)-[^/"]+/(\w+)_ms": ([\d.e-]+)', line)
        ms = {f"{index} {kind}": float(value) for index, kind, value in found}
        if f"{ms.get(name, -1):.0f}" == rounded:
            return ms
    pytest.fail(f"No report has {name} of {rounded} ms.")


def test_a_missing_worker_ends_the_start_with_its_address(folder):
    addresses = _addresses(2)
    model_dir = folder / "missing"
    process = _start(
        folder,
        model_dir,
        *_FLAGS,
        "--startup_timeout=2",
        TF_CONFIG=_config(addresses, 0),
    )
    assert processes.finish(process) == errors.PeerError.exit_code
    assert re.search(
        f"Error: Worker {addresses[1]} did not come within --startup_timeout=2",
        processes.read_log(model_dir),
    )


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("--seed=1", "--seed is 0 on worker 0, 1 on worker 1; start all workers with"),
        ("--label_map={folder}/map.csv", "the classes is .*; give all workers the sam"),
    ],
)
def test_workers_that_do_not_agree_all_end_and_name_the_setting(folder, own, message):
    (folder / "map.csv").write_text("body,pet\nbackground,rest\nborder,rest\n")
    model_dir = folder / f"agree-{own[2:7]}"
    addresses = _addresses(2)
    workers = [
        _start(folder, model_dir, *_FLAGS, *flags, TF_CONFIG=_config(addresses, index))
        for index, flags in enumerate([(), (own.format(folder=folder),)])
    ]
    assert [processes.finish(w) for w in workers] == [errors.ConfigError.exit_code] * 2
    log = processes.read_log(model_dir)
    assert len(re.findall(f"Error: The workers do not agree: {message}", log)) == 2


_SHORT = r"""#!/usr/bin/env bash
# Stands for Python: with the short encoder, and its number beside its model dir.
if [ "$1" = - ]; then exec {python} "$@"; fi
index="${{TF_CONFIG##*index\": }}"
echo $$ >"{folder}/pid-${{index%%\}}*}}"
shift 2
exec {python} -m tests.faults.short_program "$@"
"""


@pytest.fixture(scope="module")
def launched(folder):
    """Returns the flags of a launched run, and its fingerprint if undisturbed."""
    program = folder / "bin" / "python"
    program.parent.mkdir()
    program.write_text(_SHORT.format(python=sys.executable, folder=folder))
    program.chmod(0o755)
    flags = [flag for flag in _FLAGS if "distribution" not in flag]
    flags = (*flags, *_TRAINING, "--train_steps=60", "--deterministic")
    model_dir = folder / "undisturbed"
    with _started_locally(folder, model_dir, flags) as supervisor:
        assert processes.finish(supervisor) == 0
    return flags, processes.fingerprint(model_dir)


def _start_script(folder, model_dir, command, flags, **environment):
    flags = (
        *processes.SMALL,
        *flags,
        f"--encoder_weights={folder / 'encoder.weights.h5'}",
        f"--model_dir={model_dir}",
    )
    with open(f"{model_dir}.log", "wb") as log:
        return subprocess.Popen(
            [*command, *flags],
            cwd=processes.ROOT,
            env={**os.environ, "VENV": str(folder), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@contextlib.contextmanager
def _started_locally(folder, model_dir, flags):
    """Starts `launch/local.sh`; a test that fails leaves nothing that starts again."""
    command = ["bash", "launch/local.sh", "2"]
    process = _start_script(folder, model_dir, command, flags, GRACE_SECS="2")
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_local_sh_brings_a_run_through_a_worker_killed_and_one_stopped(
    folder, launched
):
    flags, expected = launched
    model_dir = folder / "local"
    # So that the other worker has waited enough for the one that is stopped.
    flags = (*flags, "--stall_timeout=20")
    with _started_locally(folder, model_dir, flags) as supervisor:
        _wait_for_log(model_dir, r"Step 20/60")
        os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)
        _wait_for_log(model_dir, r"Resuming at step (?s:.*)Step 3\d/60")
        os.kill(int((folder / "pid-0").read_text()), signal.SIGSTOP)
        assert processes.finish(supervisor) == 0
    log = processes.read_log(model_dir)
    assert log.count("starting all again") >= 2
    assert processes.fingerprint(model_dir) == expected


def test_a_job_of_slurm_comes_back_after_a_death_and_after_its_time(folder, launched):
    flags, expected = launched
    model_dir, logs = folder / "slurm", folder / "slurm-logs"
    stand_in = folder / "stand-in"
    options = ["--ntasks-per-node=2", "launch/slurm.sbatch"]
    job = _start_script(
        folder,
        model_dir,
        [str(stand_in / "bin" / "sbatch"), *options],
        flags,
        **slurm.install(stand_in),
        LOG_DIR=str(logs),
        STAND_IN_JOB_ID=str(os.getpid()),  # From which ports follow.
    )
    log = logs / "worker-0.log"
    try:
        _wait_for(log, r"Step 20/60")
        os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)
        _wait_for(log, r"Resuming at step (?s:.*)Step 3\d/60")
        slurm.signal_tasks(stand_in, signal.SIGUSR1)
        assert processes.finish(job) == 0
    finally:
        job.kill()
        with contextlib.suppress(ProcessLookupError):
            slurm.signal_tasks(stand_in, signal.SIGKILL)
    output = (stand_in / f"slurm-{os.getpid()}.out").read_text()
    assert "Requeueing the job after code 137" in output
    assert "Saved on request; requeueing the job" in output
    assert processes.fingerprint(model_dir) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "needs TF_CONFIG, or a Slurm job step.*launch/local.sh 2"),
        ("{", "TF_CONFIG={: not a JSON object"),
        (
            '{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}',
            "the jobs ps, worker; Keras",
        ),
    ],
)
def test_a_cluster_that_cannot_work_is_named(monkeypatch, value, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(errors.ConfigError, match=message):
        cluster.resolve()


def test_slurm_names_the_workers_on_hosts_without_gpus(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "2")
    for index in range(2):
        monkeypatch.setenv("SLURM_PROCID", str(index))
        resolver = cluster.resolve()
        addresses = resolver.cluster_spec().job_tasks("worker")
        assert addresses == ["localhost:8888", "localhost:8889"]
        assert (resolver.task_type, resolver.task_id) == ("worker", index)


def test_one_process_is_a_cluster_of_its_own():
    strategy = tf.distribute.get_strategy()
    assert (cluster.num_workers(strategy), cluster.worker_index(strategy)) == (1, 0)
