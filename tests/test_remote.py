"""A run at a URL: published whole, killed anywhere, resumed; other paths as well."""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import sys
import threading
from unittest import mock

import pytest
import tensorflow as tf

from trainer import errors, flags
from trainer.modes import train
from trainer.remote import copies, fsspec_store, leases, mirrors, roles, stores
from trainer.run_folder import run_lock

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Returns a function that moves this process to a machine with another cache."""
    monkeypatch.setattr(stores, "_WAIT_SECS", (0.0, 0.0))
    monkeypatch.setattr(leases, "_POLL_SECS", 0.005)
    monkeypatch.setattr(leases, "_STALE_SECS", 0.02)

    def move_to(name):
        monkeypatch.setenv("SEGLOOP_CACHE", str(tmp_path / "caches" / name))

    move_to("first")
    yield move_to
    for copy in mirrors._mirrors.values():  # Of a session that was "killed".
        copy.close()
    mirrors._mirrors.clear()
    mirrors._fetched.clear()


@pytest.fixture
def url():
    """Returns the URL of a folder in memory that nobody has used."""
    return f"memory://bucket/{next(_numbers)}/run"


def _list(url):
    return sorted(stores.open_store(url, "model_dir").list())


def _read(url, name):
    return stores.open_store(url, "model_dir").read(name)


class _Killed(BaseException):
    """As SIGKILL: nothing in the program may catch it."""


@contextlib.contextmanager
def _killing_at(number=sys.maxsize):
    """Ends the program at the n-th change of a remote folder; yields the changes."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_put", "_write", "_delete"):
            original = getattr(fsspec_store.FsspecStore, name)

            def change(store, *args, _original=original):
                seen.append(args)
                if len(seen) >= number:
                    raise _Killed  # A dead process changes nothing more.
                return _original(store, *args)

            patch.setattr(fsspec_store.FsspecStore, name, change)
        yield seen


@pytest.fixture(params=["memory", "file", "ram"])
def store(request, tmp_path):
    """Returns an empty folder of each kind."""
    path = f"{tmp_path}/there" if request.param == "file" else f"b/{next(_numbers)}"
    return stores.open_store(f"{request.param}://{path}/", "model_dir")


def test_a_store_gives_back_what_it_was_given(store, tmp_path):
    assert store.list() == {}
    assert store.read("a.json") is None
    path = tmp_path / "file"
    path.write_bytes(b"\x00weights\xff")
    first = store.put(path, "checkpoints/step-1/state.data")
    store.write("a.json", b"{}")
    assert store.read("a.json") == b"{}"
    found = store.list()
    assert set(found) == {"a.json", "checkpoints/step-1/state.data"}
    assert found["checkpoints/step-1/state.data"] == first
    assert first.size == 9
    assert store.look("checkpoints/step-1/state.data") == first
    store.get("checkpoints/step-1/state.data", tmp_path / "new" / "copy", first)
    assert (tmp_path / "new" / "copy").read_bytes() == b"\x00weights\xff"
    path.write_bytes(b"longer than before")
    assert store.put(path, "checkpoints/step-1/state.data").tag != first.tag
    with pytest.raises(FileNotFoundError):  # It is another file by now.
        store.get("checkpoints/step-1/state.data", tmp_path / "copy", first)
    assert not (tmp_path / "copy").exists()
    store.delete("a.json")
    store.delete("a.json")
    with pytest.raises(FileNotFoundError):
        store.look("a.json")
    assert set(store.list()) == {"checkpoints/step-1/state.data"}


