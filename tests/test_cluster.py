"""Several workers of one cluster: two real processes on this host."""

import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from tests import shallow
from tests.faults import processes, short_program, slurm
from trainer import errors, flags
from trainer.distributing import arrivals, cluster, distribution

_start = functools.partial(processes.start, program="tests.faults.short_program")

_FLAGS = (
    "--distribution_strategy=multi_worker_mirrored",
    "--train_split=validation",
    "--eval_split=validation",
    "--train_epochs=0",
    "--train_steps=10",
    "--log_steps=2",
    "--checkpoint_interval=4",
    "--cache=memory",
)
_TRAINING = ("--mode=train", "--epochs_between_evals=100000")
"""For a run without evaluations, which saves at its intervals alone."""

_LOOP_STEPS = 20000
"""In a minute and more."""
_LOOP = tuple(
    f"--{name}={_LOOP_STEPS}" for name in ("train_steps", "steps_per_loop", "log_steps")
)
"""For a run of one call of the devices."""

_TIMES = ("step", "input", "paused")
"""Of each worker, in the curves."""


@pytest.fixture(autouse=True)
def _leave_nothing_running():
    yield
    processes.kill_started()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with weights of the short encoder."""
    folder = tmp_path_factory.mktemp("cluster")
    shallow.write_weights(folder / "encoder.weights.h5")
    return folder


_FIRST_PORT = 12000 + os.getpid() % 640 * 32
"""Of 32 that no other process takes by chance: below those of Linux' clients, and not
those of tests that run beside. The job of Slurm has the first two."""
_ports = itertools.cycle(range(_FIRST_PORT + 2, _FIRST_PORT + 32))


def _is_free(port):
    with contextlib.suppress(OSError), socket.create_server(("", port)):
        return True
    return False


def _addresses(count):
    free = filter(_is_free, _ports)
    return [f"127.0.0.1:{port}" for port in itertools.islice(free, count)]


def _config(addresses, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def _start_two(folder, model_dir, *flags, of_second=(), **environment):
    """Starts both; the second one has flags, and the environment, of its own."""
    addresses = _addresses(2)
    return [
        _start(
            folder,
            model_dir,
            *_FLAGS,
            *flags,
            *(of_second if index else ()),
            TF_CONFIG=_config(addresses, index),
            **(environment if index else {}),
        )
        for index in range(2)
    ]


def _wait_for_log(model_dir, pattern, *running):
    processes.wait_for(
        lambda: re.search(pattern, processes.read_log(model_dir)), *running
    )


def test_two_workers_train_as_one_process_and_decode_half_each(folder):
    # The border, of which each picture has another share, is ignored: the Dice of each
    # worker would be another.
    (folder / "border.csv").write_text("body,body\nbackground,rest\nborder,ignore\n")
    flags = ["--loss=ce+0.5*dice", f"--label_map={folder / 'border.csv'}"]
    one, two = folder / "one", folder / "two"
    workers = _start_two(folder, two, *flags)
    flags += [flag for flag in _FLAGS if "distribution_strategy" not in flag]
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


def test_the_death_of_the_chief_ends_the_other(folder):
    """That of the other ends the chief in the job of Slurm; restarts are there, too."""
    model_dir = folder / "death"
    workers = _start_two(folder, model_dir, *_TRAINING, "--train_steps=3000")
    _wait_for_log(model_dir, r"Step 20/3000", *workers)
    workers[0].kill()
    # By its own --stall_timeout, much later, it would end with another code.
    assert processes.finish(workers[1]) == errors.PeerError.exit_code
    assert "Error: Another worker went away" in processes.read_log(model_dir)


def test_the_other_is_not_done_before_the_chief_is(folder, monkeypatch):
    """Kubernetes would not start it again, and the chief would wait for it for ever."""
    held = folder / "held-report"
    monkeypatch.setenv("HOLD_REPORT", str(held))
    workers = _start_two(folder, folder / "report", *_TRAINING, "--train_steps=2")
    processes.wait_for(held.exists, *workers)
    workers[0].kill()
    assert processes.finish(workers[1]) == errors.PeerError.exit_code


def test_a_signal_to_one_worker_stops_both_at_the_same_step(folder):
    model_dir = folder / "stopped"
    drawn = folder / "drawn"
    # One call of the devices: they, not Python, see the signal to the second worker,
    # which says it to the chief; that tells all in any case.
    flags = (*_TRAINING, "--checkpoint_interval=0", "--cache=none", *_LOOP)
    workers = _start_two(folder, model_dir, *flags, DRAWN_FILE=str(drawn))
    processes.wait_for(drawn.exists, *workers)
    workers[1].send_signal(signal.SIGTERM)
    codes = [processes.finish(process) for process in workers]
    assert codes == [errors.Stopped.exit_code] * 2
    log = processes.read_log(model_dir)
    steps = re.findall(r"Stopped on request at step (\d+)", log)
    assert len(steps) == 2 and steps[0] == steps[1]
    assert 0 < int(steps[0]) < _LOOP_STEPS
    assert "stopping after this step" in log


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
            "--time_budget=5h",
            TF_CONFIG=_config(addresses, index),
            MEASURING_SECS="0.3",
        )
        for index in range(2)
    ]
    _wait_for_log(model_dir, r"Step \d+/\d+", *workers)
    workers[0].send_signal(signal.SIGTERM)
    for process in workers:
        assert processes.finish(process) == errors.Stopped.exit_code
    num_steps = json.loads((model_dir / "length.json").read_text())["num_steps"]
    log = processes.read_log(model_dir)
    assert log.count(f"--time_budget=5h: {num_steps} steps, ") == 2
    assert set(re.findall(r"Step \d+/(\d+)", log)) == {str(num_steps)}


def _count_reports(model_dir):
    file = model_dir / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def test_a_worker_that_is_slow_or_stopped_is_named(folder):
    model_dir = folder / "slow"
    flags = (*_TRAINING, "--cache=none", "--train_steps=5000")
    flags = (*flags, "--checkpoint_interval=0")
    # Four pictures of each batch are drawn by the second worker.
    workers = _start_two(folder, model_dir, *flags, SECS_PER_EXAMPLE="0.15")
    named = r"Worker {} on \S+ keeps the others waiting: .*Of these, {}"
    own_input = named.format(1, r"it waits (\d{2,}) ms for its input; look at the disk")
    paused = named.format(0, r"for (\d{3,}) ms its process does not run; look at what")
    for number in range(100):
        before = _count_reports(model_dir)
        processes.wait_for(lambda b=before: _count_reports(model_dir) > b + 1, *workers)
        log = processes.read_log(model_dir)
        if re.search(own_input, log) and re.search(paused, log):
            break
        # First without a pause, in which the second worker would read ahead. If that is
        # named for a pause of the machine's, it is not again, for another reason,
        # before the chief is slower.
        if re.search(named.format(1, ""), log):
            time.sleep(0.1 * (number % 5))  # Between two calls, none hits a step.
            workers[0].send_signal(signal.SIGSTOP)
            time.sleep(2)  # The pause that is to be measured.
            workers[0].send_signal(signal.SIGCONT)
    else:
        pytest.fail(processes.read_log(model_dir)[-2000:])
    workers[0].send_signal(signal.SIGTERM)
    for process in workers:
        assert processes.finish(process) == errors.Stopped.exit_code
    # The curves of the reports that named them; others depend on the machine.
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


def _place(address):
    """Returns host and port, as sockets take them."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def _resolver(*addresses):
    """Returns what knows the addresses of a cluster, the first of them its own."""
    spec = tf.train.ClusterSpec({"worker": list(addresses)})
    return types.SimpleNamespace(
        cluster_spec=lambda: spec, task_type="worker", task_id=0
    )


