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
import types

import pytest

from tests import shallow
from tests.faults import processes, short_program
from trainer import errors
from trainer.running import preemption, stall

_start = functools.partial(processes.start, program="tests.faults.short_program")

_STEPS = (
    *processes.SHORT,
    "--checkpoint_interval=4",
    "--log_steps=3",
)
_LOOP_STEPS = 20000
"""In a minute and more."""
_LONG = (
    f"--train_steps={_LOOP_STEPS}",
    f"--steps_per_loop={_LOOP_STEPS}",
    f"--log_steps={_LOOP_STEPS}",
    "--checkpoint_interval=0",
    "--epochs_between_evals=100000",
    "--cache=none",
)
"""A run of one call of the devices."""


@pytest.fixture(autouse=True)
def _leave_nothing_running():
    yield
    processes.kill_started()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with encoder weights, and room for the cache of examples."""
    folder = tmp_path_factory.mktemp("resume")
    shallow.write_weights(folder / "encoder.weights.h5")
    return folder


def _train(folder, model_dir, *flags):
    """Runs to the end what another run is compared with; returns its folder."""
    process = _start(folder, model_dir, *_STEPS, *flags)
    assert processes.finish(process) == 0, processes.read_log(model_dir)[-2000:]
    return model_dir


@pytest.fixture(scope="module")
def alone(folder):
    """Returns the folder of a run on one device that nothing disturbed."""
    return _train(folder, folder / "alone", "--virtual_devices=1")


def _assert_killed_run_equals(alone, folder, *flags, after, newest):
    """Kills a run after some steps, finishes it, and compares all that is left.

    Args:
      alone: what another run of the same settings has left.
      folder: for both.
      *flags: of the settings.
      after: steps, with a report after the newest checkpoint.
      newest: the step of that checkpoint.
    """
    killed = folder / f"killed-{alone.name}"
    hold = short_program.Hold(folder / f"hold-{alone.name}", str(after))
    process = _start(folder, killed, *_STEPS, *flags, **hold.environment)
    processes.wait_for(lambda: hold.is_held(after), process)
    process.kill()
    assert processes.finish(process) == -signal.SIGKILL
    assert processes.newest(killed).name == f"step-{newest:08}"
    assert processes.read_points(killed)[-1]["step"] == after
    # As if it had been killed in the middle of its next save, and of a line.
    (killed / "checkpoints" / "step-00000008.partial").mkdir()
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "split"')
    _train(folder, killed, *flags)
    assert processes.fingerprint(killed) == processes.fingerprint(alone)
    assert not list((killed / "checkpoints").glob("*.partial"))


@pytest.mark.cross_section
def test_a_killed_run_ends_with_the_same_bits(folder, alone):
    flags = ("--virtual_devices=1",)
    _assert_killed_run_equals(alone, folder, *flags, after=6, newest=5)


def test_a_killed_run_on_two_devices_in_float16_ends_with_the_same_bits(folder):
    """With an encoder that is trained from step 5 on, the end of the first epoch."""
    flags = (
        "--virtual_devices=2",
        "--mixed_precision=float16",
        "--nofreeze_encoder",
        "--unfreeze_encoder_at=1",
        "--checkpoint_interval=2",
    )
    alone = _train(folder, folder / "alone-float16", *flags)
    assert "From step 5 on: trained encoder." in processes.read_log(alone)
    # Before the first step with the trained encoder, which takes long to trace.
    _assert_killed_run_equals(alone, folder, *flags, after=3, newest=2)


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
    model_dir, drawn = folder / "stopped", folder / "drawn"
    process = _start(folder, model_dir, *_STEPS, *_LONG, DRAWN_FILE=str(drawn))
    processes.wait_for(drawn.exists, process)
    process.send_signal(number)
    assert processes.finish(process) == errors.Stopped.exit_code
    log = processes.read_log(model_dir)
    assert f"{number.name}: stopping after this step" in log
    assert "Stopped on request at step" in log
    metadata = json.loads((processes.newest(model_dir) / "metadata.json").read_text())
    # Not where the loop ends by itself, as a stop that only Python reads would be.
    assert 0 < metadata["step"] < _LOOP_STEPS


def test_a_stop_where_nothing_is_unsaved_exits_at_once(folder):
    model_dir = folder / "early"
    hold = short_program.Hold(folder / "hold-early", "0")
    process = _start(folder, model_dir, *_STEPS, *_LONG, **hold.environment)
    processes.wait_for(lambda: hold.is_held(0), process)
    process.send_signal(signal.SIGTERM)
    assert processes.finish(process) == errors.Stopped.exit_code
    assert "nothing is unsaved" in processes.read_log(model_dir)


def test_the_loop_may_say_how_it_ends_though_the_machine_stands_still(monkeypatch):
    stop, slept, said = preemption.StopRequest(), [], []
    monkeypatch.setattr(preemption, "time", types.SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(stop, "_exit", said.append)
    stop._wait_for_save()
    # One sleep is over once the machine goes on; in all others the loop goes on, too.
    assert max(slept) <= 0.05 and sum(slept) == pytest.approx(2.0)
    assert said == ["Saved; exiting."]


def test_a_stall_ends_the_run_with_stacks_and_advice(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from trainer.running import stall\n"
        "def hang():\n"
        "    time.sleep(600)\n"
        "with stall.watching(1, lambda: 0, devices=['/device:CPU:0']):\n"
        "    hang()\n"
    )
    result = subprocess.run(
        [sys.executable, str(program)],
        cwd=processes.ROOT,
        env={**os.environ, "PYTHONPATH": str(processes.ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
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
        assert is_enough.wait(timeout=300)


def test_where_the_whole_process_stands_still_nothing_stalls(monkeypatch):
    class Ended(Exception):
        pass

    def end(timeout_secs, subject, progress):
        raise Ended

    # An hour between any two looks.
    clock, looks, armed = itertools.count(0, 3600), [], []
    monkeypatch.setattr(stall.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(stall, "_end", end)
    monkeypatch.setattr(
        stall.faulthandler, "dump_traceback_later", lambda *_, **__: armed.append(looks)
    )
    progress = iter([1, 2, *[3] * 99])
    watch = stall._Watch(10, stall._Subject(lambda: next(progress), "a test"))
    watch._is_over = types.SimpleNamespace(wait=looks.append)
    with pytest.raises(Ended):
        watch._watch()
    # Two of progress, one that finds the last of it, and eleven of a second each.
    assert looks == [1.0] * 14
    # After each of the first three, and the backstop never comes before the end.
    assert len(armed) == 3 + 2
