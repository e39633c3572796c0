"""A run that cannot go on says in flags what differs, and what to do instead."""

import pytest

from trainer.run_folder import identities

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