def test_what_fails_is_tried_again(url, monkeypatch, caplog):
    store = stores.open_store(url, "model_dir")
    failures = [TimeoutError("slow"), KeyError("a library's own error")]
    write = store._write

    def fail_twice(*args):
        if failures:
            raise failures.pop(0)
        write(*args)

    monkeypatch.setattr(store, "_write", fail_twice)
    store.write("a", b"1")
    assert store.read("a") == b"1"
    assert caplog.text.count("writing a failed") == 2
    failures += [OSError("down")] * 3
    with pytest.raises(OSError, match="down"):
        store.write("a", b"2")
    failures[:] = [PermissionError("no"), OSError("not reached")]
    with pytest.raises(PermissionError):
        store.write("a", b"2")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "foo://a/b",
            r"^--model_dir=foo://a/b: Protocol not known: foo; use gs://, s3",
        ),
        ("S3://a/b", r"^--model_dir=S3://a/b: Protocol not known: S3; use gs://, s3"),
        (
            "s3://a/b",
            r"needs the package s3fs, which is not .*pip install '.\[cloud\]'",
        ),
        ("abfs://a/b", r"=abfs://a/b: .*adlfs.*; install that, and start again"),
        ("dbfs://a/b", r"=dbfs://a/b: .* missing 2 required .*; use gs://, s3://, or"),
    ],
)
def test_a_url_that_cannot_work_says_what_would(url, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(errors.ConfigError, match=message):
        mirrors.open_run(url)


def test_a_folder_that_does_not_answer_ends_with_the_code_to_start_again(
    url, monkeypatch
):
    def fail(store):
        raise OSError("no route")

    monkeypatch.setattr(fsspec_store.FsspecStore, "_list", fail)
    with pytest.raises(errors.RemoteError, match="does not answer .no route") as caught:
        mirrors.open_run(url)
    assert caught.value.exit_code == 75


def test_a_kind_of_folder_that_cannot_be_written_is_refused_at_once(url, monkeypatch):
    """As http:// is, which can be read."""

    def fail(self, path, value):
        tries.append(path)
        raise NotImplementedError

    tries = []
    monkeypatch.setattr(
        "fsspec.implementations.memory.MemoryFileSystem.pipe_file", fail
    )
    with pytest.raises(errors.ConfigError, match=f"^--model_dir={url}: this kind of"):
        _train(url)
    assert len(tries) == 1


def test_a_tensorflow_folder_that_does_not_answer_is_not_empty(monkeypatch):
    store = stores.open_store("ram://silent", "model_dir")
    store.write("a/file", b"")

    def fail(path):
        raise tf.errors.UnavailableError(None, None, "no route")

    monkeypatch.setattr(tf.io.gfile, "stat", fail)
    with pytest.raises(OSError, match="no route"):
        store.list()
    monkeypatch.undo()
    monkeypatch.setattr(stores, "_WAIT_SECS", ())
    # What `listdir` asks first, and takes any error for a no.
    file_io = sys.modules[tf.io.gfile.listdir.__module__]
    monkeypatch.setattr(file_io, "is_directory", lambda path: path == "ram://silent")
    with pytest.raises(OSError, match="ram://silent/a cannot be listed"):
        store.list()


def test_a_folder_that_cannot_be_listed_is_not_left_out(tmp_path, monkeypatch):
    """Its files would count as deleted."""
    store = stores.open_store(f"file://{tmp_path}", "model_dir")
    for name in ("a/file", "b/file"):
        store.write(name, b"")
    reasons, scan = {}, os.scandir

    def scan_or_fail(path):
        if reason := reasons.get(os.path.basename(path)):
            raise reason
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_or_fail)
    reasons["a"] = ConnectionError("reset")
    with pytest.raises(OSError, match="reset"):
        store.list()
    reasons["a"] = FileNotFoundError("removed meanwhile")
    assert set(store.list()) == {"b/file"}


def test_a_server_that_is_asked_at_once_may_not_answer(monkeypatch):
    def fail(url, **options):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    message = "^--data_dir=ftp://a/b: it does not answer .*Connection refused"
    with pytest.raises(errors.RemoteError, match=message):
        mirrors.fetch("ftp://a/b", "data_dir")


