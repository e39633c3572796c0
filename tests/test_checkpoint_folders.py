"""What a checkpoint says of itself is believed only where it can be so."""

import dataclasses
import json

import pytest

from trainer.run_folder import checkpoint_folders


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


def _write(folder, **changes):
    """Writes a whole checkpoint's metadata with changes; `...` takes a field out."""
    path = checkpoint_folders.path_of(folder, 2)
    path.mkdir()
    metadata = checkpoint_folders.Metadata(
        step=2, identity={"seed": 0}, best_step=1, best_score=0.5, window={"total": 1}
    )
    values = {**dataclasses.asdict(metadata), **changes}
    values = {name: value for name, value in values.items() if value is not ...}
    (path / "metadata.json").write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"step": ...},
        {"identity": ...},
        {"step": "2"},
        {"step": True},
        {"step": 3},
        {"identity": [1]},
        {"is_evaluated": 1},
        {"best_step": "x"},
        {"best_score": [0.5]},
        {"best_seen": "0.5"},
        {"window": 3},
        {"foreign": 1},
    ],
    ids=repr,
)
def test_fields_that_cannot_be_so_are_damage(tmp_path, changes):
    path = _write(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"^metadata.json.*\b" + next(iter(changes))):
        checkpoint_folders.read_metadata(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_other_files_are_damage(tmp_path, text):
    path = _write(tmp_path)
    (path / "metadata.json").write_text(text)
    with pytest.raises(ValueError):
        checkpoint_folders.read_metadata(path)


def test_fields_that_older_versions_did_not_write_have_their_defaults(tmp_path):
    path = _write(tmp_path, window=..., best_step=None, best_score=None)
    metadata = checkpoint_folders.read_metadata(path)
    assert metadata == checkpoint_folders.Metadata(step=2, identity={"seed": 0})


def test_a_copy_may_have_any_name(tmp_path):
    path = _write(tmp_path).rename(tmp_path / "the best")
    assert checkpoint_folders.read_metadata(path).step == 2


def test_the_newest_step_is_the_greatest_of_what_is_finished(tmp_path):
    assert checkpoint_folders.newest_step(str(tmp_path)) is None
    folder = tmp_path / "checkpoints"
    for step in (900, 1000):
        checkpoint_folders.path_of(folder, step).mkdir(parents=True)
    partial = checkpoint_folders.partial_of(checkpoint_folders.path_of(folder, 1100))
    partial.mkdir()
    assert checkpoint_folders.newest_step(str(tmp_path)) == 1000
