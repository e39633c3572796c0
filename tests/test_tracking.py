"""Trackers get each point once, in one run, and cost no training."""

import pathlib
import sys
import threading

import pytest

from trainer import errors
from trainer.assembly import trackers
from trainer.run_folder import scalars, summaries, tracker_runs
from trainer.settings import config as config_lib
from trainer.tracking import fan, registry


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


class _Memory:
    """A tracker that remembers, and fails where it is told to."""

    def __init__(self, run_id="one", fails_at=()):
        self.run_id = run_id
        self.calls = []
        self._fails_at = fails_at

    def log(self, step, values):
        if step in self._fails_at:
            raise OSError(f"no network at {step}")
        self.calls.append((step, dict(values)))

    def close(self, status):
        self.calls.append(status)


def test_all_trackers_get_all_points_and_the_end(tmp_path):
    some = {"a": _Memory(), "b": _Memory()}
    sent_to = fan.Fan(some)
    writer = summaries.SummaryWriter(str(tmp_path), trackers=sent_to)
    writer.write_scalars("train", 2, {"loss": 0.5, "iou/cat": float("nan")})
    writer.write_scalars("eval", 2, {"loss": 0.75})
    sent_to.close("finished")
    sent_to.close("failed")  # The first word counts.
    expected = [(2, {"train/loss": 0.5}), (2, {"eval/loss": 0.75}), "finished"]
    assert some["a"].calls == some["b"].calls == expected


def test_tracker_that_fails_is_one_warning_and_gets_the_rest(caplog):
    failing, other = _Memory(fails_at=(2, 3)), _Memory()
    sent_to = fan.Fan({"failing": failing, "other": other})
    for step in (1, 2, 3, 4):
        sent_to.write_scalars("train", step, {"loss": step})
    sent_to.close("finished")
    assert [call[0] for call in other.calls[:-1]] == [1, 2, 3, 4]
    assert [call[0] for call in failing.calls[:-1]] == [1, 4]
    assert caplog.text.count("failing does not take what this run sends") == 1
    assert "(no network at 2)" in caplog.text


def test_tracker_that_does_not_answer_is_not_waited_for(caplog):
    answer = threading.Event()

    class Silent(_Memory):
        def log(self, step, values):
            answer.wait(300)

    sent_to = fan.Fan({"silent": Silent()})
    sent_to.write_scalars("train", 1, {"loss": 1.0})
    sent_to.write_scalars("train", 2, {"loss": 1.0})
    sent_to.close("stopped", secs=0.05)
    answer.set()
    assert "silent does not take what this run sends (it takes too long)" in caplog.text


def test_who_ends_the_process_does_not_wait_as_long_as_the_run_itself():
    """By a second SIGTERM, or as it stands still, while it waits for a tracker."""
    answer, is_asked = threading.Event(), threading.Event()

    class Silent(_Memory):
        def close(self, status):
            is_asked.set()
            answer.wait(300)
            self.calls.append(status)

    silent = Silent()
    sent_to = fan.Fan({"silent": silent})
    own = threading.Thread(target=sent_to.close, args=("finished",))
    own.start()
    assert is_asked.wait(300)
    sent_to.close("failed", secs=0.01)
    assert own.is_alive()
    answer.set()
    own.join()
    assert silent.calls == ["finished"]


def test_of_a_run_that_another_process_goes_on_with_no_end_is_told():
    tracker, is_lost = _Memory(), []
    sent_to = fan.Fan({"a": tracker}, is_lost=lambda: bool(is_lost))
    sent_to.write_scalars("train", 1, {"loss": 0.5})
    is_lost.append(True)
    sent_to.close("failed")
    sent_to.write_scalars("train", 2, {"loss": 0.5})
    assert tracker.calls == [(1, {"train/loss": 0.5})]


def test_points_that_a_tracker_has_are_not_sent_again():
    old, new = _Memory(), _Memory()
    sent_to = fan.Fan({"old": old, "new": new}, {"old": {"train": 4, "eval": 2}})
    for split, step in (("eval", 2), ("train", 4), ("eval", 4), ("train", 6)):
        sent_to.write_scalars(split, step, {"x": 1.0})
    sent_to.close("finished")
    assert old.calls[:-1] == [(4, {"eval/x": 1.0}), (6, {"train/x": 1.0})]
    assert len(new.calls) == 5


class _Kind:
    """Stands for the module of a tracker."""

    def __init__(self):
        self.opened = []
        self.error = None
        self.runs = []

    def open_run(self, run_id, *, name, folder, settings):
        if self.error:
            raise self.error
        self.opened.append(run_id)
        self.runs.append(_Memory(run_id or f"new-{len(self.opened)}"))
        return self.runs[-1]