@pytest.mark.parametrize("reason", ["a file", "a full disk"])
def test_a_cache_that_cannot_be_written_is_not_the_fault_of_the_url(
    url, tmp_path, monkeypatch, reason
):
    def fail(store, name, path):
        raise KeyError(f"{path}; No space left on device")

    stores.open_store(url, "model_dir").write("config.json", b"{}")
    if reason == "a file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SEGLOOP_CACHE", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(fsspec_store.FsspecStore, "_get", fail)
    message = f"^{mirrors.cache_root()} has the copies .* by the variable SEGLOOP_CACHE"
    with pytest.raises(errors.WriteError, match=message):
        mirrors.open_run(url)


def test_a_user_without_a_home_is_asked_for_a_cache(url, monkeypatch):
    for name in ("SEGLOOP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(errors.ConfigError, match="no place .*variable SEGLOOP_CACHE"):
        mirrors.open_run(url)


def _train(url, num_steps=3):
    """Does what a training does with its folder, a save a step; the weights are text.

    Returns the step that the run was resumed from.
    """
    lock = None
    try:
        with mirrors.session():
            folder = pathlib.Path(mirrors.open_run(url))
            with (
                run_lock.holding(folder, is_chief=True) as lock,
                mirrors.publishing(folder, is_chief=True),
            ):
                return _train_in(folder, num_steps)
    except _Killed:
        if lock:  # The system gives it back when a process dies.
            os.close(lock._descriptor)
        raise


def _train_in(folder, num_steps):
    first = _restore(folder)
    if first:  # Its score may not have been noted.
        _write_metadata(folder / f"checkpoints/step-{first:08d}", first, True)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines()[:first] if first else []
    assert len(lines) == first  # No point of a saved step is missing.
    metrics.write_text("".join(f"{line}\n" for line in lines))
    (folder / "config.json").write_text("settings")
    mirrors.publish(folder)
    for step in range(first + 1, num_steps + 1):
        with metrics.open("a") as file:
            file.write(f"point {step}\n")
        _save(folder, step)
        mirrors.publish(folder)
        # As the score of an evaluation is noted.
        _write_metadata(folder / f"checkpoints/step-{step:08d}", step, True)
        mirrors.publish(folder)
    _prune(folder)
    (folder / "predictions.png").write_text(f"picture {num_steps}")
    return first


def _save(folder, step):
    path = folder / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True, exist_ok=True)
    for name in ("state.data", "state.index"):
        (path / name).write_text(f"{name} {step}")
    _write_metadata(path, step, False)
    _prune(folder)


def _prune(folder):
    for old in sorted((folder / "checkpoints").iterdir())[:-2]:
        shutil.rmtree(old)


def _write_metadata(path, step, is_evaluated):
    text = json.dumps({"step": step, "is_evaluated": is_evaluated})
    partial = path / f".partial-{'0' * 32}"
    partial.write_text(text)
    partial.replace(path / "metadata.json")


def _restore(folder):
    """Returns the step of the newest checkpoint; all that are there must be whole."""
    steps = [0]
    for path in (folder / "checkpoints").glob("step-*"):
        step = json.loads((path / "metadata.json").read_text())["step"]
        for name in ("state.data", "state.index"):
            assert (path / name).read_text() == f"{name} {step}"
        steps.append(step)
    return max(steps)


def _contents(url):
    store = stores.open_store(url, "model_dir")
    return {n: store.read(n) for n in store.list() if n != roles.OWNER}


@pytest.mark.parametrize("machine", ["another", "the same"])
def test_a_run_killed_at_any_change_of_the_remote_folder_goes_on(
    url, cache, machine, monkeypatch
):
    if machine == "the same":  # It knows that the process is dead.
        monkeypatch.setattr(leases.Lease, "_wait_for_death", pytest.fail)
    with _killing_at() as changes:
        assert _train(url) == 0
    expected = _contents(url)
    names = {"checkpoints/step-0000000" + end for end in ("2/", "3/")}
    assert {n for n in names if any(name.startswith(n) for name in expected)} == names
    assert len(changes) > 20
    resumed = []
    for number in range(1, len(changes) + 1):
        other = f"{url}-{number}"
        cache(f"{number}")
        with _killing_at(number), pytest.raises(_Killed):
            _train(other)
        if machine == "another":  # Nothing is left but what was published.
            cache(f"{number}-other")
        resumed.append(_train(other))
        assert _contents(other) == expected, number
    assert resumed == sorted(resumed) and set(resumed) == {0, 1, 2, 3}


