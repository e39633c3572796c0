"""What a run writes can be read by TensorBoard, and taken back by a resumed run."""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from tests.faults import processes
from trainer import errors
from trainer.remote import copies, fsspec_store, stores
from trainer.run_folder import event_files, scalars, summaries


def _write(folder: pathlib.Path, points, *, split: str = "train") -> None:
    """Writes points (step, loss) as one run would."""
    writer = summaries.SummaryWriter(str(folder))
    for step, loss in points:
        writer.write_scalars(split, step, {"loss": loss})
    writer.close()


def _lines(folder: pathlib.Path) -> list[dict]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _event_files(folder: pathlib.Path, split: str = "train") -> list[pathlib.Path]:
    return sorted((folder / split).iterdir())


def _events(folder: pathlib.Path, split: str = "train") -> list[tuple]:
    """Reads (step, tag, value) of all scalars of a split."""
    points = []
    for file in _event_files(folder, split):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                number = tf.make_ndarray(value.tensor).item()
                points.append((event.step, value.tag, number))
    return points


def test_scalars_become_a_line_for_each_point(tmp_path):
    writer = summaries.SummaryWriter(str(tmp_path))
    writer.write_scalars("train", 10, {"loss": 0.5, "iou/cat": 0.25})
    writer.write_scalars("eval", 20, {"loss": 0.75})
    assert _lines(tmp_path) == [
        {"step": 10, "split": "train", "loss": 0.5, "iou/cat": 0.25},
        {"step": 20, "split": "eval", "loss": 0.75},
    ]


def test_scalars_become_events_of_their_split(tmp_path):
    writer = summaries.SummaryWriter(str(tmp_path))
    writer.write_scalars("train", 10, {"loss": 0.5, "iou/cat": 0.25})
    writer.write_scalars("eval", 20, {"loss": 0.75})
    writer.close()
    assert _events(tmp_path, "train") == [(10, "loss", 0.5), (10, "iou/cat", 0.25)]
    assert _events(tmp_path, "eval") == [(20, "loss", 0.75)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_left_out(value, tmp_path):
    writer = summaries.SummaryWriter(str(tmp_path))
    writer.write_scalars("eval", 10, {"iou/cat": value, "loss": 0.5})
    writer.close()
    assert _lines(tmp_path) == [{"step": 10, "split": "eval", "loss": 0.5}]
    assert _events(tmp_path, "eval") == [(10, "loss", 0.5)]


def test_writer_that_writes_nothing_makes_no_file(tmp_path):
    writer = summaries.SummaryWriter(str(tmp_path))
    writer.flush()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_flushed_points_are_on_disk_while_the_writer_is_open(tmp_path):
    writer = summaries.SummaryWriter(str(tmp_path))
    writer.write_scalars("train", 10, {"loss": 0.5})
    writer.flush()
    assert _events(tmp_path) == [(10, "loss", 0.5)]


def test_image_is_written_as_it_is(tmp_path):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    writer = summaries.SummaryWriter(str(tmp_path))
    writer.write_image("eval", 5, "photo", image)
    writer.close()
    (file,) = _event_files(tmp_path, "eval")
    records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    (value,) = tf.compat.v1.Event.FromString(records[-1]).summary.value
    # Width and height as strings, then one PNG for each picture.
    width, height, png = tf.make_ndarray(value.tensor)
    assert (int(width), int(height)) == (3, 2)
    np.testing.assert_array_equal(tf.io.decode_png(png), image)


def test_later_points_are_dropped_from_lines_and_events(tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0), (30, 2.0)])
    _write(tmp_path, [(20, 3.5), (40, 2.5)], split="eval")
    summaries.drop_points_after(str(tmp_path), {"train": 20, "eval": 20})
    assert [(line["step"], line["split"]) for line in _lines(tmp_path)] == [
        (10, "train"),
        (20, "train"),
        (20, "eval"),
    ]
    assert _events(tmp_path, "train") == [(10, "loss", 4.0), (20, "loss", 3.0)]
    assert _events(tmp_path, "eval") == [(20, "loss", 3.5)]


def test_resumed_run_writes_each_point_once(tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0), (30, 2.0)])
    summaries.drop_points_after(str(tmp_path), {"train": 20, "eval": 20})
    _write(tmp_path, [(30, 2.0), (40, 1.0)])
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30, 40]
    assert sorted(step for step, _, _ in _events(tmp_path)) == [10, 20, 30, 40]