@pytest.fixture(name="kind")
def _kind(monkeypatch):
    kind = _Kind()
    monkeypatch.setitem(sys.modules, "stand_in_tracker", kind)
    for name in registry.TRACKERS:
        row = registry.Kind("stand_in_tracker", "", package="json")
        monkeypatch.setitem(registry.TRACKERS, name, row)
    return kind


def _config(folder: pathlib.Path, **settings) -> config_lib.Config:
    given = {"model_dir": str(folder), "tracker": ("mlflow",), **settings}
    return config_lib.from_dict(given)


def _write_points(folder: pathlib.Path, *steps: int) -> None:
    writer = summaries.SummaryWriter(str(folder))
    for step in steps:
        writer.write_scalars("train", step, {"loss": 1.0})
    writer.close()


def test_run_that_goes_on_goes_on_in_the_same_run(tmp_path, kind):
    trackers.open_all(_config(tmp_path), is_resumed=False)
    _write_points(tmp_path, 10, 20, 30)
    # Killed; its checkpoint is of step 10, so that 20 and 30 come again.
    summaries_before = scalars.read_last_steps(str(tmp_path))
    trackers.open_all(_config(tmp_path), is_resumed=True)
    summaries.drop_points_after(str(tmp_path), {"train": 10})
    _write_points(tmp_path, 20)
    # Killed again, before it came as far as it had been.
    trackers.open_all(_config(tmp_path), is_resumed=True)
    assert kind.opened == [None, "new-1", "new-1"]
    note = tracker_runs.read(str(tmp_path))
    assert note.run_ids == {"mlflow": "new-1"}
    assert note.sent == {"mlflow": summaries_before} == {"mlflow": {"train": 30}}


def test_run_that_was_killed_before_its_first_save_is_the_same_run(tmp_path, kind):
    trackers.open_all(_config(tmp_path), is_resumed=False)
    trackers.open_all(_config(tmp_path), is_resumed=False)
    trackers.open_all(_config(tmp_path, seed=3), is_resumed=False)
    assert kind.opened == [None, "new-1", None]


def test_tracker_that_joins_a_run_gets_what_is_still_to_come(tmp_path, kind):
    trackers.open_all(_config(tmp_path), is_resumed=False)
    _write_points(tmp_path, 10)
    trackers.open_all(_config(tmp_path, tracker=("mlflow", "wandb")), is_resumed=True)
    assert kind.opened == [None, "new-1", None]
    assert tracker_runs.read(str(tmp_path)).sent == {
        "mlflow": {"train": 10},
        "wandb": {},
    }


def test_tracker_that_cannot_be_reached_ends_a_new_run_alone(tmp_path, kind, caplog):
    kind.error = OSError("no network")
    message = r"^--tracker=mlflow: no run can be opened there \(no network\); see"
    with pytest.raises(errors.ConfigError, match=message):
        trackers.open_all(_config(tmp_path), is_resumed=False)
    kind.error = None
    trackers.open_all(_config(tmp_path), is_resumed=False)
    kind.error = OSError("no network")
    sent_to = trackers.open_all(_config(tmp_path), is_resumed=True)
    sent_to.write_scalars("train", 1, {"loss": 1.0})
    sent_to.close("finished")
    assert "The run new-1 cannot be opened in mlflow again (no network)" in caplog.text
    assert tracker_runs.read(str(tmp_path)).run_ids == {"mlflow": "new-1"}


def test_tracker_that_is_open_is_told_that_another_one_is_not(tmp_path, kind):
    open_run, names = kind.open_run, iter(["mlflow", "wandb"])

    def open_the_first(*args, **kwargs):
        kind.error = OSError("no network") if next(names) == "wandb" else None
        return open_run(*args, **kwargs)

    kind.open_run = open_the_first
    with pytest.raises(errors.ConfigError, match="^--tracker=wandb: no run can"):
        trackers.open_all(
            _config(tmp_path, tracker=("mlflow", "wandb")), is_resumed=False
        )
    assert [run.calls for run in kind.runs] == [["failed"]]


@pytest.mark.parametrize(
    "text", ["[]", "{}", "{", '{"run_ids": {"a": 1}, "sent": {}, "settings": {}}']
)
def test_note_that_cannot_be_read_is_a_warning(tmp_path, caplog, text):
    (tmp_path / "trackers.json").write_text(text)
    assert tracker_runs.read(str(tmp_path)) is None
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("name", list(registry.TRACKERS))
def test_missing_package_is_named_with_its_extra(name, monkeypatch, tmp_path):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda package: None)
    message = rf"^--tracker={name}: {name} needs .*`pip install '\.\[trackers\]'`"
    with pytest.raises(errors.ConfigError, match=message):
        trackers.check_installed(_config(tmp_path, tracker=(name,)))
    trackers.check_installed(_config(tmp_path, tracker=()))


