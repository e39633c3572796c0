"""What was typed counts before flagfiles, and these before the folder of a run."""

import pytest

from trainer import errors
from trainer.settings import config, layers, modes


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _never(model_dir):
    return False


def _always(model_dir):
    return True


def _no_run(model_dir):
    raise AssertionError("The settings of a run were read.")


def _resolve(typed=None, files=None, run=None, mode="train_and_evaluate"):
    """Resolves settings; those of a run, if any, are taken with a mode that uses it.

    `files` are the settings of a flagfile, or a list of those of several.
    """
    read_run = _no_run
    if run is not None:
        mode = "evaluate" if mode == "train_and_evaluate" else mode
        saved = config.from_dict({"model_dir": "x", **run}).saved()
        values = {n: tuple(v) if isinstance(v, list) else v for n, v in saved.items()}
        read_run = lambda model_dir: values  # noqa: E731
    typed = {"model_dir": "runs/a", "mode": mode, **(typed or {})}
    files = [files] if isinstance(files, dict) else files or []
    made, remarks = layers.resolve(typed, files, read_run, _never, _never)
    return made, remarks


@pytest.mark.parametrize(
    ("files", "typed", "expected"),
    [
        ({"train_epochs": 3}, {"train_steps": 7}, (None, 7)),
        ({"train_steps": 7}, {"train_epochs": 3}, (3, None)),
        ({"train_epochs": 0, "train_steps": 7}, {"train_epochs": 3}, (3, None)),
        ({"train_epochs": 3}, {"train_epochs": 0, "train_steps": 7}, (0, 7)),
    ],
)
def test_typed_length_replaces_that_of_a_flagfile(files, typed, expected):
    train = _resolve(typed, files)[0].train
    assert (train.train_epochs, train.train_steps) == expected


@pytest.mark.parametrize(
    ("files", "typed", "expected"),
    [
        ({"train_epochs": 3}, {"time_budget": "9m"}, (None, None, "9m")),
        ({"train_steps": 7}, {"time_budget": "9m"}, (None, None, "9m")),
        ({"time_budget": "9m"}, {"train_epochs": 3}, (3, None, "")),
        ({"time_budget": "9m"}, {"train_steps": 7}, (None, 7, "")),
    ],
)
def test_typed_budget_replaces_the_length_of_a_flagfile(files, typed, expected):
    train = _resolve(typed, files)[0].train
    assert (train.train_epochs, train.train_steps, train.time_budget) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"train_epochs": 5}, {"train_steps": 100}, {"train_epochs": None}),
        ({"train_epochs": 5}, {"time_budget": "9m"}, {"train_epochs": None}),
        ({"num_classes": 3}, {"class_names": ("a", "b")}, {"num_classes": None}),
        ({"class_names": ("a", "b")}, {"num_classes": 3}, {"class_names": None}),
        (
            {"augment": "light", "random_scale": (0.5, 2.0)},
            {"augment": "none"},
            {"random_scale": ()},
        ),
        ({"augment": "none"}, {"random_hue": 9.0}, {"augment": "none"}),
        (
            {"optimizer": "sgd", "momentum": 0.8},
            {"optimizer": "adam"},
            {"momentum": 0.9},
        ),
        ({"momentum": 0.8}, {"optimizer": "sgd"}, {"momentum": 0.8}),
    ],
)
def test_later_flagfile_counts_before_an_earlier_one_as_typed_flags_do(
    first, second, expected
):
    made, remarks = _resolve(files=[first, second])
    assert (made, remarks) == _resolve(second, [first])
    expected = {**second, **expected}
    assert {name: made.as_dict()[name] for name in expected} == expected
    assert remarks == []