def test_dropping_leaves_no_other_file_behind(tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    before = sorted(tmp_path.rglob("*"))
    summaries.drop_points_after(str(tmp_path), {"train": 10, "eval": 10})
    assert sorted(tmp_path.rglob("*")) == before


def test_no_file_is_touched_when_there_is_nothing_to_drop(tmp_path):
    def state():
        return {
            path: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in tmp_path.rglob("*")
        }

    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    before = state()
    summaries.drop_points_after(str(tmp_path), {"train": 20, "eval": 20})
    assert state() == before


def test_dropping_in_an_empty_model_dir_does_nothing(tmp_path):
    summaries.drop_points_after(str(tmp_path), {"train": 20, "eval": 20})
    assert list(tmp_path.iterdir()) == []


# A record is 8 bytes of length, 4 of checksum, the event (here 40 or more) and 4 of
# checksum: cut in the last checksum, in the event, and in the length.
@pytest.mark.parametrize("cut", ["checksum", "event", "length"])
def test_truncated_last_record_is_dropped(cut, tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    (file,) = _event_files(tmp_path)
    data = file.read_bytes()
    *_, last = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    start = len(data) - (8 + 4 + len(last) + 4)
    end = {"checksum": len(data) - 2, "event": start + 20, "length": start + 5}[cut]
    file.write_bytes(data[:end])
    summaries.drop_points_after(str(tmp_path), {"train": 50, "eval": 50})
    assert _events(tmp_path) == [(10, "loss", 4.0)]


# Cut in the middle, and before the closing brace.
@pytest.mark.parametrize("num_bytes", [30, 2])
def test_truncated_last_line_is_dropped(num_bytes, tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-num_bytes])
    summaries.drop_points_after(str(tmp_path), {"train": 50, "eval": 50})
    assert [line["step"] for line in _lines(tmp_path)] == [10]


def test_line_that_lacks_only_its_end_does_not_swallow_the_next(tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-1])
    summaries.drop_points_after(str(tmp_path), {"train": 20, "eval": 20})
    _write(tmp_path, [(30, 2.0)])
    assert [line["step"] for line in _lines(tmp_path)] == [10, 20, 30]


def test_last_point_is_the_newest_of_its_split(tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    _write(tmp_path, [(20, 3.5)], split="eval")
    _write(tmp_path, [(30, 2.0)])
    point = scalars.read_last_point(str(tmp_path), "eval")
    assert point == {"step": 20, "split": "eval", "loss": 3.5}


def test_last_point_is_none_without_a_file(tmp_path):
    assert scalars.read_last_point(str(tmp_path), "eval") is None


def test_last_point_is_none_without_a_point_of_the_split(tmp_path):
    _write(tmp_path, [(10, 4.0)])
    assert scalars.read_last_point(str(tmp_path), "eval") is None


def test_last_point_skips_a_truncated_line(tmp_path):
    _write(tmp_path, [(10, 4.0), (20, 3.0)])
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-5])
    assert scalars.read_last_point(str(tmp_path), "train")["step"] == 10


@pytest.fixture(name="small_files")
def _small_files(monkeypatch):
    """Lets files of curves be left for new ones after a few points."""
    monkeypatch.setattr(event_files, "MOST_BYTES", 150)


def test_large_files_are_left_for_new_ones_and_read_as_one(tmp_path, small_files):
    writer = summaries.SummaryWriter(str(tmp_path))
    for step in range(1, 13):
        writer.write_scalars("train", step, {"loss": step / 4})
        if step == 2:
            writer.write_scalars("eval", step, {"loss": 9.0})
        writer.flush()
    writer.close()
    assert len(_event_files(tmp_path)) > 3
    assert len(_event_files(tmp_path, "eval")) == 1
    expected = [(step, "loss", step / 4) for step in range(1, 13)]
    assert sorted(_events(tmp_path)) == expected
    assert scalars.read_last_steps(tmp_path) == {"train": 12, "eval": 2}
    assert scalars.read_last_point(tmp_path, "train")["step"] == 12
    assert scalars.read_last_point(tmp_path, "eval")["loss"] == 9.0