def test_only_what_has_changed_is_uploaded(url):
    _train(url, 2)
    with _killing_at() as changes:
        _train(url, 2)
    # The lock, taken and given up.
    assert [args[0] for args in changes] == ["run.lock", "run.lock"]
    with _killing_at() as changes:
        _train(url, 3)
    uploaded = [args[1] for args in changes if isinstance(args[0], pathlib.Path)]
    step = "checkpoints/step-00000003"
    assert uploaded == [
        f"{step}/state.data",
        f"{step}/state.index",
        "metrics.jsonl",
        f"{step}/metadata.json",
        f"{step}/metadata.json",
        "predictions.png",
    ]
    deleted = [args[0] for args in changes if len(args) == 1]
    step = "checkpoints/step-00000001"
    assert deleted == [
        f"{step}/metadata.json",  # From here on, the rest counts as rubbish.
        f"{step}/state.index",
        f"{step}/state.data",
        "run.lock",
    ]


def test_what_is_of_this_machine_or_half_written_is_not_published(url):
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        for name in (
            "run.lock",
            "crossfit/0/run.lock",
            ".rehearsal/checkpoints/step-00000001/state.data",
            "checkpoints/step-00000001.partial/state.data",
            f"train/.partial-{'0' * 32}",
            f"export/.partial-{'0' * 32}/model.onnx",
            f"export/.partial-{'0' * 32}/proof-1/in.npz",
            "train/events",
            "watch.json",
            "checkpoints/step-00000001/metadata.json",
            "checkpoints/step-00000001/state.data",
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        with _killing_at() as changes:
            mirrors.publish(folder)
    assert [name for _, name in changes] == [
        "checkpoints/step-00000001/state.data",
        "train/events",
        "checkpoints/step-00000001/metadata.json",
        "watch.json",
    ]
    assert set(_list(url)) == {name for _, name in changes}


def test_an_upload_is_tried_and_leaves_nothing(url, cache, tmp_path):
    mirrors.try_upload(tmp_path)  # Nothing is remote.
    with _holding(url) as (folder, _):
        scratch = folder / ".rehearsal"
        (scratch / "checkpoints").mkdir(parents=True)
        (scratch / "checkpoints" / "state.data").write_text("weights")
        before = _list(url)
        with _killing_at() as changes:
            mirrors.try_upload(scratch)
        assert [args[-1] for args in changes] == [
            ".rehearsal/checkpoints/state.data",
            ".rehearsal/checkpoints/state.data",  # Deleted.
        ]
        assert _list(url) == before
        with _killing_at() as changes:
            mirrors._find(folder).is_read_only = True
            mirrors.try_upload(scratch)
        assert changes == []
        mirrors._find(folder).is_read_only = False
        with pytest.MonkeyPatch.context() as patch, pytest.raises(_Killed):
            patch.setattr(stores.Store, "delete", _die)
            mirrors.try_upload(scratch)
    assert ".rehearsal/checkpoints/state.data" in _list(url)
    cache("another")
    _train(url, 1)
    assert not [name for name in _list(url) if name.startswith(".rehearsal")]


def _die(*args):
    raise _Killed


def test_half_published_checkpoints_are_not_taken_and_the_trainer_removes_them(
    url, cache
):
    rubbish = "checkpoints/step-00000009/state.data"
    _train(url, 1)
    stores.open_store(url, "model_dir").write(rubbish, b"half")
    cache("laptop")
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        (folder / "report.html").write_text("page")
        assert _restore(folder) == 1 and not (folder / rubbish).exists()
    assert {rubbish, "report.html"} <= set(_list(url))  # It may be being published.
    assert _train(url, 2) == 1
    assert rubbish not in _list(url)


def test_beside_a_process_that_uses_the_copy_nothing_is_downloaded(url, monkeypatch):
    """It would lose what it writes into a file that is replaced."""
    _train(url, 1)
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        (folder / "report.html").write_text("new")
        monkeypatch.setattr(copies.Copy, "download", lambda copy: pytest.fail("it is"))
        other = copies.Copy(stores.open_store(url, "model_dir"), folder.parent)
        other.open()
        other.publish()
        other.close()
    assert _read(url, "report.html") == b"new"


def test_what_a_mode_adds_to_a_run_is_published_and_seen_by_its_trainer(url, cache):
    _train(url, 2)
    cache("laptop")
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        assert _restore(folder) == 2
        (folder / "evaluations.jsonl").write_text("scores\n")
    assert _read(url, "evaluations.jsonl") == b"scores\n"
    cache("first")
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        assert (folder / "evaluations.jsonl").read_text() == "scores\n"
    assert _train(url, 3) == 2


def test_what_a_machine_has_not_published_counts_until_another_one_trains(
    url, cache, caplog
):
    _train(url, 1)
    with mirrors.session():  # Its network fails from here on.
        folder = pathlib.Path(mirrors.open_run(url))
        with mirrors.publishing(folder, is_chief=False):
            _train_in(folder, 2)
    assert not [name for name in _list(url) if "step-00000002" in name]
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        assert _restore(folder) == 2
        mirrors._mirrors[folder].is_read_only = True
    published = _read(url, "metrics.jsonl")
    cache("second")
    assert _train(url, 4) == 1
    cache("first")
    assert _train(url, 4) == 4
    assert "had not published are moved to" in caplog.text
    aside = folder.parent / "unpublished-1" / "checkpoints" / "step-00000002"
    assert (aside / "state.data").read_text() == "state.data 2"
    # It is there, too, but with other points.
    assert published == b"point 1\n"
    metrics = folder.parent / "unpublished-1" / "metrics.jsonl"
    assert metrics.read_text() == "point 1\npoint 2\n"
    assert not (folder.parent / "unpublished-2").exists()


@pytest.mark.parametrize("opened", ["before", "beside", "after"])
def test_an_evaluation_publishes_nothing_that_a_dead_trainer_has_left(
    url, tmp_path, opened, caplog
):
    """Another machine has gone on before the evaluation is over."""

    def open_on(machine):
        (tmp_path / machine).mkdir(exist_ok=True)
        store = stores.open_store(url, "model_dir")
        copy = copies.Copy(store, tmp_path / machine)
        copy.open()
        return copy

    def train_on(machine):
        copy = open_on(machine)
        copy.download()
        copy.claim()
        return copy

    def save(copy, step, text):
        _save(copy.folder, step)
        for name in ("metrics.jsonl", "predictions.png"):
            (copy.folder / name).write_text(text)

    evaluating = open_on("first") if opened == "before" else None
    training = train_on("first")
    for step in (1, 2):
        save(training, step, "first")
    training.publish()
    if opened == "beside":
        evaluating = open_on("first")
    save(training, 3, "dead")
    (training.folder / "checkpoints/step-00000003/state.data").write_text("dead")
    (training.folder / "encoder.json").write_text("dead")
    shutil.rmtree(training.folder / "checkpoints/step-00000002")
    training.close()
    if opened == "after":
        evaluating = open_on("first")
    other = train_on("second")
    save(other, 3, "second")
    other.publish()
    expected = _contents(url)

    (evaluating.folder / "evaluations").mkdir()
    added = {"evaluations.jsonl": b"scores\n", "evaluations/a.png": b"picture"}
    for name, data in added.items():
        (evaluating.folder / name).write_bytes(data)
    evaluating.publish()
    contents = _contents(url)
    (own,) = (name for name in contents if name.startswith("evaluations.jsonl.new-"))
    assert contents == {**expected, **added, own: b"scores\n"}
    assert f"{url} has been taken over by another machine; " in caplog.text

    evaluating.close()
    again = open_on("first")  # What was left is set aside.
    assert (again.folder / "metrics.jsonl").read_text() == "second"
    (again.folder / "predictions.png").write_text("anew")
    again.publish()
    assert _contents(url) == {**contents, "predictions.png": b"anew"}


def test_workers_on_other_machines_see_what_the_first_one_does(url, cache):
    """Of the first one's machine, what was not published does not count for it."""
    _train(url, 1)
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        with mirrors.publishing(folder, is_chief=False):
            _train_in(folder, 2)
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url, keeps_own=False))
        assert _restore(folder) == 1


