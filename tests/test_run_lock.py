"""One training at a time in a folder, whoever else dies, sleeps or starts."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from data.stores import file_locks
from tests.faults import processes
from trainer import errors, holders
from trainer.run_folder import run_lock


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


@pytest.fixture(autouse=True)
def _be_quick(monkeypatch):
    """Lets a process of another host count as dead after a moment."""
    monkeypatch.setattr(run_lock, "_STALE_SECS", 0.3)
    monkeypatch.setattr(run_lock, "_POLL_SECS", 0.02)
    monkeypatch.setattr(run_lock, "_SETTLE_SECS", 0.2)
    monkeypatch.setattr(run_lock, "_HEARTBEAT_SECS", 0.05)


@pytest.fixture(params=["locks", "no locks"])
def _file_system(request, monkeypatch):
    """Runs a test as on a file system with locks, and as on one without."""
    if request.param == "no locks":
        monkeypatch.setattr(file_locks, "try_lock", lambda descriptor: None)
    return request.param


def _holding(folder):
    return run_lock.holding(str(folder), is_chief=True)


def _write_record(folder, **changes):
    """Leaves what a process of another host that died has left."""
    with _holding(folder) as lock:
        record = json.loads((folder / run_lock.FILE_NAME).read_text())
        lock.check()
    record |= {"token": "other", "host": "far", "pid": 7, "place": "far:1", **changes}
    (folder / run_lock.FILE_NAME).write_text(json.dumps(record))


def _hold_in_another_process(folder):
    program = (
        "import sys, time\n"
        "from trainer.run_folder import run_lock\n"
        "with run_lock.holding(sys.argv[1], is_chief=True) as lock:\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    lock.check()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        cwd=processes.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_second_run_is_refused_and_told_who_trains(tmp_path, _file_system):
    message = (
        rf"^--model_dir={tmp_path}: another run is training there \(process "
        rf"{os.getpid()} on .*, since 20.* UTC, last heartbeat 20.* UTC\); stop it, "
        "wait for its end, or name another .*delete .*run.lock"
    )
    with (
        _holding(tmp_path),
        pytest.raises(errors.ConfigError, match=message),
        _holding(tmp_path),
    ):
        pass


def test_the_end_of_a_run_leaves_no_lock(tmp_path, _file_system):
    with _holding(tmp_path) as lock:
        lock.check()
        lock.release()
        lock.release()
    assert list(tmp_path.iterdir()) == []
    with _holding(tmp_path):
        pass


def test_the_other_workers_of_a_cluster_share_the_lock_of_the_chief(tmp_path):
    with (
        _holding(tmp_path),
        run_lock.holding(str(tmp_path), is_chief=False) as lock,
    ):
        lock.check()


def test_after_a_kill_the_next_run_begins_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_STALE_SECS", 3600)
    with _hold_in_another_process(tmp_path) as process:
        with pytest.raises(errors.ConfigError, match=f"process {process.pid}"):
            _holding(tmp_path).__enter__()
        process.kill()
    with _holding(tmp_path) as lock:
        lock.check()


def test_a_suspended_process_keeps_its_lock(tmp_path):
    with _hold_in_another_process(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(errors.ConfigError, match="another run is training"):
            _holding(tmp_path).__enter__()
        process.kill()


def test_a_dead_process_of_another_host_is_followed(tmp_path, _file_system):
    _write_record(tmp_path)
    with _holding(tmp_path) as lock:
        lock.check()


def test_a_process_of_another_host_that_lives_is_not(tmp_path, _file_system):
    _write_record(tmp_path)
    is_over = threading.Event()

    def beat():
        while not is_over.wait(0.02):
            os.utime(tmp_path / run_lock.FILE_NAME)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(errors.ConfigError, match="process 7 on far"):
            _holding(tmp_path).__enter__()
    finally:
        is_over.set()
        thread.join()


def test_a_live_process_gives_heartbeats(tmp_path):
    with _holding(tmp_path):
        path = tmp_path / run_lock.FILE_NAME
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            is_over = threading.Event()
            is_over.wait(0.01)


def test_one_of_many_starters_wins(tmp_path, _file_system, monkeypatch):
    """All have found the lock of a dead process of another host at one moment."""
    _write_record(tmp_path)
    won, refused = [], []
    barrier = threading.Barrier(8)
    if _file_system == "no locks":
        monkeypatch.setattr(
            run_lock.RunLock, "_is_dead", lambda *args: barrier.wait() >= 0
        )

    def start():
        lock = run_lock.RunLock(str(tmp_path))
        barrier.wait()
        try:
            lock.acquire()
            won.append(lock)
        except errors.ConfigError:
            refused.append(lock)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    (lock,) = won
    lock.check()
    lock.release()


def test_a_process_that_lost_its_lock_finds_out_and_leaves_the_new_one(tmp_path):
    with _holding(tmp_path) as lock:
        (tmp_path / run_lock.FILE_NAME).unlink()
        with _holding(tmp_path) as other:
            with pytest.raises(errors.LockLostError, match="taken over by process"):
                lock.check()
            lock.release()
            other.check()
    assert list(tmp_path.iterdir()) == []


def test_whether_a_lock_is_lost_is_told_without_an_error(tmp_path):
    with _holding(tmp_path) as lock:
        assert not lock.is_lost()
        (tmp_path / run_lock.FILE_NAME).unlink()
        with _holding(tmp_path):
            assert lock.is_lost()


def test_a_disk_that_does_not_answer_takes_no_lock_away(tmp_path, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(run_lock, "_LOOK_SECS", 0.01)
    with _holding(tmp_path) as lock:
        monkeypatch.setattr(run_lock, "_read", lambda path: answer.wait(60) and None)
        assert not lock.is_lost()
        monkeypatch.undo()
        answer.set()


def test_a_removed_lock_is_lost_too(tmp_path):
    with (
        _holding(tmp_path) as lock,
        pytest.raises(errors.LockLostError, match="It is gone.*not saved is lost"),
    ):
        (tmp_path / run_lock.FILE_NAME).unlink()
        lock.check()


def test_a_lock_of_a_later_version_is_read():
    values = {"token": "a", "host": "far", "pid": 7, "started": "now"}
    holder = holders.Holder(**values)
    assert holders.Holder.parse(holder.format().encode()) == holder
    assert holders.Holder.parse(json.dumps({**values, "more": 1}).encode()) == holder
    for text in ("", "[1]", "{}", "7"):
        assert holders.Holder.parse(text.encode()) is None


def test_a_lock_file_that_says_nothing_is_no_obstacle(tmp_path, _file_system):
    (tmp_path / run_lock.FILE_NAME).write_text("[1]")
    with _holding(tmp_path) as lock:
        lock.check()


def test_a_lock_that_cannot_be_written_is_an_error_of_the_disk(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(errors.WriteError, match="run.lock could not be written"):
        _holding(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []
