"""The folder of a run before any work is done."""

import errno
import os
import tempfile

import pytest

from trainer import errors
from trainer.run_folder import model_dir


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigError, match="--model_dir=.*Not a directory.*name"):
        model_dir.make(str(tmp_path / "file" / "run"))


def test_no_room_for_the_folder_is_an_error_of_the_disk(tmp_path, monkeypatch):
    def fail(**kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(errors.WriteError, match="No space left.*make room"):
        model_dir.make(str(tmp_path))


def test_files_where_folders_belong_are_set_aside(tmp_path, caplog):
    (tmp_path / "checkpoints").write_text("mine")
    (tmp_path / "train").mkdir()
    model_dir.clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoints.damaged-1", "train"]
    assert "Set " in caplog.text and "checkpoints.damaged-1" in caplog.text


def test_a_link_that_leads_nowhere_is_no_fresh_start(tmp_path):
    (tmp_path / "checkpoints").symlink_to(tmp_path / "not mounted")
    with pytest.raises(errors.CheckpointError, match="is a link to .*not mounted"):
        model_dir.clear(tmp_path)


def test_old_left_overs_are_removed_and_what_is_being_written_is_not(tmp_path):
    old, new = (tmp_path / f".partial-{digit * 32}" for digit in "01")
    own = tmp_path / ".partial-of-mine"
    for path in (old, new, own):
        path.write_text("half")
    for path in (old, own):
        os.utime(path, (0, 0))
    model_dir.clear(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, own]


def test_a_path_without_patterns_is_given_as_it_is(tmp_path):
    with model_dir.readable_by_tensorflow(tmp_path) as readable:
        assert readable == tmp_path
