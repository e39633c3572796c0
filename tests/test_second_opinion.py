"""`--mode=doctor` with a model: spoiled masks come first, with reasons."""

import csv
import importlib
import json
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import trainer
from data.preparing import preprocessing
from data.sources import halves
from models import scaling
from models.encoders import applications
from models.fast import normalization
from tests import helpers, test_evaluate
from trainer import errors, flags
from trainer.assembly import inputs, restoring
from trainer.assembly import model as model_lib
from trainer.modes import doctor
from trainer.run_folder import golden
from trainer.settings import config as config_lib
from trainer.settings import modes
from trainer.suspecting import acquaintance, predicting, second_opinion

_SPOILED = {"shifted": 3, "swapped": 8, "half missing": 13}
_SHORT = (
    "--dataset=folder",
    "--class_names=ground,pet",
    "--image_size=32",
    "--batch_size=8",
    "--encoder_weights=none",
    "--nofreeze_encoder",
    "--learning_rate=0.03",
    "--train_steps=60",
    "--nokeep_golden",
)


def _draw_data(root):
    """Draws dark pets on light ground, 20 to train on and 4 to evaluate on."""
    random = np.random.default_rng(0)
    for number in range(24):
        label = np.zeros((32, 32), np.uint8)
        top, left = random.integers(7, 11, 2)
        label[top : top + 15, left : left + 15] = 1
        photo = 170 - 100 * label[..., None] + random.integers(0, 60, (32, 32, 3))
        if number == _SPOILED["swapped"]:
            label = 1 - label
        elif number == _SPOILED["half missing"]:
            label[:, left + 7 :] = 0
        elif number == _SPOILED["shifted"]:
            label = np.roll(label, (-6, 5), axis=(0, 1))
        split = "train" if number < 20 else "val"
        for kind, pixels in (("images", photo), ("masks", label)):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            path = root / split / kind / f"{number:02}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)


def _run(*arguments):
    config, _ = flags.read_config(arguments)
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)


def _read(run):
    with (run / "doctor" / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def _tiny_model():
    """Gives every run a model of two convolutions, which tells dark from light."""

    def build(config, *, num_classes, **kwargs):
        images = keras.Input((32, 32, 3))
        ways = applications.APPLICATIONS["mobilenet_v2"].scaling
        scaled = scaling.make_image_scaling(ways, scaling.RGB, multiple=32)(images)
        features = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(scaled)
        features = normalization.BatchNormalization()(features)
        features = keras.layers.ReLU()(features)
        logits = keras.layers.Conv2D(num_classes, 3, padding="same")(features)
        return keras.Model(images, logits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_lib, "build_model", build)
        yield


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory):
    """Returns a folder with data and a crossfit that was stopped and went on."""
    root = tmp_path_factory.mktemp("doubts")
    _draw_data(root / "data")
    command = (
        "--mode=doctor",
        "--crossfit",
        *_SHORT,
        f"--data_dir={root / 'data'}",
        f"--model_dir={root / 'run'}",
    )
    train, started = doctor.train_mode.run, [trainer.STARTED]

    def stop_at_the_second(config, **kwargs):
        # Not at the start of the process: of a --time_budget, each half has the whole.
        started.append(kwargs["started"])
        if config.data.train_half == 1:
            raise errors.Stopped("Stopped.")
        train(config, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor.train_mode, "run", stop_at_the_second)
        with pytest.raises(errors.Stopped):
            _run(*command)
    assert started == sorted(set(started)) and len(started) == 3
    assert not (root / "run" / "doctor").exists()
    (first,) = (root / "run" / "crossfit" / "0" / "checkpoints").glob("step-*0060")
    saved_at = first.stat().st_mtime_ns
    _run(*command)
    assert first.stat().st_mtime_ns == saved_at
    return root


def test_spoiled_masks_come_first_with_their_reasons(root):
    rows = _read(root / "run")
    assert len(rows) == 24
    found = {row["name"]: row["reason"] for row in rows[:3]}
    names = {way: f"train/images/{n:02}.png" for way, n in _SPOILED.items()}
    assert found.keys() == set(names.values())
    assert found[names["swapped"]] == "ground and pet swapped"
    assert re.fullmatch(r"\d+% of pet missing", found[names["half missing"]])
    assert re.match(r"shifted; fits 1\d% left and 1\d% down", found[names["shifted"]])
    assert {row["model_has_seen_it"] for row in rows} == {"false"}


