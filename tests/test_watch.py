"""`--mode=evaluate --watch`: each checkpoint of a training once, beside it."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import shallow
from tests.faults import processes
from trainer import errors, flags
from trainer.evaluating import watching
from trainer.modes import evaluate, train
from trainer.run_folder import (
    checkpoint_folders,
    checkpointing,
    criterion,
    evaluations,
    run_lock,
    waiting,
    watched,
)

_STEPS = (4, 8, 12)


def _start(mode, *arguments):
    config, _ = flags.read_config(arguments)
    mode.run(config)


def _watch(run, *arguments):
    typed = ["--mode=evaluate", "--watch", f"--model_dir={run}", *arguments]
    if not any("strategy" in argument for argument in arguments):
        typed.append("--distribution_strategy=one_device")  # Traced faster.
    _start(evaluate, *typed)


@pytest.fixture(scope="module")
def trained_dir(tmp_path_factory):
    """Returns the folder of a run of three checkpoints without an evaluation."""
    root = tmp_path_factory.mktemp("watch")
    shallow.write_weights(root / "encoder.weights.h5")
    with pytest.MonkeyPatch.context() as patch:
        shallow.shorten(patch)
        _start(
            train,
            "--mode=train",
            f"--model_dir={root / 'run'}",
            f"--encoder_weights={root / 'encoder.weights.h5'}",
            "--dataset=synthetic",
            "--train_split=validation",
            "--eval_split=validation",
            "--image_size=32",
            "--encoder_alpha=0.35",
            "--decoder_filters=8,8,8,8",
            "--batch_size=8",
            "--learning_rate=0.02",
            "--ema_decay=0.5",
            "--train_epochs=0",
            "--train_steps=12",
            "--epochs_between_evals=100",
            "--checkpoint_interval=4",
            "--summary_images=2",
        )
        yield root / "run"


@pytest.fixture(name="run")
def _run(trained_dir, tmp_path, monkeypatch):
    """Returns a copy of the run; nobody waits long for anything."""
    monkeypatch.setattr(waiting, "POLL_SECS", 0.0)
    monkeypatch.setattr(run_lock, "_STALE_SECS", 0.0)
    return shutil.copytree(trained_dir, tmp_path / "run")


def _lines(run):
    path = run / "evaluations.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()]


def _scores(line):
    return {tag: v for tag, v in line["scores"].items() if tag != "images_per_sec"}


def _files(run):
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_each_checkpoint_is_scored_once_and_the_best_is_found(run, capsys):
    metrics = (run / "metrics.jsonl").read_bytes()
    _watch(run, "--best_metric=loss")

    lines = _lines(run)
    assert [line["step"] for line in lines] == list(_STEPS)
    losses = [line["scores"]["loss"] for line in lines]
    assert len(set(losses)) == 3
    best = _STEPS[int(np.argmin(losses))]
    (path, *_) = checkpoint_folders.find(str(run), "best")
    assert checkpoint_folders.step_of(path) == best
    kept = watched.read(run)
    assert (kept.best_step, kept.best_score) == (best, min(losses))
    assert (kept.best_metric, kept.reading) == ("loss", None)
    out = capsys.readouterr().out.splitlines()
    assert [line[:14] for line in out[:3]] == [f"step-{s:08d}:" for s in _STEPS]
    assert out[3] == (
        f"The training in {run} has ended. Checkpoints evaluated: 3; the best is "
        f"{path.name}, loss {min(losses):.4f}."
    )

    points = [e for e in processes.read_events(run) if e[0] == "watch"]
    for tag in ("loss", "mean_iou", "photo_truth_prediction", "confusion"):
        assert [step for _, t, step in points if t == tag] == list(_STEPS)
    assert (run / "metrics.jsonl").read_bytes() == metrics  # It is the training's.
    assert not (run / "watch.lock").exists()

    # The same scores as by itself, and by that it is known from then on.
    _start(evaluate, "--mode=evaluate", f"--model_dir={run}", "--checkpoint=best")
    alone = _lines(run)[-1]
    assert _scores(alone) == _scores(lines[_STEPS.index(best)])
    before = _files(run)
    _watch(run, "--best_metric=loss", "--summary_images=0")
    assert _files(run) == before
    assert "Checkpoints evaluated: 0; the best is" in capsys.readouterr().out


def test_only_the_same_scores_of_the_same_weights_are_taken_over(tmp_path):
    scored = evaluations.Scored(
        dataset="folder",
        data_dir="d",
        split="val",
        num_examples=3,
        fingerprint="f",
        image_size=(32, 32),
        eval_native_size=False,
        uses_averages=False,
        precision="float32",
        tta=(),
        merge_classes=(),
    )
    subject = evaluations.Subject("step-00000004", 4, "aa")
    evaluations.record(
        str(tmp_path),
        subject,
        scored,
        {"loss": 0.5, "iou/a": math.nan},
        confusion=np.zeros([2, 2]),
        class_names=["a", "b"],
        details={},
        image_scores=np.array([0.5]),
        pictures_to_keep=None,
    )
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('[1]\n{"half')  # Not ours, and of a killed process.

    def find(scored=scored, names=("loss",), **changes):
        changed = subject._replace(**changes)
        return evaluations.find(str(tmp_path), changed, scored, names)

    found = find()
    assert found["loss"] == 0.5 and math.isnan(found["iou/a"])
    assert find(weights="bb") is None
    assert find(names=["loss", "ece"]) is None
    assert find(scored=dataclasses.replace(scored, tta=("flip",))) is None
    assert evaluations.find(str(tmp_path / "no"), subject, scored, []) is None


class _FakeTraining:
    """Brings checkpoints one by one, whenever the watching process waits."""

    def __init__(self, run, monkeypatch):
        self._folder = run / "checkpoints"
        self._aside = run.parent / "aside"
        self._folder.rename(self._aside)
        self.rest = sorted(path.name for path in self._aside.iterdir())
        self._lock = run_lock.RunLock(run)
        self._lock.acquire()
        monkeypatch.setattr(run_lock, "_STALE_SECS", 60.0)
        monkeypatch.setattr(time, "sleep", self.advance)

    def advance(self, _):
        if not self.rest:
            self._lock.release()
            return
        self._folder.mkdir(exist_ok=True)
        name = self.rest.pop(0)
        shutil.copytree(self._aside / name, self._folder / name)


def test_checkpoints_are_scored_as_they_come(run, monkeypatch, capsys):
    training = _FakeTraining(run, monkeypatch)
    built, left = [], []
    prepare = watching.evaluation.prepare_evaluation
    monkeypatch.setattr(
        watching.evaluation,
        "prepare_evaluation",
        lambda *args: built.append(1) or prepare(*args),
    )
    say = watching._Watcher._say
    monkeypatch.setattr(
        watching._Watcher,
        "_say",
        lambda *args: left.append(len(training.rest)) or say(*args),
    )
    _watch(run)
    assert [line["step"] for line in _lines(run)] == list(_STEPS)
    assert (built, left) == ([1], [2, 1, 0])
    assert "has ended. Checkpoints evaluated: 3" in capsys.readouterr().out


def test_what_cannot_be_read_or_is_gone_is_left_out(run, monkeypatch, caplog, capsys):
    record = {"token": "t", "host": "far", "pid": 7, "started": "noon", "place": "p"}
    (run / "run.lock").write_text(json.dumps(record))  # Of a training that is dead.
    folder = run / "checkpoints"
    (checkpoint_folders.path_of(folder, 4) / "state.index").write_bytes(b"")
    hold = watched.hold

    def remove_and_hold(model_dir, step):
        if step == 8:
            shutil.rmtree(checkpoint_folders.path_of(folder, 8))
        hold(model_dir, step)

    monkeypatch.setattr(watched, "hold", remove_and_hold)
    _watch(run, "--summary_images=0")
    assert [line["step"] for line in _lines(run)] == [12]
    out = capsys.readouterr().out
    assert f"{run} no longer gives a heartbeat (process 7 on far, since noon)." in out
    assert "photo" not in str(processes.read_events(run))
    assert "step-00000004 is left out: it cannot be read" in caplog.text
    assert "step-00000008 is left out: the training has removed it" in caplog.text


def test_a_second_one_is_refused(run):
    with (
        run_lock.holding(run, is_chief=True, file_name=run_lock.WATCH_FILE_NAME),
        pytest.raises(errors.ConfigError, match=r"another run is watching there \(pr"),
    ):
        _watch(run)


def test_waiting_has_an_end(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(waiting, "MOST_SECS", 0.0)
    with pytest.raises(errors.CheckpointError, match="is not the folder of a run"):
        _watch(tmp_path / "nowhere")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(errors.CheckpointError, match="checkpoints holds no checkpoint"):
        _watch(run)


def test_settings_may_come_later(tmp_path, monkeypatch, trained_dir):
    """A training that has just begun has no settings in its folder yet."""

    def bring(_):
        shutil.copy(trained_dir / "config.json", tmp_path)

    monkeypatch.setattr(time, "sleep", bring)
    config, _ = flags.read_config(
        ["--mode=evaluate", "--watch", f"--model_dir={tmp_path}"]
    )
    assert config.model.encoder_alpha == 0.35


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint=best"], r"--checkpoint=best: .* only with --watch=false"),
        (
            ["--distribution_strategy=multi_worker_mirrored"],
            r"--watch=true: .* only with --distribution_strategy=mirrored or",
        ),
        (["--mode=predict"], r"--watch=true: .* only with --mode=evaluate"),
    ],
)
def test_what_has_no_meaning_is_refused(trained_dir, arguments, message):
    with pytest.raises(errors.ConfigError, match=message):
        _watch(trained_dir, *arguments)


def test_a_score_that_is_none_is_refused(run):
    with pytest.raises(errors.ConfigError, match=r"--best_metric=fame: no score of"):
        _watch(run, "--best_metric=fame")


def test_best_metric_and_pictures_are_of_use_beside_watch_alone(trained_dir):
    typed = ["--mode=evaluate", f"--model_dir={trained_dir}"]
    typed += ["--best_metric=loss", "--summary_images=3"]
    _, remarks = flags.read_config(typed)
    assert remarks == ["--mode=evaluate does not use --summary_images, --best_metric."]
    assert flags.read_config([*typed, "--watch"]).remarks == []


@pytest.fixture(name="prune")
def _prune(tmp_path):
    """Returns what lists the steps that a training of five saves keeps, of one."""
    folder = tmp_path / "checkpoints"
    checkpointer = checkpointing.Checkpointer(
        tmp_path,
        state={"global_step": tf.Variable(5, dtype=tf.int64)},
        identity={},
        max_to_keep=1,
    )

    def prune(best_step=None):
        for step in range(1, 6):
            path = checkpoint_folders.path_of(folder, step)
            path.mkdir(parents=True, exist_ok=True)
        checkpointer.saved = checkpoint_folders.Metadata(5, {}, best_step=best_step)
        checkpointer.prune()
        paths = checkpoint_folders.list_checkpoints(folder)
        return [checkpoint_folders.step_of(path) for path in paths]

    return prune


def _holding(folder):
    return run_lock.holding(folder, is_chief=True, file_name=run_lock.WATCH_FILE_NAME)


def test_a_training_keeps_what_is_read_and_the_best_that_was_watched(prune, tmp_path):
    watched.write(tmp_path, watched.Watched(reading=2, best_step=3))
    with _holding(tmp_path):
        assert prune() == [2, 3, 5]
        # Of its own evaluations it knows the best one itself.
        assert prune(best_step=4) == [2, 4, 5]
    assert prune() == [3, 5]  # The process that read it is gone.
    (tmp_path / "watch.json").write_text('{"reading": "x"}')
    assert prune() == [5]


def test_a_dead_reader_holds_nothing(prune, tmp_path, monkeypatch):
    watched.write(tmp_path, watched.Watched(reading=2))
    (tmp_path / "watch.lock").touch()  # As a killed process leaves it.
    assert prune() == [2, 5]
    monkeypatch.setattr(run_lock, "_STALE_SECS", 0.0)
    assert prune() == [5]


def test_a_pulse_is_that_of_a_file_that_changes(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pulse = run_lock.Pulse(tmp_path)
    assert not pulse.is_alive() and pulse.holder == ""
    path = tmp_path / "run.lock"
    path.write_text("")
    assert pulse.is_alive() and "just starting" in pulse.holder
    clock[0] += 44
    assert pulse.is_alive()
    clock[0] += 2
    assert not pulse.is_alive()
    os.utime(path, (1, 1))
    assert pulse.is_alive()
    path.unlink()
    assert not pulse.is_alive()


def test_the_best_of_an_earlier_run_is_forgotten(tmp_path):
    watched.write(tmp_path, watched.Watched(best_step=3))
    checkpointer = checkpointing.Checkpointer(
        tmp_path,
        state={"global_step": tf.Variable(0, dtype=tf.int64)},
        identity={},
        max_to_keep=1,
        best=criterion.MEAN_IOU,
    )
    assert not checkpointer.restore()
    assert watched.read(tmp_path) == watched.Watched()


def test_a_signal_waits_for_what_is_being_written(tmp_path, monkeypatch):
    lock = run_lock.RunLock(tmp_path)
    writing = watching._Writing(lock)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with writing.protected():
        thread = threading.Thread(target=writing.exit, args=("SIGTERM",))
        thread.start()
        thread.join(0.1)
        assert ended == []
    thread.join()
    assert ended == [errors.Stopped.exit_code]


def test_sigterm_ends_it_and_nothing_is_half_written(trained_dir, tmp_path):
    run = shutil.copytree(trained_dir, tmp_path / "run")
    command = [sys.executable, "-m", "tests.faults.short_program"]
    command += ["--mode=evaluate", "--watch", f"--model_dir={run}"]
    with (
        run_lock.holding(run, is_chief=True),  # A training that makes no save.
        subprocess.Popen(
            command,
            cwd=processes.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        said = [process.stdout.readline() for _ in _STEPS]
        process.send_signal(signal.SIGTERM)
        rest, log = process.communicate(timeout=300)
    assert process.returncode == errors.Stopped.exit_code, log
    assert [line[:13] for line in said] == [f"step-{s:08d}" for s in _STEPS], log
    assert rest == "" and "SIGTERM: exiting; what was evaluated is noted" in log
    assert [line["step"] for line in _lines(run)] == list(_STEPS)
    assert not (run / "watch.lock").exists()
    assert not list(run.rglob(".partial-*"))
