"""What a training shows of itself: histograms, traces, memory, the table of runs."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from data.sources import synthetic
from tests import helpers
from trainer import errors, flags
from trainer.loop import timetable
from trainer.modes import train
from trainer.run_folder import boards, run_lock, scalars, summaries
from trainer.running import memory, profiling, stall
from trainer.settings import config as config_lib
from trainer.tracking import registry

_RUN = (
    "--encoder=plain",
    "--encoder_alpha=0.125",
    "--encoder_weights=none",
    "--nofreeze_encoder",
    "--image_size=32",
    "--decoder=unet",
    "--decoder_filters=8,8,8,8",
    "--batch_size=8",
    "--steps_per_loop=100",
    "--log_steps=4",
    "--train_epochs=0",
)


def _events(folder: pathlib.Path) -> list[tf.compat.v1.Event]:
    return [
        tf.compat.v1.Event.FromString(record)
        for path in sorted(folder.glob("events.out.tfevents.*"))
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]


def _values(folder: pathlib.Path, plugin: str) -> dict[tuple[int, str], object]:
    """Returns the summaries of a plugin by step and tag."""
    return {
        (event.step, value.tag): value
        for event in _events(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == plugin
    }


def _keeper(rig: helpers.Rig):
    return rig.loop.phases[-1].loop.keeper


@pytest.mark.parametrize(
    ("replicas", "num_parts", "policy", "clipnorm", "tolerance"),
    [
        (1, 1, "float32", 0.0, 1e-6),
        (2, 2, "float32", 0.01, 1e-6),
        (1, 1, "mixed_float16", 0.0, 1e-6),
    ],
)
def test_kept_gradients_are_what_moves_the_weights(
    replicas, num_parts, policy, clipnorm, tolerance
):
    rig = helpers.Rig(
        helpers.make_store(),
        replicas=replicas,
        num_parts=num_parts,
        policy=policy,
        global_clipnorm=clipnorm,
        learning_rate=0.5,
        optimizer_settings={"momentum": 0.0},
        histogram_steps=2,
    )
    rig.train(1)
    weights = rig.model.trainable_variables
    before = [variable.numpy() for variable in weights]
    rig.train(1)
    # Of plain gradient descent, the step is the gradient times the rate.
    found = _keeper(rig).distributions()
    assert len(found) == 2 * len(weights)
    for variable, old in zip(weights, before, strict=True):
        new = variable.numpy()
        assert (found[f"weights/{variable.path}"] == new).all()
        gradient = found[f"gradients/{variable.path}"]
        np.testing.assert_allclose((old - new) / 0.5, gradient, atol=tolerance)
        assert abs(gradient).max() > 1e-7
    rig.train(1)  # Not one of those.
    after = _keeper(rig).distributions()[f"gradients/{weights[0].path}"]
    assert (after == found[f"gradients/{weights[0].path}"]).all()


def test_looking_at_weights_and_gradients_moves_no_bit():
    def train_for(**settings) -> list[np.ndarray]:
        rig = helpers.Rig(helpers.make_store(), replicas=2, **settings)
        rig.train(4, steps_per_loop=2)
        assert (_keeper(rig) is None) == (not settings)
        return rig.weights()

    for one, other in zip(train_for(), train_for(histogram_steps=2), strict=True):
        assert (one == other).all()


def test_histograms_are_of_the_finite_numbers(tmp_path):
    writer = summaries.SummaryWriter(str(tmp_path))
    array = np.array([[1.0, 2.0, 4.0], [np.nan, np.inf, -np.inf]], np.float32)
    writer.write_histograms("train", 3, {"some": array, "none": array[1]})
    writer.close()
    ((key, value),) = _values(tmp_path / "train", "histograms").items()
    assert key == (3, "some")
    buckets = tf.make_ndarray(value.tensor)  # [left, right, count]
    assert (buckets[0, 0], buckets[-1, 1], buckets[:, 2].sum()) == (1.0, 4.0, 3.0)


def _calendar(*, has_evaluation: bool = False, **changes) -> timetable.Calendar:
    settings = {
        "steps_per_loop": 10,
        "log_steps": 1000,
        "checkpoint_interval": 0,
        "epochs_between_evals": 1,
        "summary_images": 0,
        "best_metric": "loss",
        "early_stopping_patience": 0,
        "has_average_warmup": False,
        "histogram_steps": 0,
        "profile_steps": (),
    }
    return timetable.Calendar(
        timetable.Settings(**{**settings, **changes}),
        num_steps=25,
        epochs_done=lambda step: 0,
        has_evaluation=has_evaluation,
    )


def _stops(calendar: timetable.Calendar, step: int = 0) -> list[int]:
    stops = [step]
    while stops[-1] < 25:
        stops.append(calendar.next_stop(stops[-1]))
    return stops


def test_device_loops_end_where_there_is_something_to_look_at():
    assert _stops(_calendar()) == [0, 10, 20, 25]
    assert _stops(_calendar(histogram_steps=8)) == [0, 8, 16, 24, 25]
    # Of the steps 4 to 16: the loop before them ends after step 3.
    traced = _calendar(profile_steps=(4, 16))
    assert _stops(traced) == [0, 3, 13, 16, 25]
    assert [step for step in range(25) if traced.is_traced(step)] == [*range(3, 16)]
    assert _stops(traced, 9) == [9, 16, 25]
    assert _stops(_calendar(profile_steps=(1, 1))) == [0, 1, 11, 21, 25]


def test_a_run_without_evaluations_never_ends_early():
    """Also where one that ended early goes on without them."""
    patience = {"early_stopping_patience": 2}
    evaluated = _calendar(has_evaluation=True, **patience)
    assert [evaluated.is_early_end(n) for n in (1, 2, 3)] == [False, True, True]
    assert not _calendar(has_evaluation=True).is_early_end(9)
    assert not _calendar(**patience).is_early_end(2)


def test_trace_is_written_where_the_profile_tab_looks(tmp_path, caplog):
    caplog.set_level("INFO")
    profiler = profiling.Profiler(tmp_path)
    profiler.close(1)
    profiler.open(2)
    profiler.open(3)
    assert profiler.is_open
    with profiler.marking(2):
        tf.add(1, 2)
    profiler.close(5)
    profiler.close(6)
    assert not profiler.is_open
    with profiler.marking(6):
        pass  # No trace is open, and none is looked for.
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert b"step_num" in trace.read_bytes()
    assert "The trace of steps 3 to 5 is in" in caplog.text


def test_trace_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    tf.profiler.experimental.start(str(tmp_path))
    try:
        profiler = profiling.Profiler(tmp_path)
        profiler.open(2)
        profiler.close(3)
    finally:
        tf.profiler.experimental.stop(save=False)
    assert caplog.text.count("No trace is written") == 1
    assert not list(tmp_path.iterdir())


def test_other_processes_of_a_cluster_make_no_trace(tmp_path):
    profiler = profiling.Profiler(tmp_path, is_chief=False)
    profiler.open(2)
    assert not profiler.is_open
    profiler.close(3)
    assert not list(tmp_path.iterdir())


def test_memory_grows_by_what_is_taken():
    before = memory.scores()
    taken = np.ones([64, 2**20], np.uint8)
    # 64 MiB, but for what other threads give back.
    grown = memory.scores()["host_memory_mib"] - before["host_memory_mib"]
    assert 32 < grown < 128, taken.shape
    assert before.keys() == {"host_memory_mib"}  # Without a GPU.


def test_peak_is_that_of_the_fullest_device(monkeypatch):
    peaks = {"/device:GPU:0": 2**20, "/device:GPU:1": 3 * 2**20}
    devices = [tf.config.LogicalDevice(name, "GPU") for name in peaks]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices)
    monkeypatch.setattr(
        tf.config.experimental, "get_memory_info", lambda name: {"peak": peaks[name]}
    )
    assert memory.scores()["device_memory_peak_mib"] == 3.0


class _Memory:
    """A tracker that remembers."""

    runs = {}

    def __init__(self, run_id):
        self.run_id = run_id
        self._record = self.runs[run_id]

    def log(self, step, values):
        self._record["points"].append((step, dict(values)))

    def close(self, status):
        self._record["statuses"].append(status)


def open_run(run_id, *, name, folder, settings):
    """Stands for the function of a tracker's module; this module stands for that."""
    if not run_id:
        run_id = f"run-{len(_Memory.runs)}"
        _Memory.runs[run_id] = {
            "name": name, "settings": settings, "points": [], "statuses": []
        }  # fmt: skip
    return _Memory(run_id)