def test_two_lengths_in_one_place_contradict_each_other():
    with pytest.raises(errors.ConfigError, match="--train_epochs=3 and --train_steps"):
        _resolve({"train_epochs": 3, "train_steps": 7})


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"momentum": 0.8}, "--momentum=0.8: .*only with --optimizer=sgd, and here is"),
        ({"momentum": 0.9}, "--momentum=0.9: .*leave it out"),
        ({"polynomial_power": 0.9}, "--polynomial_power=0.9: .*lr_schedule=polynomial"),
        ({"cache_dir": "/c"}, "--cache_dir=/c: .*only with --cache=disk"),
        (
            {"data_dir": "d"},
            "--data_dir=d: .*only with --dataset=folder or coco or labelme or tfds",
        ),
        ({"checkpoint": "best"}, "--checkpoint=best: .*only with --mode=evaluate"),
        ({"against": "fit"}, "--against=fit: .*only with --mode=benchmark"),
        ({"input": "photos"}, "--input=photos: .*only with --mode=predict, and here"),
        ({"overwrite": True}, "--overwrite=true: .*only with --mode=predict, and here"),
        ({"encoder_bn_momentum": 0.9}, "--encoder_bn_momentum=0.9: .*freeze_encoder"),
        ({"max_bad_examples": 3}, "--max_bad_examples=3: .*on_bad_example=replace"),
        ({"crop_rare_classes": 0.3}, "--crop_rare_classes=0.3: .*a window in --crop_s"),
        ({"startup_timeout": 3}, "--startup_timeout=3: .*multi_worker_mirrored"),
    ],
)
def test_typed_setting_without_a_meaning_is_refused(typed, message):
    with pytest.raises(errors.ConfigError, match=message):
        _resolve(typed)


def test_typed_setting_that_asks_for_nothing_is_not_refused():
    assert _resolve({"weight_decay": 0.0, "eval_native_size": False})[1] == []


def test_flagfile_of_all_settings_is_taken_without_a_word():
    files = config.from_dict({"model_dir": "x"}).as_dict()
    assert _resolve(files=files) == (_resolve()[0], [])


def test_setting_of_a_flagfile_that_loses_its_meaning_is_left_out():
    files = {"optimizer": "sgd", "momentum": 0.8}
    made, remarks = _resolve({"optimizer": "adam"}, files)
    assert made.optimizer.momentum == 0.9
    assert remarks == []


@pytest.mark.parametrize(
    ("typed", "files", "name"),
    [
        ({}, [{"momentum": 0.8}], "adam"),
        ({"optimizer": "adamw"}, [{"momentum": 0.8}], "adamw"),
        ({}, [{"momentum": 0.8}, {"optimizer": "adamw"}], "adamw"),
        ({}, [{"momentum": 0.7}, {"momentum": 0.8}], "adam"),
        ({}, [{"optimizer": "sgd"}, {"optimizer": "adam", "momentum": 0.8}], "adam"),
    ],
)
def test_setting_of_a_flagfile_that_never_had_a_meaning_is_said(typed, files, name):
    made, remarks = _resolve(typed, files)
    assert made.optimizer.momentum == 0.9
    assert remarks == [
        "--momentum=0.8 of the flagfile does not count: it has a meaning only with "
        f"--optimizer=sgd, and here is --optimizer={name}."
    ]


def test_what_needs_a_setting_without_a_meaning_goes_with_it():
    # Colours need a folder; with them gone, an offset has a meaning again.
    files = {"dataset": "folder", "data_dir": "d", "label_colors": "voc"}
    made, _ = _resolve({"dataset": "synthetic", "label_offset": 1}, files)
    assert (made.data.label_colors, made.data.label_offset) == ("", 1)
    assert made.data.data_dir == ""


def test_mode_that_has_no_use_for_a_typed_setting_says_so():
    _, remarks = _resolve(
        {"learning_rate": 1e-4, "encoder": "mobilenet_v2"}, mode="doctor"
    )
    assert remarks == ["--mode=doctor does not use --learning_rate, --encoder."]


@pytest.mark.parametrize(
    ("has_run", "crossfit", "expected"),
    [
        (False, False, "--learning_rate, --tta, --train_epochs"),
        (True, False, "--learning_rate, --train_epochs"),
        (False, True, ""),
        (True, True, ""),
    ],
)
def test_the_doctor_uses_what_its_models_use(has_run, crossfit, expected):
    typed = {"learning_rate": 1e-4, "tta": ("flip",), "train_epochs": 3}
    given = {"mode": "doctor", "model_dir": "a", "crossfit": crossfit, **typed}
    saved = {"batch_size": 7, "dataset": "folder", "data_dir": "d"}
    made, remarks = layers.resolve(
        given, [], lambda _: saved, lambda _: has_run, _never
    )
    assert remarks == ([f"--mode=doctor does not use {expected}."] if expected else [])
    assert made.train.batch_size == (7 if has_run else 64)
    assert made.data.data_dir == ("d" if has_run else "")


