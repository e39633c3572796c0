"""A run with a budget of time: measured once, fixed, and otherwise like any other."""

import contextlib
import importlib
import itertools
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from data.sources import synthetic
from tests import helpers, shallow
from tests.faults import processes
from trainer import errors, flags
from trainer.distributing import cluster
from trainer.losses import registry as loss_registry
from trainer.metrics import confusion
from trainer.planning import budget, costs, rehearsal
from trainer.remote import mirrors
from trainer.run_folder import length
from trainer.settings import modes

_COSTS = costs.Costs(start=20, step=2, evaluation=5, save=1, end=3)
_RHYTHM = costs.Rhythm(num_examples=10, batch_size=4)


@pytest.mark.parametrize(
    ("secs", "least", "num_steps"),
    [
        # Without the reserve of 3%, 45 seconds are 43.65, and 44 are 42.68.
        (45, 1, 4),
        (44, 1, 3),
        # 31 / 0.97 = 31.96
        (32, 1, 1),
        (31, 1, 0),
        # A warm-up of 4 steps leaves no step of the run itself.
        (45, 5, 0),
    ],
)
def test_steps_fit_into_the_budget_with_a_reserve(secs, least, num_steps):
    assert budget.choose(_COSTS, _RHYTHM, secs, least=least)[0] == num_steps


def test_the_smallest_budget_has_room_and_works():
    # 1.1 x 31 / 0.97 = 35.2
    smallest = budget.choose(_COSTS, _RHYTHM, 5, least=1)[1]
    assert smallest == 36
    assert budget.choose(_COSTS, _RHYTHM, smallest, least=1)[0] >= 1


