"""Processes that are killed or stopped go on as if nothing had been."""

import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests import shallow
from tests.faults import processes
from trainer import errors
from trainer.running import stall

_start = functools.partial(processes.start, program="tests.faults.short_program")

_STEPS = (
    *processes.SHORT,
    "--checkpoint_interval=4",
    "--log_steps=3",
)
_LOOP = 200
_LONG = (
    "--train_steps=100000",
    "--steps_per_loop=100000",
    f"--log_steps={_LOOP}",
    "--checkpoint_interval=0",
    "--epochs_between_evals=10000",
)
"""A run whose device loops of `_LOOP` steps are ended by reports alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with encoder weights, and room for the cache of examples."""
    folder = tmp_path_factory.mktemp("resume")
    shallow.write_weights(folder / "encoder.weights.h5")
    return folder


def _wait_for(condition, process, secs=120):
    """Waits until something is so, while the process lives."""
    deadline = time.monotonic() + secs
    while not condition():
        assert process.poll() is None, "the process ended early"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def _train(folder, model_dir, *flags):
    """Runs to the end what another run is compared with; returns its folder."""
    process = _start(folder, model_dir, *_STEPS, *flags)
    assert processes.finish(process) == 0, processes.read_log(model_dir)[-2000:]
    return model_dir


@pytest.fixture(scope="module")
def alone(folder):
    """Returns the folder of a run on one device that nothing disturbed."""
    return _train(folder, folder / "alone", "--virtual_devices=1")


def _assert_killed_run_equals(alone, folder, *flags):
    """Kills a run after its first save, finishes it, and compares all that is left."""
    killed = folder / f"killed-{alone.name}"
    process = _start(folder, killed, *_STEPS, *flags)
    _wait_for((killed / "checkpoints" / "step-00000004").exists, process)
    process.kill()
    process.wait()
    # As if it had been killed in the middle of its next save, and of a line.
    (killed / "checkpoints" / "step-00000008.partial").mkdir(exist_ok=True)
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "split"')
    _train(folder, killed, *flags)
    assert processes.fingerprint(killed) == processes.fingerprint(alone)
    assert not list((killed / "checkpoints").glob("*.partial"))


@pytest.mark.cross_section
def test_a_killed_run_ends_with_the_same_bits(folder, alone):
    _assert_killed_run_equals(alone, folder, "--virtual_devices=1")


def test_a_killed_run_on_two_devices_in_float16_ends_with_the_same_bits(folder):
    """With an encoder that is trained from step 5 on, the end of the first epoch."""
    flags = (
        "--virtual_devices=2",
        "--mixed_precision=float16",
        "--nofreeze_encoder",
        "--unfreeze_encoder_at=1",
    )
    alone = _train(folder, folder / "alone-float16", *flags)
    assert "From step 5 on: trained encoder." in processes.read_log(alone)
    _assert_killed_run_equals(alone, folder, *flags)


def test_the_fingerprint_of_a_run_is_not_blind(folder, alone):
    """The control of the tests above: other weights, or points, give another."""
    other = shutil.copytree(alone, folder / "other")
    found = [processes.fingerprint(model_dir) for model_dir in (alone, other)]
    with (other / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "split": "train"}\n')
    found.append(processes.fingerprint(other))
    newest = processes.newest(other)
    metadata = (newest / "metadata.json").read_bytes()
    shutil.rmtree(newest)  # Other weights, with the metadata of the newest.
    (processes.newest(other) / "metadata.json").write_bytes(metadata)
    found.append(processes.fingerprint(other))
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_a_signal_stops_a_long_device_loop_at_the_next_step(folder):
    number = signal.SIGTERM  # `test_signals` has the others.
    model_dir = folder / "stopped"
    process = _start(folder, model_dir, *_STEPS, *_LONG)
    # The first loop has been traced and run; the next one begins at once.
    first = f"Step {_LOOP}/100000"
    _wait_for(lambda: first in processes.read_log(model_dir), process)
    process.send_signal(number)
    assert processes.finish(process) == errors.Stopped.exit_code
    log = processes.read_log(model_dir)
    assert f"{number.name}: stopping after this step" in log
    assert "Stopped on request at step" in log
    metadata = json.loads((processes.newest(model_dir) / "metadata.json").read_text())
    # Not where a loop ends by itself, as a stop that only Python reads would be.
    assert metadata["step"] > _LOOP and metadata["step"] % _LOOP


def test_a_stop_where_nothing_is_unsaved_exits_at_once(folder):
    model_dir = folder / "early"
    process = _start(folder, model_dir, *_STEPS, *_LONG)
    _wait_for(lambda: "Starting at step 0" in processes.read_log(model_dir), process)
    process.send_signal(signal.SIGTERM)
    assert processes.finish(process, 20) == errors.Stopped.exit_code
    assert "nothing is unsaved" in processes.read_log(model_dir)


def test_a_stall_ends_the_run_with_stacks_and_advice(tmp_path):
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
    ticks, is_enough = itertools.count(), threading.Event()

    def progress():
        # Asked ten times, the watch has waited for longer than it may without progress.
        tick = next(ticks)
        if tick == 10:
            is_enough.set()
        return tick

    with stall.watching(0.2, progress, devices=[]):
        assert is_enough.wait(timeout=60)