def test_pictures_are_drawn_in_spite_of_the_flag_and_named(root):
    """A training with --nokeep_golden warns of what `list_pictures` names."""
    assert golden.list_pictures(str(root / "run")) == ["doctor.png", "doctor"]
    assert golden.list_pictures(str(root / "run" / "crossfit" / "0")) == []


def test_each_half_is_trained_without_the_other(root):
    saved = [
        json.loads((root / "run" / "crossfit" / str(half) / "config.json").read_text())
        for half in range(2)
    ]
    assert [values["train_half"] for values in saved] == [0, 1]
    assert {values["learning_rate"] for values in saved} == {0.03}
    assert not (root / "run" / "checkpoints").exists()


def test_the_page_shows_the_first_masks_and_loads_nothing(root):
    page = (root / "run" / "doctor" / "ranking.html").read_text()
    assert "1. train/images/" in page
    assert "ground and pet swapped" in page
    doubted = sum(float(row["doubt"]) > 0 for row in _read(root / "run"))
    assert page.count("<img ") == 4 * min(doubted, 30)
    assert page.count("<img ") == page.count('src="data:image/png;base64,')
    assert "http" not in page


def test_a_run_judges_its_own_data_and_says_that_it_has_seen_them(run):
    test_evaluate.change_settings(run, gradient_accumulation_steps=3)
    _run("--mode=doctor", f"--model_dir={run}")  # Which is no training, either.
    rows = _read(run)
    seen = {row["split"]: row["model_has_seen_it"] for row in rows}
    assert seen == {"data/train/half-0": "true", "data/val": "false"}


@pytest.fixture(name="run")
def _run_of_half_a_split(root, tmp_path):
    """Returns a run that was trained on half 0 of `train`, as if by itself."""
    return shutil.copytree(root / "run" / "crossfit" / "0", tmp_path / "run")


def _find_seen(run, *arguments, **identity):
    """Returns what the doctor takes for seen, of both splits in turn."""
    given = ("--mode=doctor", f"--model_dir={run}", *arguments)
    config = flags.read_config(given).config
    setup = inputs.prepare_inspection(config)
    saved = {**restoring.find_run(str(run)).identity, **identity}
    return acquaintance.find_seen(config, saved, [setup.train, setup.evaluation])


def test_the_same_folder_by_another_path_is_seen(root, run, monkeypatch):
    monkeypatch.chdir(root)
    assert _find_seen(run, "--data_dir=data") == [True, False]
    assert _find_seen(run, "--data_dir=data", train_examples=None) == [True, False]


def test_a_copy_of_the_files_is_seen_and_other_files_are_not(root, run, tmp_path):
    there = f"--data_dir={shutil.copytree(root / 'data', tmp_path / 'moved')}"
    assert _find_seen(run, there) == [True, False]
    assert _find_seen(run, there, train_examples=None) == [False, False]
    # In another size they are the same files.
    assert _find_seen(run, there, "--image_size=16") == [True, False]


def test_files_that_were_mended_are_those_that_were_seen(root, run):
    changed = {"train_examples": "of the files before"}
    assert _find_seen(run, **changed) == [True, False]


def test_the_split_that_was_trained_on_is_seen_in_any_role(run):
    # All four of `val` are in half 1; of `train`, half 0 was trained on.
    swapped = ("--train_split=val", "--train_half=1", "--eval_split=train")
    assert _find_seen(run, *swapped) == [False, True]
    assert _find_seen(run, *swapped, train_examples=None) == [False, True]
    assert _find_seen(run, "--eval_split=all") == [True, True]


def test_other_masks_of_the_same_photos_are_not_seen(root, run, tmp_path):
    shutil.copytree(root / "data", tmp_path / "data")
    for split in ("train", "val"):
        folder = tmp_path / "data" / split
        shutil.copytree(folder / "masks", folder / "others")
    test_evaluate.change_settings(run, data_dir=str(tmp_path / "data"))
    others = ("--images={split}/images/*.png", "--masks={split}/others/*.png")
    assert _find_seen(run, *others) == [False, False]


def test_what_described_the_classes_may_be_gone(run):
    test_evaluate.change_settings(run, label_map="/nowhere/map.csv")
    assert _find_seen(run, "--label_map=") == [True, False]


