"""A run that cannot go on says in flags what differs, and what to do instead."""

import pytest

from trainer import errors
from trainer.run_folder import checkpoint_folders, identities
from trainer.settings import config as config_lib

SAVED = {
    "image_size": [96, 96],
    "train_fraction": 0.8,
    "seed": 0,
    "train_examples": "8d55f08442b774c0",
}


def refuse(model_dir="runs/a b", **changed):
    return identities.refuse(model_dir, SAVED, {**SAVED, **changed})


def test_same_run_goes_on():
    assert refuse() == ""


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"image_size": [128, 64]}, "--image_size was 96,96 and is 128,64. To"),
        ({"train_fraction": None}, "--train_fraction was 0.8 and is not given. To"),
        (
            {"seed": 1, "train_fraction": 0.5},
            ": --train_fraction was 0.8 and is 0.5; --seed was 0 and is 1. To",
        ),
        ({"encoder_block": ""}, "--encoder_block was not given and is empty"),
    ],
)
def test_settings_are_named_as_they_are_typed(changed, sentence):
    message = refuse(**changed, train_examples="f551fd20510e5320")

    assert sentence in message
    assert "--flagfile='runs/a b/config.flags'" in message
    assert "another --model_dir, can begin with its weights: --init_chec" in message
    assert "train_examples" not in message  # It follows from the settings.


def test_other_files_alone_are_told_from_other_settings():
    message = refuse(train_examples="f551fd20510e5320")

    assert "the examples of its training split have changed" in message
    assert "--flagfile" not in message
    assert message.endswith("begin with its weights: --init_checkpoint='runs/a b'.")


def _make_config(tmp_path, **settings):
    return config_lib.from_dict({"model_dir": str(tmp_path), **settings})


def _save(tmp_path, config, **decided):
    path = checkpoint_folders.path_of(tmp_path / "checkpoints", 7)
    path.mkdir(parents=True)
    metadata = checkpoint_folders.Metadata(7, {**config.identity(), **decided})
    checkpoint_folders.write_metadata(path, metadata)


def test_settings_are_compared_before_there_are_data(tmp_path):
    config = _make_config(tmp_path, batch_size=8)
    identities.check_settings(config)  # There is no run yet.
    _save(
        tmp_path,
        config,
        class_names=["sky", "bird"],
        image_range=[0, 4095],
        train_examples="8d55f08442b774c0",
    )

    identities.check_settings(config)
    # A file of names is compared once it is read.
    identities.check_settings(
        _make_config(tmp_path, batch_size=8, class_names=("sky", "cow"))
    )
    for other in ({"batch_size": 4}, {"batch_size": 8, "image_range": (0, 255)}):
        with pytest.raises(errors.CheckpointError, match="with other settings: --"):
            identities.check_settings(_make_config(tmp_path, **other))


def test_what_an_older_run_does_not_know_is_as_it_was(tmp_path):
    config = _make_config(tmp_path)
    _save(tmp_path, config)
    path = checkpoint_folders.path_of(tmp_path / "checkpoints", 7)
    metadata = checkpoint_folders.read_metadata(path)
    identity = dict(metadata.identity)
    del identity["resize"]
    metadata.identity = identity
    checkpoint_folders.write_metadata(path, metadata)

    identities.check_settings(config)
    with pytest.raises(errors.CheckpointError, match="--resize was stretch and is pad"):
        identities.check_settings(_make_config(tmp_path, resize="pad"))