def test_a_missing_worker_ends_the_start_with_its_address(monkeypatch):
    addresses, clock = _addresses(2), itertools.count()
    monkeypatch.setenv("TF_CONFIG", _config(addresses, 0))
    monkeypatch.setattr(
        arrivals,
        "time",
        types.SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda secs: None),
    )
    flags_of_run = ["--model_dir=x", _FLAGS[0], "--startup_timeout=5"]
    config = flags.read_config(flags_of_run).config.runtime
    message = f"Worker {addresses[1]} did not come within --startup_timeout=5 seconds"
    with pytest.raises(errors.PeerError, match=message):
        distribution.create_strategy(config)
    assert next(clock) == 7  # When it came, until six seconds had gone by.


def _need_host(host):
    try:
        socket.create_server(_place(f"{host}:0"), family=_family_of(host)).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")


def _family_of(address):
    return socket.AF_INET6 if address.startswith("[") else socket.AF_INET


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_worker_that_waits_takes_all_who_call(monkeypatch, host):
    """There may be more of them than the kernel lets wait, and some call again."""
    _need_host(host)
    with contextlib.ExitStack() as opened:
        own, other = (a.replace("127.0.0.1", host) for a in _addresses(2))
        callers = []

        def call(_):
            for _ in range(70):
                caller = socket.create_connection(_place(own), timeout=1)
                callers.append(opened.enter_context(caller))
            if len(callers) > 70:
                server = socket.create_server(_place(other), family=_family_of(other))
                opened.enter_context(server)

        monkeypatch.setattr(arrivals.time, "sleep", call)
        arrivals.wait_for_all(_resolver(own, other), timeout_secs=100)
        assert [caller.recv(1) for caller in callers] == [b""] * 140