class _Clock:
    """Tells a time that only work moves on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, secs: float) -> None:
        self.now += secs


@pytest.fixture(name="stage")
def _stage(monkeypatch):
    """Returns a stage on which a step takes 0.25 s, and the sizes of all calls."""
    clock, calls, is_traced = _Clock(), [], itertools.count()
    loss = loss_registry.make("ce", 2)

    def train(iterator, num_steps):
        clock.work(0.25 * int(num_steps) + (0 if next(is_traced) else 7))
        calls.append(int(num_steps))
        setup.step += int(num_steps)
        return types.SimpleNamespace(
            sums=tf.zeros([loss.num_sums], tf.float64), is_finite=tf.constant(True)
        )

    def score(iterator, num_batches):
        clock.work(1.5 * num_batches)
        calls.append(num_batches)

    evaluation = types.SimpleNamespace(
        eval_loop=types.SimpleNamespace(
            reset=lambda: clock.work(0.5), score=score, result=dict
        ),
        make_iterator=lambda: None,
        read_again=lambda start, stop: None,
        batches_per_call=3,
        num_batches=40,
        ema=None,
    )
    setup = types.SimpleNamespace(
        strategy=None,
        loss=loss,
        confusion=confusion.ConfusionMatrix(("a", "b")),
        make_iterator=lambda step, is_one_batch: clock.work(0.75),
        read_again=lambda start, stop: None,
        step=0,
        train_loop=types.SimpleNamespace(run=train),
        evaluation=evaluation,
    )
    script = rehearsal.Script(
        step_secs=5,
        evaluation_secs=10,
        steps_per_call=8,
        log_steps=10,
        summary_images=0,
    )
    writer = types.SimpleNamespace(
        write_scalars=lambda split, step, values: clock.work(0.5)
    )
    return rehearsal._Stage(setup, script, clock), calls, writer


def test_a_step_is_timed_with_its_reports_and_without_its_tracing(stage):
    stage, calls, writer = stage
    # 20 steps of 0.25 s, and two reports of 0.5 s.
    assert stage.time_steps(writer) == (0.75, 0.3)
    # To trace, to guess, a fifth of 5 s to warm up, and 5 s that count.
    assert calls == [1, 1, 4, 8, 2, 8, 2]


def test_an_evaluation_is_timed_by_a_part_of_it(stage):
    stage, calls, _ = stage
    # Half a second to begin with, and 1.5 s for each of the 40 batches; 7 of them take
    # the 10 s.
    assert stage.time_evaluation() == 0.5 + 40 * 1.5
    assert calls == [1, 1, 3, 3, 1]


def test_all_that_a_checkpoint_holds_is_put_back(tmp_path):
    # 12 examples in batches of 8; a loss scale that float16 moves at each step.
    rig = helpers.Rig(
        helpers.make_store(), optimizer="adam", ema_decay=0.9, policy="mixed_float16"
    )

    def read(name):
        tf.train.Checkpoint(**rig.state.to_save()).write(str(tmp_path / name))
        saved = tf.train.load_checkpoint(str(tmp_path / name))
        names = saved.get_variable_to_shape_map()
        return {n: saved.get_tensor(n) for n in names if "OBJECT_GRAPH" not in n}

    before = read("before")
    with contextlib.suppress(KeyError), rig.state.put_back():
        rig.train(2)
        during = read("during")
        raise KeyError
    after = read("after")
    moved = [n for n in before if not np.array_equal(before[n], during[n])]
    kinds = ("model", "optimizer", "loss_scale", "global_step", "ema")
    assert {name.partition("/")[0] for name in moved} == set(kinds)
    assert len(moved) >= len(before) - 1  # The scale itself stays as it is.
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Returns a function that trains in this process; what it measures is written."""
    shallow.shorten(monkeypatch)
    shallow.write_weights(tmp_path / "encoder.weights.h5")
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    rehearse, measured, uploads = rehearsal.rehearse, [], []

    def upload(folder):
        uploads.append({path.name for path in folder.rglob("*") if path.is_file()})

    def clock():  # An upload takes 1,000 seconds.
        return time.perf_counter() + 1000 * len(uploads)

    monkeypatch.setattr(mirrors, "try_upload", upload)

    def rehearse_shortly(setup, folder, script, *, started):
        script = rehearsal.Script(
            step_secs=1e-3,
            evaluation_secs=1e-3,
            steps_per_call=script.steps_per_call,
            log_steps=script.log_steps,
            summary_images=script.summary_images,
        )
        measured.append(rehearse(setup, folder, script, started=started, clock=clock))
        assert not (tmp_path / folder / ".rehearsal").exists()
        return _COSTS

    monkeypatch.setattr(rehearsal, "rehearse", rehearse_shortly)

    def train(*arguments, model_dir, **kwargs):
        given = (
            f"--model_dir={tmp_path / model_dir}",
            f"--encoder_weights={tmp_path / 'encoder.weights.h5'}",
            *processes.SMALL,
            "--lr_schedule=cosine",
            "--warmup_steps=1",
            "--decoder_dropout=0.1",
            "--ema_decay=0.9",
            "--deterministic",
            "--log_steps=2",
            "--checkpoint_interval=2",
            *arguments,
        )
        config, _ = flags.read_config(given)
        mode = importlib.import_module(modes.MODES[config.run.mode].module)
        mode.run(config, **kwargs)
        return tmp_path / model_dir

    return types.SimpleNamespace(
        train=train, measured=measured, uploads=uploads, folder=tmp_path
    )


def test_a_measured_run_is_that_of_its_number_of_steps(run):
    # 24 examples in batches of 8: an evaluation each 3 steps. 5 steps take
    # 20 + 5 x 2 + 2 x 5 + 4 x 1 + 3 = 47 seconds, and 6 take 49.
    began = time.perf_counter() - 5000
    measured = run.train("--time_budget=49s", model_dir="measured", started=began)
    kept = length.read(str(measured))
    assert (kept.num_steps, kept.time_budget) == (5, "49s")
    (found,) = run.measured
    parts = (found.start, found.step, found.evaluation, found.save, found.measuring)
    assert min(parts) > 0 and found.end > 1.0
    # At a URL, a save uploads the checkpoint, and an evaluation its curves.
    saved, evaluated = run.uploads
    assert {"metadata.json", "state.index"} <= saved
    assert {name.partition(".")[0] for name in evaluated} == {"events"}
    assert 1000 < found.save < 2000 and 1000 < found.evaluation < 2000
    assert found.step < 1000 and found.measuring > 2000
    assert 7000 < found.start < 8000  # It takes in what was measured by then.

    given = run.train("--train_steps=5", model_dir="given")
    assert processes.fingerprint(measured) == processes.fingerprint(given)
    settings = [(folder / "config.json").read_text() for folder in (measured, given)]
    assert (
        settings[0].replace('"train_epochs": 0', '"train_epochs": null')
        == (settings[1])
    )