def _send(config: config_lib.Config, *, is_resumed: bool, status: str, steps) -> None:
    sent_to = trackers.open_all(config, is_resumed=is_resumed)
    writer = summaries.SummaryWriter(config.run.model_dir, trackers=sent_to)
    for step in steps:
        values = {"loss": 1 / step, "loss/ce": 0.75, "iou/a, b": 0.5}
        writer.write_scalars("train", step, values)
    writer.close()
    sent_to.close(status)


def test_mlflow_keeps_one_run_over_a_stop(tmp_path, monkeypatch, caplog):
    mlflow = pytest.importorskip("mlflow", reason="needs segloop[trackers]")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path / 'store'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = tmp_path / "run"
    folder.mkdir()
    _send(_config(folder), is_resumed=False, status="stopped", steps=(1, 2))
    client = mlflow.MlflowClient(uri)
    run_id = tracker_runs.read(str(folder)).run_ids["mlflow"]
    assert client.get_run(run_id).info.status == "KILLED"
    again = _config(folder, learning_rate=0.5)
    _send(again, is_resumed=True, status="finished", steps=(2, 4))
    (experiment,) = client.search_experiments(filter_string="name = 'segloop'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert run.info.run_name == "run"
    assert run.data.params["batch_size"] == "64"
    assert run.data.tags["changed.learning_rate"] == "0.5"
    points = client.get_metric_history(run_id, "train/loss")
    assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 0.5), (4, 0.25)]
    names = {"train/loss", "train/loss.ce", "train/iou.a_ b"}
    assert run.data.metrics.keys() == names
    assert "does not take" not in caplog.text


class _WandbServer:
    """Stands for wandb and its server: one run, which may be opened again.

    As there, a row for a step that is no later than the last one of the run as it was
    opened is ignored, and only a warning of another process says so.
    """

    def __init__(self):
        self.rows, self.axes = [], {}
        self.config, self.id = {}, "one"
        self._first = 0

    def init(self, **_):
        self._first = max((row["_step"] for row in self.rows), default=-1) + 1
        return self

    def Settings(self, **_):
        return None

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values, step=None):
        last = max((row["_step"] for row in self.rows), default=-1)
        step = last + 1 if step is None else step
        if step >= self._first:
            self.rows.append({**values, "_step": step})

    def mark_preempting(self):
        pass

    def finish(self, exit_code):
        pass


class _WandbConfig(dict):
    def update(self, settings, allow_val_change):
        super().update(settings)


def test_wandb_gets_an_evaluation_of_the_step_at_which_a_run_was_stopped(
    tmp_path, monkeypatch
):
    """Of that step it has the training's point already."""
    server = _WandbServer()
    server.config = _WandbConfig()
    monkeypatch.setitem(sys.modules, "wandb", server)
    config = _config(tmp_path, tracker=("wandb",))
    sent_to = trackers.open_all(config, is_resumed=False)
    sent_to.write_scalars("train", 20, {"loss": 0.5})
    sent_to.close("stopped")
    sent_to = trackers.open_all(config, is_resumed=True)
    sent_to.write_scalars("eval", 20, {"loss": 0.75})
    sent_to.write_scalars("train", 40, {"loss": 0.25})
    sent_to.close("finished")
    assert server.axes == {"*": "step"}
    assert server.rows == [
        {"train/loss": 0.5, "step": 20, "_step": 0},
        {"eval/loss": 0.75, "step": 20, "_step": 1},
        {"train/loss": 0.25, "step": 40, "_step": 2},
    ]


def test_wandb_keeps_one_run_over_a_stop(tmp_path, monkeypatch, caplog):
    pytest.importorskip("wandb", reason="needs segloop[trackers]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = _config(tmp_path, tracker=("wandb",))
    _send(config, is_resumed=False, status="stopped", steps=(1, 2))
    run_id = tracker_runs.read(str(tmp_path)).run_ids["wandb"]
    _send(config, is_resumed=True, status="finished", steps=(2, 4))
    found = sorted(tmp_path.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(found) == 2  # A part for each start; `wandb sync` joins them by the id.
    assert b"train/loss" in found[0].read_bytes()
    assert "does not take" not in caplog.text