def test_a_split_of_both_roles_is_judged_once(run):
    test_evaluate.change_settings(run, train_half=None)
    with pytest.raises(errors.FindingsError, match="1 warning"):
        _run("--mode=doctor", f"--model_dir={run}", "--eval_split=train")
    names = [row["name"] for row in _read(run)]
    assert len(names) == len(set(names)) == 20


def test_a_run_without_a_checkpoint_judges_nothing(root, tmp_path, capsys):
    for name in ("config.json", "dataset.json"):
        shutil.copy(root / "run" / "crossfit" / "0" / name, tmp_path)
    _run("--mode=doctor", f"--model_dir={tmp_path}")
    assert "Nothing is wrong with them." in capsys.readouterr().out
    assert not (tmp_path / "doctor").exists()


def _make(tmp_path, **settings):
    given = {"mode": "doctor", "model_dir": str(tmp_path), **settings}
    return config_lib.from_dict(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crossfit": True, "train_half": 1}, "--train_half=1: --crossfit trains on"),
        ({"crossfit": True, "checkpoint": "best"}, "--checkpoint=best: --crossfit"),
        ({"checkpoint": "best"}, "--checkpoint=best: there is no checkpoint in"),
        (
            {"crossfit": True, "distribution_strategy": "multi_worker_mirrored"},
            "--distribution_strategy=multi_worker_mirrored: the doctor uses",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        second_opinion.can_judge(_make(tmp_path, **settings))


def test_without_a_run_there_is_nobody_to_judge(tmp_path):
    assert not second_opinion.can_judge(_make(tmp_path))
    assert second_opinion.can_judge(_make(tmp_path, crossfit=True))


def test_halves_are_not_trained_on_what_training_refuses(root, tmp_path, capsys):
    shutil.copytree(root / "data", tmp_path / "data")
    (tmp_path / "data" / "train" / "images" / "00.png").write_bytes(b"no image")
    with pytest.raises(errors.FindingsError, match="found 1 error"):
        _run(
            *("--mode=doctor", "--crossfit", *_SHORT),
            *(f"--data_dir={tmp_path / 'data'}", f"--model_dir={tmp_path / 'run'}"),
        )
    assert "No mask was judged: training would end" in capsys.readouterr().out
    assert not (tmp_path / "run" / "crossfit").exists()


def test_a_model_judges_what_can_be_used(root, tmp_path):
    shutil.copytree(root / "run" / "crossfit" / "0", tmp_path / "run")
    shutil.copytree(root / "data", tmp_path / "data")
    (tmp_path / "data" / "val" / "images" / "20.png").write_bytes(b"no image")
    with pytest.raises(errors.FindingsError, match="found 1 error"):
        _run(
            *("--mode=doctor", f"--model_dir={tmp_path / 'run'}"),
            *("--dataset=folder", f"--data_dir={tmp_path / 'data'}"),
            "--class_names=ground,pet",
        )
    rows = _read(tmp_path / "run")
    assert len(rows) == 23
    # Half of those to train on: the same files, copied.
    seen = {row["split"]: row["model_has_seen_it"] for row in rows}
    assert seen == {"data/train": "true", "data/val": "false"}


class _Stub:
    """Predicts one class for all pixels, whatever it is shown."""

    def __init__(self, label, batch_size):
        self.batch_size, self._label = batch_size, label

    def score(self, images):
        assert 0 < len(images) <= self.batch_size
        return tf.one_hot(tf.fill(images.shape[:3], self._label), 3)


def test_two_models_judge_each_what_the_other_was_trained_on(tmp_path):
    source = helpers.FileSource(tmp_path, 12)
    (tmp_path / "5.jpg").write_bytes(b"no image")
    preprocessor = preprocessing.Preprocessor(image_size=(8, 8), num_classes=3)
    judges = predicting.Judges([_Stub(0, 2), _Stub(1, 3)], preprocessor)
    whole = list(judges.predict(source))
    assert sorted(p.index for p in whole) == [*range(5), *range(6, 12)]
    for prediction in whole:
        half = halves.find_halves(source)[prediction.index]
        assert (prediction.probabilities.argmax(-1) == 1 - half).all()
        assert prediction.name == f"{prediction.index}.jpg"
    (some,) = judges.predict_some(source, [7, 7])
    (same,) = (p for p in whole if p.index == 7)
    np.testing.assert_array_equal(some.image, same.image)
    np.testing.assert_array_equal(some.label, same.label)