@pytest.fixture(name="memory_runs")
def _memory_runs(monkeypatch):
    """Puts the tracker that remembers in the place of MLflow; returns its runs."""
    kind = registry.Kind(__name__, "memory", package="json")
    monkeypatch.setitem(registry.TRACKERS, "mlflow", kind)
    monkeypatch.setattr(_Memory, "runs", {})
    return _Memory.runs


@pytest.fixture(name="run")
def _run(monkeypatch, tmp_path):
    """Returns a function that trains in this process."""
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 32, "test": 8})

    def run(*arguments: str) -> pathlib.Path:
        given = (*_RUN, f"--model_dir={tmp_path / 'run'}", *arguments)
        train.run(flags.read_config(given).config)
        return tmp_path / "run"

    return run


def test_training_shows_all_that_was_asked_for(run, monkeypatch, memory_runs):
    opened, closed = [], []
    monkeypatch.setattr(
        profiling.Profiler, "open", lambda self, step: opened.append(step)
    )
    monkeypatch.setattr(
        profiling.Profiler, "close", lambda self, step: closed.append(step)
    )
    folder = run(
        "--train_steps=8",
        "--summary_histograms=3",
        "--profile_steps=2,5",
        "--tracker=mlflow",
        "--seed=5",
    )
    histograms = _values(folder / "train", "histograms")
    assert {step for step, _ in histograms} == {3, 6}
    kinds = {tag.split("/")[0] for _, tag in histograms}
    assert kinds == {"weights", "gradients"}
    # Loops end after the steps 1, 3 (histograms), 4 (an evaluation, which is left out
    # of the trace), 5, 6 and 8.
    assert opened == [1, 3, 4]
    assert [step for step in closed if step in (4, 5)] == [4, 5]

    ((_, layout),) = _values(folder / "train", "custom_scalars").items()
    layout = layout_pb2.Layout.FromString(tf.make_ndarray(layout.tensor).item())
    tags = {tag for chart in layout.category[0].chart for tag in chart.multiline.tag}
    points = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    shown = {f"^{tag}$" for point in points for tag in point}
    assert tags - shown == {"^device_memory_peak_mib$"}
    assert points[0]["host_memory_mib"] > 100

    session = _values(folder / "hparams", metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(
        session[0, metadata.SESSION_START_INFO_TAG].metadata.plugin_data.content
    )
    assert start.hparams["seed"].number_value == 5
    assert start.hparams["encoder"].string_value == "plain"
    end = metadata.parse_session_end_info_plugin_data(
        session[8, metadata.SESSION_END_INFO_TAG].metadata.plugin_data.content
    )
    assert end.status == 1  # STATUS_SUCCESS
    final = _values(folder / "hparams", "scalars")[8, "final/eval_mean_iou"]
    last = scalars.read_last_point(str(folder), "eval")
    assert tf.make_ndarray(final.tensor) == np.float32(last["mean_iou"])

    (tracked,) = memory_runs.values()
    assert tracked["statuses"] == ["finished"]
    assert tracked["name"] == "run"
    assert tracked["settings"]["seed"] == 5
    expected = [
        (
            point.pop("step"),
            {f"{point['split']}/{t}": v for t, v in point.items() if t != "split"},
        )
        for point in points
    ]
    assert tracked["points"] == expected


def test_steps_to_trace_that_the_run_does_not_have_are_refused(run):
    message = "^--profile_steps=9,12: the run has 8 steps; name some of them"
    with pytest.raises(errors.ConfigError, match=message):
        run("--train_steps=8", "--profile_steps=9,12")


def test_run_that_fails_is_told_to_have_failed(run, memory_runs, monkeypatch):
    monkeypatch.setattr(memory, "scores", lambda: {"loss": 1 / 0})
    with pytest.raises(ZeroDivisionError):
        run("--train_steps=8", "--mode=train", "--tracker=mlflow")
    (tracked,) = memory_runs.values()
    assert tracked["statuses"] == ["failed"]


@pytest.mark.parametrize(
    ("owner", "name", "has_tracker_run"),
    [
        (train, "_check_profile", False),
        (train.trackers, "open_all", True),
        (memory, "scores", True),
        (train, "_final_scores", True),
    ],
)
def test_run_that_another_process_has_taken_over_is_left_to_that(
    run, memory_runs, monkeypatch, tmp_path, owner, name, has_tracker_run
):
    path = tmp_path / "run" / run_lock.FILE_NAME
    call = getattr(owner, name)

    def call_and_lose(*args, **kwargs):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "token": "other", "pid": 7}))
        return call(*args, **kwargs)

    monkeypatch.setattr(owner, name, call_and_lose)
    with pytest.raises(errors.LockLostError, match="taken over by process 7"):
        run("--train_steps=4", "--mode=train", "--tracker=mlflow")
    assert [tracked["statuses"] for tracked in memory_runs.values()] == (
        [[]] if has_tracker_run else []
    )
    is_begun = name not in ("_check_profile", "open_all")
    assert (tmp_path / "run" / "config.json").exists() == is_begun


