"""Tests of `trainer.files`."""

import os

import pytest

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


def test_appends_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    files.append_line(path, "one")
    files.append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_no_folder_is_an_error_of_the_run(tmp_path):
    with pytest.raises(errors.WriteError, match="No such file"):
        files.append_line(tmp_path / "none" / "a.jsonl", "one")
