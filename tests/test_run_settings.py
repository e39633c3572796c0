"""The settings in a run's folder, beside those of a command."""

import pytest

from trainer.run_folder import run_settings
from trainer.settings import config as config_lib

_RUN = {"dataset": "folder", "data_dir": "d", "tta": ("flip",)}


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _make(**settings):
    return config_lib.from_dict({"model_dir": "x", **_RUN, **settings})


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, []),
        # What trains otherwise, or only scores faster, leaves the scores as they are.
        ({"learning_rate": 0.5, "train_epochs": 3, "cache": "none"}, []),
        ({"best_metric": "loss", "summary_images": 2, "train_split": "some"}, []),
        ({"eval_split": "my val"}, ["--eval_split='my val'"]),
        ({"eval_native_size": True}, ["--eval_native_size=true"]),
        ({"metrics": ("calibration",)}, ["--metrics=calibration"]),
        ({"mixed_precision": "float16"}, ["--mixed_precision=float16"]),
        ({"tta": ()}, ["--tta=''"]),
        ({"data_dir": "e"}, ["--data_dir=e"]),
    ],
)
def test_settings_of_which_the_scores_are_others_are_found(tmp_path, settings, flags):
    run_settings.write(str(tmp_path), _make())
    assert run_settings.find_other_scoring(str(tmp_path), _make(**settings)) == flags


def test_settings_that_cannot_be_read_are_not_found(tmp_path):
    assert run_settings.find_other_scoring(str(tmp_path), _make(tta=())) == []