def test_a_worker_that_came_early_has_what_was_published_until_all_met(
    url, cache, tmp_path
):
    """As one that starts again while the old chief still uploads its last save."""
    chief = copies.Copy(stores.open_store(url, "model_dir"), tmp_path)
    chief.open()
    chief.claim()
    _save(chief.folder, 1)
    chief.publish()
    cache("worker")
    with mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url, keeps_own=False))
        _save(chief.folder, 2)
        chief.publish()
        with mirrors.publishing(folder, is_chief=False):
            assert _restore(folder) == 1
            mirrors.catch_up(folder)
            assert _restore(folder) == 2
    mirrors.catch_up(tmp_path)  # Nothing is remote.


@pytest.mark.parametrize("is_chief", [True, False])
def test_nobody_downloads_again_where_the_chief_works(url, monkeypatch, is_chief):
    with _holding(url) as (folder, _):
        monkeypatch.setattr(copies.Copy, "download", lambda _: pytest.fail("it is"))
        mirrors._find(folder).is_read_only = not is_chief
        mirrors.catch_up(folder)


def test_a_training_catches_up_between_the_meeting_and_its_look_at_checkpoints(
    monkeypatch,
):
    calls = []
    monkeypatch.setattr(train, "preemption", mock.MagicMock())
    for place, name in (
        (train.devices, "prepare_devices"),
        (train.mirrors, "catch_up"),
        (train, "_run_with"),
    ):
        monkeypatch.setattr(place, name, lambda *_, n=name: calls.append(n))
    train._run_on_devices(mock.MagicMock(), mock.MagicMock(), started=0.0)
    assert calls == ["prepare_devices", "catch_up", "_run_with"]


