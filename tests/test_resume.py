"""Processes that are killed or stopped go on as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.faults import processes
from trainer import errors

_STEPS = (
    "--train_split=validation",
    "--eval_split=validation",
    "--train_epochs=0",
    "--train_steps=12",
    "--epochs_between_evals=1",
    "--checkpoint_interval=4",
    "--log_steps=3",
    "--ema_decay=0.9",
    "--decoder_dropout=0.2",
    "--deterministic",
)
_LONG = ("--train_steps=100000", "--steps_per_loop=100000", "--log_steps=100000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with encoder weights, and room for the cache of examples."""
    folder = tmp_path_factory.mktemp("resume")
    processes.write_encoder_weights(folder / "encoder.weights.h5")
    return folder


def _wait_for(condition, process, secs=120):
    """Waits until something is so, while the process lives."""
    deadline = time.monotonic() + secs
    while not condition():
        assert process.poll() is None, "the process ended early"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "flags",
    [
        ("--virtual_devices=1",),
        pytest.param(
            ("--virtual_devices=2", "--mixed_precision=float16"),
            marks=pytest.mark.cross_section,
        ),
    ],
    ids=["one device", "two devices in float16"],
)
def test_a_killed_run_ends_with_the_same_bits(folder, flags):
    name = "-".join(flags)
    alone, killed = folder / f"alone{name}", folder / f"killed{name}"
    assert processes.finish(processes.start(folder, alone, *_STEPS, *flags)) == 0
    process = processes.start(folder, killed, *_STEPS, *flags)
    _wait_for((killed / "checkpoints" / "step-00000004").exists, process)
    process.kill()
    process.wait()
    # As if it had been killed in the middle of its next save, and of a line.
    (killed / "checkpoints" / "step-00000008.partial").mkdir(exist_ok=True)
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "split"')
    assert processes.finish(processes.start(folder, killed, *_STEPS, *flags)) == 0
    assert processes.fingerprint(killed) == processes.fingerprint(alone)
    assert not list((killed / "checkpoints").glob("*.partial"))


def test_the_fingerprint_of_a_run_is_not_blind(folder):
    """The control of the test above: another seed, or point, gives another."""
    found = set()
    for seed in (0, 1):
        model_dir = folder / f"seed-{seed}"
        flags = (*_STEPS, "--train_steps=2", f"--seed={seed}")
        assert processes.finish(processes.start(folder, model_dir, *flags)) == 0
        found.add(processes.fingerprint(model_dir))
    with (model_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "split": "train"}\n')
    found.add(processes.fingerprint(model_dir))
    assert len(found) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_a_long_device_loop_at_the_next_step(folder, number):
    model_dir = folder / f"stopped-{number.name}"
    flags = (*_STEPS, *_LONG, "--checkpoint_interval=0", "--epochs_between_evals=10000")
    for patience in (12, 40, 120):  # To be past the tracing, on a busy machine too.
        process = processes.start(folder, model_dir, *flags)
        _wait_for(
            lambda: "Starting at step 0" in processes.read_log(model_dir), process
        )
        time.sleep(patience)
        sent = time.monotonic()
        process.send_signal(number)
        assert processes.finish(process) == errors.Stopped.exit_code
        secs = time.monotonic() - sent
        if "stopping after this step" in processes.read_log(model_dir):
            break
    log = processes.read_log(model_dir)
    assert f"{number.name}: stopping after this step" in log
    assert "Stopped on request at step" in log
    metadata = json.loads((processes.newest(model_dir) / "metadata.json").read_text())
    assert 0 < metadata["step"] < 100000
    assert secs < 30, secs  # It is 3 on an idle machine; the loop would take an hour.


def test_a_stop_where_nothing_is_unsaved_exits_at_once(folder):
    model_dir = folder / "early"
    process = processes.start(folder, model_dir, *_STEPS, *_LONG)
    _wait_for(lambda: "Starting at step 0" in processes.read_log(model_dir), process)
    process.send_signal(signal.SIGTERM)
    assert processes.finish(process, 20) == errors.Stopped.exit_code
    assert "nothing is unsaved" in processes.read_log(model_dir)


def test_a_run_goes_on_with_another_number_of_devices(folder):
    flags = [flag for flag in _STEPS if "dropout" not in flag]
    one, two = folder / "elastic-one", folder / "elastic-two"
    process = processes.start(folder, one, *flags)
    assert processes.finish(process) == 0
    for steps, devices in ((6, 2), (12, 1)):
        process = processes.start(
            folder,
            two,
            *flags,
            f"--train_steps={steps}",
            f"--virtual_devices={devices}",
        )
        assert processes.finish(process) == 0
    straight = {
        p["step"]: p["loss"]
        for p in processes.read_points(one)
        if p["split"] == "train"
    }
    elastic = {
        p["step"]: p["loss"]
        for p in processes.read_points(two)
        if p["split"] == "train" and p["step"] in straight
    }
    assert elastic == pytest.approx(straight, rel=1e-4)


def test_a_stall_ends_the_run_with_stacks_and_advice(folder, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from trainer.running import stall\n"
        "def hang():\n"
        "    time.sleep(60)\n"
        "with stall.watching(1, lambda: 0, devices=['/device:CPU:0']):\n"
        "    hang()\n"
    )
    result = subprocess.run(
        [sys.executable, str(program)],
        cwd=processes.ROOT,
        env={**os.environ, "PYTHONPATH": str(processes.ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == errors.StallError.exit_code
    for part in ("--stall_timeout=1 seconds", "/device:CPU:0", "in hang", "raise"):
        assert part in result.stderr


def test_progress_keeps_the_watch_quiet():
    from trainer.running import stall

    ticks = iter(range(10**6))
    with stall.watching(0.2, lambda: next(ticks), devices=[]):
        time.sleep(0.6)