def test_a_resumed_run_drops_points_of_all_files_that_it_finds(tmp_path, small_files):
    _write(tmp_path, [(step, 1.0) for step in range(1, 13)])
    summaries.drop_points_after(str(tmp_path), {"train": 5})
    _write(tmp_path, [(step, 2.0) for step in range(6, 13)])
    assert [(line["step"], line["loss"]) for line in _lines(tmp_path)] == [
        (step, 1.0 if step < 6 else 2.0) for step in range(1, 13)
    ]
    assert sorted(step for step, *_ in _events(tmp_path)) == list(range(1, 13))


def test_a_long_run_at_a_url_uploads_each_event_a_few_times(tmp_path, monkeypatch):
    """A file of all events would be uploaded at each save."""
    monkeypatch.setattr(event_files, "MOST_BYTES", 2000)
    sent = []

    def count(store, path, name, put=fsspec_store.FsspecStore._put):
        if "tfevents" in name:
            sent.append(path.stat().st_size)
        put(store, path, name)

    monkeypatch.setattr(fsspec_store.FsspecStore, "_put", count)
    store = stores.open_store("memory://long-run", "model_dir")
    copy = copies.Copy(store, tmp_path)
    copy.open()
    writer = summaries.SummaryWriter(str(copy.folder))
    for step in range(1, 201):
        writer.write_scalars("train", step, {"loss": 0.25, "accuracy": 0.5})
        if step % 2 == 0:
            writer.flush()
            copy.publish()
    writer.close()
    copy.publish()
    copy.close()
    sizes = [path.stat().st_size for path in copy.folder.rglob("*tfevents*")]
    assert sum(sizes) > 20_000
    assert set(store.list()) == copy._scan()
    # At each save, a file that has half of the most bytes on average.
    assert sum(sent) < sum(sizes) + 100 * 2000
    assert sum(sent) < 100 * sum(sizes) / 2 / 5


class _TensorBoard:
    """The real server, on loopback."""

    def __init__(self, folder: pathlib.Path):
        command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}"]
        # It takes a free port, and says which.
        command += ["--host=127.0.0.1", "--port=0", "--load_fast=false"]
        self._log = folder.with_name("tensorboard.log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
                stdout=log,
                stderr=log,
            )
        # A proxy of the environment knows nothing of this machine's loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **query: str):
        """Asks the server; None if it does not answer (yet)."""
        said = re.search(r"http://127.0.0.1:\d+/", self._log.read_text())
        if not said:
            return None
        try:
            with self._opener.open(
                f"{said[0]}data/plugin/{path}?{urllib.parse.urlencode(query)}",
                timeout=60,
            ) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def wait_for(self, path: str, is_ready, **query: str):
        """Asks again and again until the answer is as it should be."""
        answer = None

        def has_answered() -> bool:
            nonlocal answer
            answer = self.get(path, **query)
            return answer is not None and is_ready(answer)

        processes.wait_for(has_answered, self._process)
        return answer

    def close(self) -> None:
        """Ends the server."""
        self._process.kill()
        self._process.wait()


def _num_curves(runs: dict[str, dict]) -> int:
    return sum(len(tags) for tags in runs.values())


def test_tensorboard_shows_the_curves_of_both_splits(tmp_path, small_files):
    writer = summaries.SummaryWriter(str(tmp_path))
    for step, loss in [(10, 4.0), (20, 3.0), (30, 9.0)]:
        writer.write_scalars("train", step, {"loss": loss})
        writer.flush()
    writer.close()
    assert len(_event_files(tmp_path)) > 1
    summaries.drop_points_after(
        str(tmp_path), {"train": 20, "eval": 20}
    )  # Files that we rewrote, too.
    _write(tmp_path, [(20, 3.5)], split="eval")
    board = _TensorBoard(tmp_path)
    try:
        tags = board.wait_for("scalars/tags", lambda runs: _num_curves(runs) == 2)
        train = board.wait_for(
            "scalars/scalars", lambda p: len(p) == 2, run="train", tag="loss"
        )
        evaluation = board.wait_for(
            "scalars/scalars", lambda p: p, run="eval", tag="loss"
        )
    finally:
        board.close()
    assert {run: set(names) for run, names in tags.items()} == {
        "train": {"loss"},
        "eval": {"loss"},
    }
    # Each point is [wall time, step, value].
    assert [point[1:] for point in train] == [[10, 4.0], [20, 3.0]]
    assert [point[1:] for point in evaluation] == [[20, 3.5]]