def test_a_network_that_fails_loses_no_run(url, monkeypatch, caplog):
    put, is_down = fsspec_store.FsspecStore._put, []

    def fail(store, path, name):
        if is_down and path.name != "config.json":
            raise OSError("no route")
        put(store, path, name)

    monkeypatch.setattr(fsspec_store.FsspecStore, "_put", fail)
    is_down.append(True)
    with pytest.raises(errors.RemoteError, match="the same command publishes the rest"):
        _train(url, 2)
    assert "not all could be published (no route); the run goes on in" in caplog.text
    assert not [name for name in _list(url) if name.startswith("checkpoints/")]
    is_down.clear()
    assert _train(url, 2) == 2
    assert {"checkpoints/step-00000002/metadata.json", "predictions.png"} <= set(
        _list(url)
    )


def test_a_checkpoint_that_changes_is_withdrawn_first(url):
    """Else a kill would leave the old metadata with new weights."""
    _train(url, 1)
    step = "checkpoints/step-00000001"
    with _killing_at() as changes, mirrors.session():
        folder = pathlib.Path(mirrors.open_run(url))
        (folder / step / "state.data").write_text("others")
    assert [args[-1] for args in changes] == [
        f"{step}/metadata.json",  # Deleted.
        f"{step}/state.data",
        f"{step}/metadata.json",
    ]


@contextlib.contextmanager
def _holding(url):
    with mirrors.session():
        folder = mirrors.open_run(url)
        with (
            run_lock.holding(folder, is_chief=True) as lock,
            mirrors.publishing(folder, is_chief=True),
        ):
            yield pathlib.Path(folder), lock