def test_run_that_stands_still_is_told_to_have_failed(run, memory_runs, monkeypatch):
    told = []

    def exit_at_once(code):
        told.extend(memory_runs["run-0"]["statuses"])
        raise SystemExit(code)

    monkeypatch.setattr(stall.os, "_exit", exit_at_once)
    subject = stall._Subject(lambda: 0, "")
    monkeypatch.setattr(memory, "scores", lambda: stall._end(1, subject, 0))
    with pytest.raises(SystemExit, match="70"):
        run("--train_steps=8", "--mode=train", "--tracker=mlflow")
    assert told == ["failed"] == memory_runs["run-0"]["statuses"]
    assert not stall._before_end


def test_table_of_runs_has_what_was_given_and_what_matters():
    config = config_lib.from_dict(
        {
            "model_dir": "a",
            "warmup_steps": 7,
            "random_scale": (0.5, 2.0),
            "log_steps": 7,
            "virtual_devices": 2,
        }
    )
    shown = boards.select_settings(config)
    assert shown["warmup_steps"] == 7
    assert shown["random_scale"] == "0.5,2.0"
    assert shown["learning_rate"] == config.optimizer.learning_rate
    assert "momentum" not in shown
    assert shown.keys().isdisjoint({"model_dir", "log_steps", "virtual_devices"})
    names = config_lib.fields_by_name().keys()
    assert names >= {*boards._IMPORTANT, *boards._NO_MATTER}