def test_points_that_cannot_be_written_are_lost_with_one_warning(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").mkdir()
    (tmp_path / "train").write_text("a file where the folder of events should be")
    writer = summaries.SummaryWriter(str(tmp_path))
    with caplog.at_level("WARNING"):
        for step in (1, 2):
            writer.write_scalars("train", step, {"loss": 1.0})
            writer.flush()
        writer.close()
    assert caplog.text.count("are lost; training goes on") == 1


def test_a_full_disk_leaves_whole_records_and_lines_and_later_points_are_read(tmp_path):
    """Many limits, so that the disk is full at many places of a record."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1, 60, 100, 150, 151, 152, 170, 200):
        folder = tmp_path / str(limit)
        folder.mkdir()
        writer = summaries.SummaryWriter(str(folder))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            for step in range(1, 9):
                writer.write_scalars("train", step, {"loss": 1.0})
                writer.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        writer.write_scalars("train", 9, {"loss": 2.0})
        writer.close()
        assert all(path.stat().st_size for path in folder.rglob("*"))
        assert _lines(folder)[-1] == {"step": 9, "split": "train", "loss": 2.0}
        found = []
        for path in _event_files(folder):  # Damage is an error here.
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                found.append(tf.compat.v1.Event.FromString(record).step)
        assert 9 in found


def test_lines_of_others_are_moved_elsewhere_with_a_word(tmp_path, caplog):
    _write(tmp_path, [(1, 0.1), (2, 0.2)])
    metrics = tmp_path / "metrics.jsonl"
    foreign = [b"note", b"[]", b'{"step": "1"}', b'{"step": 1, "split": []}', b"\xff"]
    metrics.write_bytes(b"\n".join([*foreign, metrics.read_bytes()]))
    assert scalars.read_last_point(tmp_path, "train")["step"] == 2
    summaries.drop_points_after(tmp_path, {"train": 1, "eval": 1})
    assert [point["step"] for point in _lines(tmp_path)] == [1]
    assert len((tmp_path / "metrics.foreign").read_text().splitlines()) == 5
    assert "metrics.jsonl holds 5 lines that are no points" in caplog.text


@pytest.mark.parametrize(
    "content", [b"not events", None], ids=["other", "not an event"]
)
def test_a_file_that_only_has_the_name_of_an_event_file_is_set_aside(tmp_path, content):
    path = tmp_path / "train" / "events.out.tfevents.1.mine"
    path.parent.mkdir()
    if content:
        path.write_bytes(content)
    else:
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(b"\xff\xff")
    (tmp_path / "train" / "events.out.tfevents.2.folder").mkdir()
    (tmp_path / "train" / "events.out.tfevents.3.empty").write_bytes(b"")
    before = path.read_bytes()
    summaries.drop_points_after(tmp_path, {"train": 1, "eval": 1})
    assert [file.name for file in _event_files(tmp_path)] == [
        "events.out.events.1.mine.damaged-1",
        "events.out.tfevents.2.folder",
    ]
    assert _event_files(tmp_path)[0].read_bytes() == before


def test_events_in_another_order_are_dropped_one_by_one(tmp_path):
    _write(tmp_path, [(1, 0.1), (5, 0.5), (2, 0.2)])
    summaries.drop_points_after(tmp_path, {"train": 3, "eval": 3})
    assert [step for step, *_ in _events(tmp_path)] == [1, 2]


def test_without_the_lock_no_point_is_written(tmp_path):
    def fail():
        raise errors.LockLostError("lost")

    writer = summaries.SummaryWriter(str(tmp_path), check_lock=fail)
    with pytest.raises(errors.LockLostError):
        writer.write_scalars("train", 1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_without_the_lock_no_earlier_point_is_added_to_the_events(tmp_path):
    """Whoever has the lock now writes it again."""
    is_lost = []

    def check():
        if is_lost:
            raise errors.LockLostError("lost")

    writer = summaries.SummaryWriter(str(tmp_path), check_lock=check)
    writer.write_scalars("train", 1, {"loss": 1.0})
    before = [path.read_bytes() for path in _event_files(tmp_path)]
    is_lost.append(True)
    for end in (writer.flush, writer.close):
        with pytest.raises(errors.LockLostError):
            end()
    assert [path.read_bytes() for path in _event_files(tmp_path)] == before