def test_a_port_that_another_process_has_is_waited_for_and_named(monkeypatch):
    """As by the process of a start before that has still to end."""
    (address,) = _addresses(1)
    port = int(address.rpartition(":")[2])
    other = socket.create_server(("", port))
    monkeypatch.setattr(arrivals.time, "sleep", lambda secs: other.close())
    arrivals.wait_for_all(_resolver(address), timeout_secs=100)
    with (
        socket.create_server(("", port)),
        pytest.raises(
            errors.PeerError, match=f"Port {port} of this worker.*=0 seconds; end that"
        ),
    ):
        arrivals.wait_for_all(_resolver(address), timeout_secs=0)


def test_a_port_that_nobody_may_have_is_a_mistake(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    message = "cannot listen on port 80 .Permission denied.; name another one in TF_C"
    with pytest.raises(errors.ConfigError, match=message):
        arrivals.wait_for_all(_resolver("a:80", "b:80"), timeout_secs=9)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("--seed=1", r"--seed \(0 on worker 0, 1 on worker 1\); start all workers"),
        ("--label_map={folder}/map.csv", r"the classes \(.*\); give all workers the s"),
        (
            "--encoder_weights={folder}/other.weights.h5",
            r"the weights \(.* on worker 1\); give .*, by --encoder_weights and --in",
        ),
    ],
)
def test_workers_that_do_not_agree_all_end_and_name_the_setting(folder, own, message):
    (folder / "map.csv").write_text("body,pet\nbackground,rest\nborder,rest\n")
    shallow.write_weights(folder / "other.weights.h5", seed=4)
    model_dir = folder / f"agree-{own[2:7]}"
    workers = _start_two(folder, model_dir, of_second=[own.format(folder=folder)])
    assert [processes.finish(w) for w in workers] == [errors.ConfigError.exit_code] * 2
    log = processes.read_log(model_dir)
    assert len(re.findall(f"Error: The workers do not agree in {message}", log)) == 2


@pytest.fixture(scope="module")
def scored(folder):
    """Returns the folder of a run with a checkpoint of step 4 and one of step 8."""
    model_dir = folder / "scored"
    flags = [flag for flag in _FLAGS if "distribution" not in flag]
    alone = _start(folder, model_dir, *flags, *_TRAINING, "--train_steps=8")
    assert processes.finish(alone) == 0, processes.read_log(model_dir)[-500:]
    return model_dir


def _evaluate_by_two(folder, model_dir, of_second):
    flags = ("--mode=evaluate", _FLAGS[0], "--nokeep_golden")
    addresses = _addresses(2)
    workers = [
        _start(folder, place, *flags, TF_CONFIG=_config(addresses, index))
        for index, place in enumerate((model_dir, of_second))
    ]
    codes = [processes.finish(worker) for worker in workers]
    return codes, [processes.read_log(place) for place in (model_dir, of_second)]


