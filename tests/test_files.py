"""Tests of `trainer.files`."""

import json
import os
import resource
import threading

import pytest

from data.stores import file_locks
from trainer import errors, files


def _fail_to_write(monkeypatch, error):
    """Lets the sync of a file fail, as a full disk may."""

    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)


def test_writes_a_file_anew(tmp_path):
    path = tmp_path / "a.json"
    files.write_text(path, "old")
    files.write_text(path, "née\n")
    assert path.read_bytes() == "née\n".encode()
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_the_old_file_and_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_text(path, "old")
    _fail_to_write(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(errors.WriteError, match="a.json could not be .*make room in"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_who_appends_waits_for_others_that_do(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("")
    with path.open("ab", buffering=0) as file:
        assert file_locks.try_lock(file.fileno())
        thread = threading.Thread(target=files.append_line, args=(path, "two"))
        thread.start()
        thread.join(0.1)
        file.write(b"one, in ")
        file.write(b"two parts\n")
    thread.join()
    assert path.read_text() == "one, in two parts\ntwo\n"


def test_appends_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    files.append_line(path, "one")
    files.append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_who_appends_does_so_to_the_file_that_took_the_place(tmp_path, monkeypatch):
    """While it waits for the lock, another process writes the file anew."""
    path = tmp_path / "a.jsonl"
    path.write_text("one\ntwo\n")
    wait, waiting = file_locks.wait_for_lock, []

    def change_and_wait(descriptor):
        if not waiting:
            waiting.append(descriptor)
            files.change_lines(path, lambda lines: lines.removeprefix(b"one\n"))
        wait(descriptor)

    monkeypatch.setattr(file_locks, "wait_for_lock", change_and_wait)
    files.append_line(path, "three")
    assert path.read_text() == "two\nthree\n"
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_lines_that_stay_as_they_are_are_not_written_again(tmp_path):
    path = tmp_path / "a.jsonl"
    files.change_lines(path, lambda lines: lines + b"one\n")
    before = path.stat()
    files.change_lines(path, lambda lines: lines)
    assert path.read_text() == "one\n" and path.stat() == before


def test_what_follows_half_a_line_of_a_killed_process_is_a_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "confu')
    for step in (3, 4):
        files.append_line(path, json.dumps({"step": step}))
    assert files.parse_lines(path.read_bytes()) == [{"step": n} for n in (1, 3, 4)]


def test_no_folder_is_an_error_of_the_run(tmp_path):
    with pytest.raises(errors.WriteError, match="No such file"):
        files.append_line(tmp_path / "none" / "a.jsonl", "one")


def test_a_failed_line_leaves_no_part_of_it(tmp_path):
    """The disk takes a part of the line, as one that fills up does."""
    path = tmp_path / "a.jsonl"
    files.append_line(path, "one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(errors.WriteError, match="too large.*make room"):
            files.append_line(path, "x" * 100)
        with pytest.raises(errors.WriteError):
            files.append_line(tmp_path / "new.jsonl", "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "one\n"
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_sets_aside_under_the_next_free_name(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "a").write_text(text)
        files.set_aside(tmp_path / "a")
    assert (tmp_path / "a.damaged-1").read_text() == "first"
    assert (tmp_path / "a.damaged-2").read_text() == "second"