def test_a_bucket_that_is_not_there_is_a_mistake_in_the_flag(url, monkeypatch):
    def fail(store, *args):
        raise FileNotFoundError("NoSuchBucket")

    monkeypatch.setattr(fsspec_store.FsspecStore, "_write", fail)
    with pytest.raises(errors.ConfigError, match=f"^--model_dir={url}: it is not the"):
        _train(url)


def test_messages_name_the_run_as_it_was_typed(url):
    with mirrors.session():
        folder = mirrors.open_run(url)
    text = f"--model_dir={folder}: in {folder}"
    assert mirrors.as_typed(text) == f"--model_dir={url}: in {folder}"


def test_a_second_trainer_is_refused_as_long_as_the_first_one_lives(
    url, cache, monkeypatch
):
    monkeypatch.setattr(leases, "_HEARTBEAT_SECS", 0.01)
    monkeypatch.setattr(leases, "_STALE_SECS", 60)
    with mirrors.session():
        folder = mirrors.open_run(url)
        with run_lock.holding(folder, is_chief=True) as lock:
            cache("second")
            other = copies.Copy(
                mirrors._mirrors.popitem()[1].store, mirrors.cache_root()
            )
            message = rf"^--model_dir={url}: another run is training there .process "
            with pytest.raises(errors.ConfigError, match=message):
                leases.Lease(other, "run.lock").acquire("token")
            lock.check()
    assert "run.lock" not in _list(url)


def test_who_has_lost_the_run_to_another_machine_publishes_nothing_more(url):
    message = "taken over by process 7 on far"
    with (
        pytest.raises(errors.LockLostError, match=message),
        _holding(url) as (folder, _),
    ):
        record = json.loads(_read(url, "run.lock"))
        record |= {"token": "other", "host": "far", "pid": 7}
        store = stores.open_store(url, "model_dir")
        store.write("run.lock", json.dumps(record).encode())
        (folder / "config.json").write_text("mine")
        mirrors.publish(folder)
    assert _read(url, "config.json") is None
    assert json.loads(_read(url, "run.lock"))["host"] == "far"


@pytest.mark.parametrize("last", ["state.data", "metadata.json"])
def test_who_loses_the_run_while_it_uploads_changes_nothing_more(
    url, monkeypatch, last
):
    _train(url, 2)
    put = fsspec_store.FsspecStore._put
    other = b'{"token": "other", "host": "far", "pid": 7, "started": "now"}'

    def put_and_lose(store, path, name):
        put(store, path, name)
        if path.name == last:
            store._write("run.lock", other)

    monkeypatch.setattr(fsspec_store.FsspecStore, "_put", put_and_lose)
    with (
        pytest.raises(errors.LockLostError, match="taken over by process 7 on far"),
        _holding(url) as (folder, lock),
    ):
        _save(folder, 3)  # And removes the first one.
        assert not lock.is_lost()
        try:
            mirrors.publish(folder)
        finally:
            assert lock.is_lost()
    names = _list(url)
    step = "checkpoints/step-00000003"
    uploaded = {"state.data", "state.index", "metadata.json"}
    if last == "state.data":
        uploaded = {"state.data"}
    found = {name.rpartition("/")[2] for name in names if name.startswith(step)}
    assert found == uploaded
    assert "checkpoints/step-00000001/metadata.json" in names


def test_heartbeats_find_out_that_a_run_was_taken_over(url, monkeypatch):
    monkeypatch.setattr(leases, "_HEARTBEAT_SECS", 0.01)
    with (
        pytest.raises(errors.LockLostError, match="It is gone"),
        _holding(url) as (_, lock),
    ):
        with lock._lease._writing:  # Not while it is about to write it anew.
            stores.open_store(url, "model_dir").delete("run.lock")
        for thread in threading.enumerate():
            if thread.name == "lease":
                thread.join(timeout=300)  # It ends when it has found that out.
        lock.check()