def test_two_workers_score_the_checkpoint_that_the_chief_has_found(folder, scored):
    """The second one comes later, and finds what a training beside has saved."""
    earlier = shutil.copytree(scored, folder / "earlier")
    shutil.rmtree(processes.newest(earlier))
    codes, logs = _evaluate_by_two(folder, earlier, scored)
    assert codes == [0, 0], logs
    (line,) = (earlier / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 4
    assert "Restored the weights of" in logs[1] and "step-00000004" in logs[1]
    assert not (scored / "evaluations.jsonl").exists()


def test_two_workers_do_not_score_two_checkpoints_as_one(folder, scored):
    other = shutil.copytree(scored, folder / "without-the-newest")
    shutil.rmtree(processes.newest(other))
    codes, logs = _evaluate_by_two(folder, scored, other)
    assert codes == [errors.ConfigError.exit_code] * 2
    message = (
        "Error: The workers do not agree in the step of the model "
        "(8 on worker 0, 4 on worker 1), its weights ("
    )
    assert all(message in log for log in logs)
    assert not (scored / "evaluations.jsonl").exists()


def test_paths_alone_may_differ_from_worker_to_worker(monkeypatch):
    """At a URL, those are of each host's own copy; what lies there is compared."""
    said = []
    monkeypatch.setattr(cluster, "num_workers", lambda _: 2)
    monkeypatch.setattr(
        cluster, "gather", lambda _, text: said.append(json.loads(text)) or [text] * 2
    )
    settings = {"model_dir": "a", "model": "b", "data_dir": "c", "seed": 3}
    cluster.check_settings(tf.distribute.get_strategy(), settings)
    assert said == [{"--seed": 3}]


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
def _started_locally(folder, model_dir, flags, **environment):
    """Starts `launch/local.sh`; a test that fails leaves nothing that starts again."""
    command = ["bash", "launch/local.sh", "2"]
    environment["GRACE_SECS"] = "2"
    process = _start_script(folder, model_dir, command, flags, **environment)
    try:
        yield process
    finally:
        process.terminate()
        processes.finish(process)


def _signal(folder, worker, number):
    """Signals a worker of a launched run; returns its process id."""
    pid = int((folder / f"pid-{worker}").read_text())
    os.kill(pid, number)
    return pid


def test_local_sh_brings_a_run_through_a_worker_killed_and_one_stopped(
    folder, launched
):
    flags, expected = launched
    model_dir = folder / "local"
    flags = (*flags, "--stall_timeout=100")
    hold = short_program.Hold(folder / "hold-local", "20,30")
    with _started_locally(folder, model_dir, flags, **hold.environment) as supervisor:
        processes.wait_for(lambda: hold.is_held(20, 2), supervisor)
        _signal(folder, 1, signal.SIGKILL)
        hold.release(20)
        processes.wait_for(lambda: hold.is_held(30, 2), supervisor)
        chief = _signal(folder, 0, signal.SIGSTOP)
        processes.wait_for(lambda: processes.is_stopped(chief), supervisor)
        # The other worker has soon waited enough for this one.
        hold.release(30, watch_speed=40)
        assert processes.finish(supervisor) == 0
    log = processes.read_log(model_dir)
    assert log.count("starting all again") >= 2
    assert "no progress for --stall_timeout=100 seconds" in log
    assert processes.fingerprint(model_dir) == expected


def test_a_job_of_slurm_comes_back_after_a_death_and_after_its_time(folder, launched):
    flags, expected = launched
    model_dir, logs = folder / "slurm", folder / "slurm-logs"
    stand_in = folder / "stand-in"
    hold = short_program.Hold(folder / "hold-slurm", "20,30")
    options = ["--ntasks-per-node=2", "launch/slurm.sbatch"]
    job = _start_script(
        folder,
        model_dir,
        [str(stand_in / "bin" / "sbatch"), *options],
        flags,
        **slurm.install(stand_in),
        **hold.environment,
        LOG_DIR=str(logs),
        STAND_IN_JOB_ID=str(os.getpid()),  # From which ports follow.
    )
    log = logs / "worker-0.log"
    try:
        processes.wait_for(lambda: hold.is_held(20, 2), job)
        _signal(folder, 1, signal.SIGKILL)
        hold.release(20)
        processes.wait_for(lambda: hold.is_held(30, 2), job)
        slurm.signal_tasks(stand_in, signal.SIGUSR1)
        processes.wait_for(lambda: "SIGUSR1: stopping after" in log.read_text(), job)
        hold.release(30)
        assert processes.finish(job) == 0
    finally:
        job.kill()
        with contextlib.suppress(ProcessLookupError):
            slurm.signal_tasks(stand_in, signal.SIGKILL)
    assert "Error: Another worker went away" in log.read_text()
    output = (stand_in / f"slurm-{os.getpid()}.out").read_text()
    assert "Requeueing the job after code 137" in output
    assert "Saved on request; requeueing the job" in output
    assert processes.fingerprint(model_dir) == expected


def test_one_process_is_a_cluster_of_its_own():
    strategy = tf.distribute.get_strategy()
    assert (cluster.num_workers(strategy), cluster.worker_index(strategy)) == (1, 0)