def test_export_uses_the_data_set_for_photos_and_for_scores():
    typed = {"learning_rate": 1e-4, "tta": ("flip",), "num_gpus": 1, "cache": "disk"}
    typed |= {"train_split": "train", "on_bad_example": "replace"}
    _, remarks = _resolve(typed, run={}, mode="export")
    said = "--mode=export does not use --learning_rate, --tta, --num_gpus"
    assert remarks == [f"{said}."]
    _, remarks = _resolve({**typed, "export_scores": False}, run={}, mode="export")
    assert remarks == [f"{said}, --cache, --on_bad_example."]


def test_prediction_uses_no_data_set():
    typed = {"dataset": "folder", "data_dir": "d", "on_bad_example": "replace"}
    _, remarks = _resolve({**typed, "tta": ("flip",)}, run={}, mode="predict")
    assert remarks[-1] == (
        "--mode=predict does not use --dataset, --data_dir, --on_bad_example."
    )


def test_what_modes_use_are_settings():
    names = config.fields_by_name().keys()
    for mode in modes.MODES.values():
        assert set(mode.only_uses or ()) <= names
        for other, needing in mode.uses_with.items():
            assert {other, *needing} <= mode.only_uses


_RUN = {
    "dataset": "folder",
    "data_dir": "/photos",
    "label_map": "map.csv",
    "ignore_label": 0,
    "encoder_alpha": 0.35,
    "image_size": (64, 64),
    "num_gpus": 4,
    "optimizer": "sgd",
    "momentum": 0.8,
}


def test_evaluating_takes_the_settings_of_the_run_but_for_the_devices():
    made, remarks = _resolve(run=_RUN)
    assert made.model.encoder_alpha == 0.35
    assert made.data.label_map == "map.csv"
    assert made.data.image_size == (64, 64)
    assert made.runtime.num_gpus == -1
    assert remarks == []


def test_typed_settings_win_over_flagfiles_and_these_over_the_run():
    files = {"batch_size": 8, "image_size": (96, 96)}
    made, _ = _resolve({"batch_size": 4}, files, run={**_RUN, "batch_size": 32})
    assert (made.train.batch_size, made.data.image_size) == (4, (96, 96))


_WINDOWS = {"crop_size": (64, 64), "crop_rare_classes": 0.3, "random_scale": (0.5, 2)}


@pytest.mark.parametrize("mode", ["evaluate", "predict", "export"])
@pytest.mark.parametrize("from_flagfile", [False, True])
def test_windows_of_training_do_not_limit_what_a_model_is_shown(mode, from_flagfile):
    run = _RUN if from_flagfile else {**_RUN, **_WINDOWS}
    files = {**_RUN, **_WINDOWS} if from_flagfile else {}
    made, remarks = _resolve({"image_size": (48, 48)}, files, run, mode)
    assert (made.data.image_size, made.augmentation.crop_size) == ((48, 48), ())
    assert not any("crop" in remark for remark in remarks)


def test_the_doctor_trains_on_the_windows_of_a_run():
    typed = {"mode": "doctor", "model_dir": "a", "crossfit": True}
    saved = {"image_size": (64, 64), "crop_size": (32, 32)}
    made, _ = layers.resolve(typed, [], lambda _: saved, _always, _never)
    assert made.augmentation.crop_size == (32, 32)


def test_the_same_data_may_lie_elsewhere():
    made, remarks = _resolve({"data_dir": "/moved"}, run=_RUN)
    assert (made.data.data_dir, made.data.label_map) == ("/moved", "map.csv")
    assert (made.data.dataset, remarks) == ("folder", [])


@pytest.mark.parametrize(
    "typed",
    [{"dataset": "tfds:pets"}, {"dataset": "folder", "data_dir": "/others"}],
)
def test_other_data_has_nothing_of_the_labels_of_the_run(typed):
    made, remarks = _resolve(typed, run=_RUN)
    assert made.data.dataset == typed["dataset"]
    assert made.data.data_dir == typed.get("data_dir", "")
    assert (made.data.label_map, made.data.ignore_label) == ("", 255)
    assert made.data.image_size == (64, 64)
    (remark,) = remarks
    assert "whose --label_map, --ignore_label do not count for it" in remark