@pytest.fixture(name="settle")
def _settle(monkeypatch, tmp_path):
    """Returns a function that fixes the length of a run of 10 examples."""
    measured = []
    monkeypatch.setattr(
        rehearsal, "rehearse", lambda *args, **_: measured.append(args) or _COSTS
    )

    def settle(*arguments, **others):
        given = (f"--model_dir={tmp_path}", "--batch_size=4", "--log_steps=4")
        config, _ = flags.read_config([*given, *arguments])
        setup = types.SimpleNamespace(
            strategy=None,
            examples=range(10),
            batch_size=4,
            length=tf.Variable(10**8, dtype=tf.int64),
        )
        others = {"has_checkpoint": False, "is_chief": True, "started": 0.0, **others}
        made = budget.settle(config, setup, **others)
        num_steps = int(setup.length.numpy())
        assert made.train.train_steps == num_steps and not made.train.time_budget
        return num_steps

    settle.measured = measured
    return settle


def test_a_number_is_measured_once(settle):
    for has_checkpoint in (False, False, True):
        assert settle("--time_budget=45s", has_checkpoint=has_checkpoint) == 4
    assert len(settle.measured) == 1
    assert settle("--time_budget=45s", "--warmup_steps=2", has_checkpoint=True) == 4
    with pytest.raises(errors.ConfigError, match="--warmup_steps=4 is not less than"):
        settle("--time_budget=45s", "--warmup_steps=4", has_checkpoint=True)


def test_without_the_lock_no_length_is_written(settle, tmp_path):
    def fail():
        raise errors.LockLostError("lost")

    with pytest.raises(errors.LockLostError):
        settle("--time_budget=45s", check_lock=fail)
    assert not (tmp_path / "length.json").exists()


def test_how_long_is_measured_follows_the_budget(settle):
    settle("--time_budget=2m")
    settle("--time_budget=10h")
    scripts = [script for _, _, script in settle.measured]
    # 5% and 2% of the budget, at least a second and at most a minute.
    assert [s.step_secs for s in scripts] == [6.0, 60.0]
    assert [s.evaluation_secs for s in scripts] == [2.4, 60.0]
    assert [(s.steps_per_call, s.log_steps) for s in scripts] == [(20, 4)] * 2


@pytest.mark.parametrize("other", ["--time_budget=44s", "--steps_per_loop=1"])
def test_nothing_is_kept_of_another_run_without_a_checkpoint(settle, other):
    settle("--time_budget=45s")
    settle("--time_budget=45s", other)
    assert len(settle.measured) == 2


def test_a_budget_of_another_length_is_refused_once_the_run_has_begun(settle):
    settle("--time_budget=60s")
    assert settle("--time_budget=1m", has_checkpoint=True) == 8
    with pytest.raises(errors.ConfigError, match="8 steps were fixed by .*=60s; give"):
        settle("--time_budget=5m", has_checkpoint=True)


def test_a_run_that_began_without_a_budget_gets_none(settle):
    message = "has begun without one; say with --train_epochs or --train_steps"
    with pytest.raises(errors.ConfigError, match=message):
        settle("--time_budget=45s", has_checkpoint=True)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"num_steps": 3}'])
def test_a_length_that_cannot_be_read_is_named(settle, tmp_path, text):
    (tmp_path / "length.json").write_text(text)
    with pytest.raises(errors.CheckpointError, match="length.json cannot be read"):
        settle("--time_budget=45s", has_checkpoint=True)


def test_a_budget_that_is_too_short_names_the_smallest(settle, tmp_path):
    # 1.1 x (20 + 2 x 2 + 5 + 1 + 3) / 0.97 = 37.4
    message = "=9s is too short: on this machine it takes 38s to .* make 2 steps"
    with pytest.raises(errors.ConfigError, match=message):
        settle("--time_budget=9s", "--warmup_steps=1")
    assert not (tmp_path / "length.json").exists()
    assert settle("--time_budget=38s", "--warmup_steps=1") == 3


def test_the_number_of_the_chief_counts(settle, monkeypatch, tmp_path):
    def tell(strategy, number):
        assert not number  # A worker has not looked at its folder.
        return 7.0

    length.write(
        str(tmp_path),
        length.Length(time_budget="45s", num_steps=3, measured={}, settings={}),
    )
    monkeypatch.setattr(cluster, "from_chief", tell)
    assert settle("--time_budget=45s", is_chief=False) == 7