def test_a_folder_is_downloaded_once_with_the_times_of_its_files(url):
    store = stores.open_store(url, "data_dir")
    store.write("train/images/a.png", b"picture")
    store.write("train/masks/a.png", b"mask")
    folder = pathlib.Path(mirrors.fetch(url, "data_dir"))
    image = folder / "train" / "images" / "a.png"
    assert folder.name == "run" and image.read_bytes() == b"picture"
    # Of names, sizes and times is the fingerprint of a data set.
    assert image.stat().st_mtime == pytest.approx(
        store.look("train/images/a.png").modified, abs=1e-3
    )
    for is_changed in (False, True):
        mirrors._fetched.popitem()[1].close()
        if is_changed:
            store.write("train/images/a.png", b"another")
            store.delete("train/masks/a.png")
        got = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                fsspec_store.FsspecStore,
                "_get",
                lambda self, name, path, got=got, get=fsspec_store.FsspecStore._get: (
                    got.append(name),
                    get(self, name, path),
                ),
            )
            assert mirrors.fetch(url, "data_dir") == str(folder)
        assert got == (["train/images/a.png"] if is_changed else [])
    assert image.read_bytes() == b"another"
    assert not (folder / "train" / "masks").exists()


def test_a_file_is_downloaded_alone(url):
    store = stores.open_store(url, "encoder_weights")
    for name in ("a.weights.h5", "b.weights.h5"):
        store.write(name, name.encode())
    path = pathlib.Path(mirrors.fetch_file(f"{url}/b.weights.h5", "encoder_weights"))
    assert path.read_bytes() == b"b.weights.h5"
    assert [p.name for p in path.parent.iterdir()] == ["b.weights.h5"]
    with pytest.raises(errors.ConfigError, match="^--label_map=.*it is not there"):
        mirrors.fetch_file(f"{url}/c", "label_map")
    with pytest.raises(errors.ConfigError, match="^--label_map=.*/: this is a folder"):
        mirrors.fetch_file(f"{url}/", "label_map")


def test_paths_stay_what_they_are():
    for path in ("", "runs/a", "C://", "a:b", "/data"):
        assert mirrors.fetch(path, "data_dir") == path
        assert mirrors.fetch_file(path, "label_map") == path
    with pytest.raises(errors.ConfigError, match="^--data_dir=memory://no: .* no file"):
        mirrors.fetch("memory://no", "data_dir")


def test_flags_with_urls_become_paths_or_are_refused(url):
    config = flags.read_config([f"--model_dir={url}"]).config
    assert config.run.model_dir == str(next(iter(mirrors._mirrors)))
    for name, value, rest in (
        ("output", "s3://a/masks", ["--mode=predict", "--input=photos"]),
        ("cache_dir", "s3://a/cache", ["--cache=disk"]),
        ("export_dir", "gs://a/b", ["--mode=export"]),
        ("checkpoint", "gs://a/b", ["--mode=evaluate"]),
        ("images", "gs://a/*.png", ["--dataset=folder", "--masks=gs://a/*.png"]),
    ):
        with pytest.raises(errors.ConfigError, match=f"^--{name}=.*no place for a URL"):
            flags.read_config(["--model_dir=a", f"--{name}={value}", *rest])
    with pytest.raises(errors.ConfigError, match="^--model_dir=.*--watch looks at a"):
        flags.read_config([f"--model_dir={url}", "--mode=evaluate", "--watch"])
    several = f"--model_dir=a/b, {url},{url}2"
    config = flags.read_config([several, "--mode=report"]).config
    first, *others = config.run.model_dir.split(",")
    assert first == "a/b"
    assert len({pathlib.Path(path).parent for path in others}) == 2
    with pytest.raises(errors.ConfigError, match="two slashes: s3://a/b"):
        flags.read_config(["--model_dir=s3:/a/b"])
    assert flags.read_config(["--model_dir=C:/a"]).config.run.model_dir == "C:/a"