def test_training_does_not_look_into_the_folder():
    _resolve({"seed": 3})


def test_a_run_goes_on_whose_settings_cannot_be_read():
    def fail(model_dir):
        raise errors.CheckpointError("It cannot be read.")

    made, remarks = layers.resolve({"model_dir": "a"}, [], fail, _always, _always)
    assert (made.run.model_dir, remarks) == ("a", ["It cannot be read."])


def _resume(typed, saved, has_checkpoint=_always):
    given = {"model_dir": "runs/a", **typed}
    return layers.resolve(given, [], lambda _: saved, _always, has_checkpoint)[0]


def test_a_run_goes_on_with_what_it_had_before_there_was_a_setting():
    saved = {**config.legacy_values(), "image_range": (0, 255), "seed": 3}
    made = _resume({"encoder_weights": "none", "freeze_encoder": False}, saved)
    assert made.data.image_range == (0, 255)
    assert made.model.image_normalization == "network"
    assert not made.train.moving_average_warmup
    assert made.run.seed == 0  # Its own command has to name it.
    assert _resume({"moving_average_warmup": True}, saved).train.moving_average_warmup


def test_a_run_that_died_before_its_first_save_leaves_no_settings():
    saved = {**config.legacy_values(), "image_range": (0, 255)}
    assert _resume({"seed": 3}, saved).data.image_range == (0, 255)
    made = _resume({"seed": 3}, saved, has_checkpoint=_never)
    assert made == config.from_dict({"model_dir": "runs/a", "seed": 3})


def test_an_older_run_had_the_random_changes_of_the_default():
    default = config.from_dict({"model_dir": "a"})
    old, present = config.legacy_values(), default.identity()
    assert {n: old[n] for n in vars(default.augmentation)} == {
        **{n: present[n] for n in present.keys() & vars(default.augmentation)},
        "augment": "flip",
    }


def test_a_run_does_not_go_on_with_random_changes_that_its_command_leaves_out():
    saved = {**config.legacy_values(), "image_range": (0, 255), "random_hue": 9.0}
    made = _resume({}, saved)
    assert made.augmentation == config.from_dict({"model_dir": "a"}).augmentation


@pytest.mark.parametrize("files", [{"random_hue": 9.0}, {"augment": "light"}])
def test_typed_policy_replaces_the_random_changes_of_a_flagfile(files):
    made, _ = _resolve({"augment": "strong", "random_grey": 0.3}, files)
    expected = {"model_dir": "a", "augment": "strong", "random_grey": 0.3}
    assert made.augmentation == config.from_dict(expected).augmentation


def test_typed_random_change_counts_beside_the_policy_of_a_flagfile():
    made, _ = _resolve({"random_hue": 9.0}, {"augment": "light"})
    expected = {"model_dir": "a", "augment": "light", "random_hue": 9.0}
    assert made.augmentation == config.from_dict(expected).augmentation


def test_architecture_must_be_that_of_the_run():
    made, _ = _resolve({"encoder_alpha": 0.5}, run=_RUN)
    trained = config.from_dict({"model_dir": "x", **_RUN}).identity()
    message = "--encoder_alpha=0.5: the model in runs/a was trained with .*=0.35"
    with pytest.raises(errors.ConfigError, match=message):
        layers.check_trained_with(made, trained, "runs/a")


def test_another_image_size_is_said():
    made, _ = _resolve({"image_size": (96, 96)}, run=_RUN)
    trained = config.from_dict({"model_dir": "x", **_RUN}).identity()
    assert layers.check_trained_with(made, trained, "runs/a") == [
        "Trained with --image_size=64,64, used with --image_size=96,96."
    ]


def test_averages_that_a_run_did_not_keep_are_refused():
    made, _ = _resolve({"ema_decay": 0.9}, run=_RUN)
    trained = config.from_dict({"model_dir": "x", **_RUN}).identity()
    with pytest.raises(errors.ConfigError, match="kept no averages of its weights"):
        layers.check_trained_with(made, trained, "runs/a")


def test_identity_of_an_older_run_is_completed(monkeypatch):
    made, _ = _resolve(run=_RUN)
    trained = config.from_dict({"model_dir": "x", **_RUN}).identity()
    del trained["encoder"]
    assert layers.check_trained_with(made, trained, "runs/a") == []
