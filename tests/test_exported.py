"""`--model`: an exported file takes the place of a run's model.

The files themselves are tried in `test_export`; here, one that classifies by colours.
"""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from data import schema
from data.sources import synthetic
from trainer import errors, flags
from trainer.assembly import exported
from trainer.exporting import description, registry
from trainer.exporting.formats import onnx_file
from trainer.modes import evaluate, predict
from trainer.run_folder import run_settings
from trainer.settings import config as config_lib

_SPLIT = ("--dataset=synthetic", "--eval_split=validation")


def _probabilities(images):
    """Returns, float32 [batch, height, width, 3], what each class is by its colour."""
    colors = np.array(synthetic.INFO.palette, np.float32)
    distances = np.square(images[..., np.newaxis, :] - colors).sum(-1) / 2000
    scores = np.exp(-distances + distances.min(-1, keepdims=True))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def _start(mode, *arguments):
    config, remarks = flags.read_config(arguments)
    mode.run(config)
    return remarks


@pytest.fixture(name="gives")
def _gives():
    """Returns the outputs that the file has, to be changed by tests."""
    return ["labels", "probabilities"]


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch, gives):
    """Returns the folder of a file that classifies by colours."""

    def load(folder):
        def run(images):
            assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
            scores = _probabilities(images)
            outputs = {
                "labels": scores.argmax(-1).astype(np.uint8),
                "probabilities": scores,
            }
            return {name: outputs[name] for name in gives}

        return run

    monkeypatch.setattr(onnx_file, "load", load)
    monkeypatch.setattr(registry, "find_missing_package", lambda name: "")
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"file")
    _describe(folder)
    return folder


def _describe(folder, **changes):
    values = {
        "format": "onnx",
        "class_names": synthetic.INFO.class_names,
        "palette": synthetic.INFO.palette,
        "image_size": (32, 32),
        "image_channels": 3,
        "image_range": (0, 255),
        "resize": "stretch",
        "gives_probabilities": True,
        "step": 60,
        "uses_averages": True,
    }
    description.write(folder, {**values, **changes})


def _evaluate(folder, *arguments):
    return _start(evaluate, "--mode=evaluate", f"--model={folder}", *_SPLIT, *arguments)


def _predict(folder, source, output, *arguments):
    _start(
        predict,
        "--mode=predict",
        f"--model={folder}",
        f"--input={source}",
        f"--output={output}",
        *arguments,
    )


def _score(labels, predicted):
    """Returns pixel accuracy and mean IoU, by counting."""
    pairs = [
        (((labels == c) & (predicted == c)).sum(), ((labels == c) | (predicted == c)))
        for c in range(3)
    ]
    return (labels == predicted).mean(), np.mean([n / u.sum() for n, u in pairs])


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_a_file_is_scored_on_the_whole_split_and_apart(
    folder, gives, output, tmp_path, capsys
):
    gives[:] = [output]
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    settings = {"image_size": (64, 64), "crop_size": (48, 48), "encoder_alpha": 0.5}
    settings |= {"eval_split": "validation", "batch_size": 12}
    run_settings.write(
        run_dir, config_lib.from_dict({"model_dir": str(run_dir), **settings})
    )
    _start(evaluate, "--mode=evaluate", f"--model={folder}", f"--model_dir={run_dir}")

    (line,) = (run_dir / "export_evaluations.jsonl").read_text().splitlines()
    line, out = json.loads(line), capsys.readouterr().out
    assert not (run_dir / "evaluations.jsonl").exists()  # It is of checkpoints.
    rows = list(synthetic.SyntheticSource("validation", size=32).examples())
    images, labels = (
        np.stack([r[k].numpy() for r in rows]) for k in ("image", "label")
    )
    scores = _probabilities(images)
    accuracy, mean_iou = _score(labels, scores.argmax(-1))
    assert 0.05 < mean_iou < 1
    assert line["scores"]["pixel_accuracy"] == pytest.approx(accuracy)
    assert line["scores"]["mean_iou"] == pytest.approx(mean_iou)
    assert re.search(rf"^mean IoU +{mean_iou:.4f}$", out, re.M)
    assert f"onnx of {folder} on synthetic/validation" in out
    assert (line["num_examples"], line["image_size"]) == (40, [32, 32])
    assert (line["format"], line["export"]) == ("onnx", str(folder))
    assert (line["step"], line["precision"]) == (60, "float32")
    assert line["uses_averages"]  # As `model.json` has it.
    assert (run_dir / line["picture"]).exists()
    if output == "labels":
        assert not any(name.startswith("loss") for name in line["scores"])
    else:
        right = np.take_along_axis(scores, labels[..., np.newaxis].astype(int), -1)
        expected = -np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()
        assert line["scores"]["loss"] == pytest.approx(expected, rel=1e-4)


def test_photos_are_predicted_by_a_file(folder, tmp_path, capsys):
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    photos = {
        name: random.integers(0, 256, (*size, 3)).astype(np.uint8)
        for name, size in (("a", (32, 32)), ("b", (45, 70)))
    }
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(tmp_path / f"in/{name}.png")
    _predict(folder, tmp_path / "in", tmp_path / "out", "--save=labels,npz")
    assert f"2 photos by onnx of {folder}" in capsys.readouterr().out

    found = np.asarray(Image.open(tmp_path / "out/labels/a.png"))
    expected = _probabilities(photos["a"][np.newaxis])[0]
    np.testing.assert_array_equal(found, expected.argmax(-1))
    shares = np.load(tmp_path / "out/npz/a.npz")["probabilities"] / 65535
    np.testing.assert_allclose(shares, expected.transpose(2, 0, 1), atol=1e-5)
    # Of another size, as by the library: resized, and the logits resized back.
    trained = exported.load(description.read_model(str(folder)))
    found = np.asarray(Image.open(tmp_path / "out/labels/b.png"))
    np.testing.assert_array_equal(found, trained.predict(photos["b"]))
    assert found.shape == (45, 70)

    _predict(folder, tmp_path / "in", tmp_path / "mean", "--tta=flip")
    mirrored = _probabilities(photos["a"][np.newaxis, :, ::-1])[0, :, ::-1]
    found = np.asarray(Image.open(tmp_path / "mean/labels/a.png"))
    np.testing.assert_array_equal(found, (expected + mirrored).argmax(-1))

    _predict(folder, tmp_path / "in", tmp_path / "tiles", "--tile_size=32")
    found = np.asarray(Image.open(tmp_path / "tiles/labels/a.png"))
    np.testing.assert_array_equal(found, expected.argmax(-1))


def test_without_probabilities_there_is_no_confidence(folder, gives, tmp_path):
    gives[:] = ["labels"]
    (tmp_path / "in").mkdir()
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "in/a.png")
    _predict(folder, tmp_path / "in", tmp_path / "out")
    found = np.asarray(Image.open(tmp_path / "out/labels/a.png"))
    np.testing.assert_array_equal(found, _probabilities(photo[None])[0].argmax(-1))
    rows = list(csv.DictReader((tmp_path / "out/summary.csv").open()))
    assert {row["mean_confidence"] for row in rows} == {""}
    assert sum(int(row["pixels"]) for row in rows) == 32 * 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tta=flip,1.25"], r"^--tta=flip,1.25: .* images of 32x32 pixels alone; le"),
        (["--tile_size=64"], r"^--tile_size=64: .* takes images of 32x32 pixels alone"),
        (["--tta=flip"], r"^--tta=flip: .*onnx gives labels alone, .*export_probabil"),
        (["--save=labels,npz"], r"^--save=labels,npz: .* gives labels alone"),
    ],
)
def test_what_a_file_cannot_predict_is_refused(
    folder, gives, tmp_path, arguments, message
):
    gives[:] = ["labels"]
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in/a.png")
    with pytest.raises(errors.ConfigError, match=message):
        _predict(folder, tmp_path / "in", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics=calibration"], r"^--metrics=calibration: .* gives labels alone"),
        (["--merge_classes=a=body+border"], r"^--merge_classes=.* gives labels alone"),
        (
            ["--image_size=64"],
            r"^--image_size=64: the exported model in .* takes 32,32",
        ),
        (["--resize=pad"], r"^--resize=pad: the exported model in .* takes stretch al"),
        (
            ["--checkpoint=best"],
            r"^--checkpoint=best: it has no meaning beside --model",
        ),
        (["--watch"], r"only with --watch=false"),
    ],
)
def test_what_a_file_cannot_be_scored_with_is_refused(
    folder, gives, arguments, message
):
    gives[:] = ["labels"]
    with pytest.raises(errors.ConfigError, match=message):
        _evaluate(folder, *arguments)


def test_what_a_file_has_in_it_is_not_used(folder):
    typed = ["--mode=evaluate", f"--model={folder}", "--image_size=32", *_SPLIT]
    typed += ["--encoder_alpha=0.35", "--mixed_precision=float16", "--batch_size=4"]
    resolved = flags.read_config(typed)
    assert resolved.remarks == [
        "--mode=evaluate does not use --encoder_alpha, --mixed_precision."
    ]
    assert resolved.config.data.image_size == (32, 32)


def _write_run(folder, **settings):
    folder.mkdir()
    settings = {"eval_split": "validation", **settings}
    run_settings.write(
        folder, config_lib.from_dict({"model_dir": str(folder), **settings})
    )
    return folder


@pytest.mark.parametrize(
    ("mode", "gives_probabilities", "run", "dropped"),
    [
        ("evaluate", True, {"tta": ("flip",), "metrics": ("calibration",)}, {}),
        (
            "evaluate",
            True,
            {"tta": ("flip", "1.5"), "metrics": ("calibration",)},
            {"tta": r"flip,1.5 .*onnx, which takes images of 32x32 pixels alone\.$"},
        ),
        (
            "evaluate",
            False,
            {"tta": ("flip",), "metrics": ("boundary_iou", "calibration")},
            {
                "tta": "flip of the run does not count for .*onnx, which gives labels",
                "metrics": "boundary_iou,calibration .* gives labels alone, and this",
            },
        ),
        ("evaluate", False, {"metrics": ("boundary_iou",)}, {}),
        ("predict", False, {"tta": ("flip", "1.5")}, {"tta": "flip,1.5 of the run"}),
    ],
)
def test_what_a_run_has_and_its_file_cannot_do_does_not_count(
    folder, tmp_path, mode, gives_probabilities, run, dropped
):
    _describe(folder, gives_probabilities=gives_probabilities)
    run_dir = _write_run(tmp_path / "run", **run)
    command = [f"--mode={mode}", f"--model={folder}", f"--model_dir={run_dir}"]
    config, remarks = flags.read_config(command)
    for name, value in run.items():
        expected = () if name in dropped else value
        assert getattr(config.evaluation, name) == expected
    assert len(remarks) == len(dropped)
    for remark, (name, text) in zip(remarks, dropped.items(), strict=True):
        assert re.match(f"--{name}={text}", remark)
    # What is typed counts, and is refused by `exported.check`.
    config, remarks = flags.read_config([*command, "--tta=flip,2"])
    assert config.evaluation.tta == ("flip", "2")
    assert not any("--tta" in remark for remark in remarks)


def test_a_file_of_keras_gives_scores_in_any_case(folder):
    _describe(folder, format="keras", gives_probabilities=False)
    assert description.read_model(str(folder)).gives_scores


def test_scores_of_the_run_do_not_keep_its_file_from_predicting(
    folder, gives, tmp_path
):
    gives[:] = ["labels"]
    _describe(folder, gives_probabilities=False)
    run_dir = _write_run(tmp_path / "run", metrics=("calibration",), tta=("flip",))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in/a.png")
    _predict(folder, tmp_path / "in", tmp_path / "out", f"--model_dir={run_dir}")
    assert (tmp_path / "out/labels/a.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model.onnx").write_bytes(b"x"), "model.onnx is not the file"),
        (lambda f: (f / "model.onnx").unlink(), "cannot be read .* name a folder that"),
        (lambda f: (f / "model.json").unlink(), "cannot be read .* name a folder that"),
        (lambda f: (f / "model.json").write_text("[]"), "cannot be read .* name a fol"),
        (
            lambda f: _describe(f, format="tflite"),
            r"does not say .*\('tflite'\)\); exp",
        ),
        (lambda f: _describe(f, palette=[[1]]), "does not say what the model is"),
    ],
)
def test_a_damaged_or_foreign_folder_is_one_message(folder, change, message):
    change(folder)
    with pytest.raises(errors.ExportError, match=message):
        _evaluate(folder)


def test_a_file_that_does_not_run_is_one_message(folder, monkeypatch):
    def load(folder):
        raise RuntimeError("No such operator\nat line 3")

    monkeypatch.setattr(onnx_file, "load", load)
    message = r"^--model=.*: onnx cannot be run here \(No such operator\); export"
    with pytest.raises(errors.ExportError, match=message):
        exported.load(description.read_model(str(folder)))


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setattr(registry, "find_missing_package", lambda name: "onnxruntime")
    message = r"^--model=.*: onnx needs the package onnxruntime.*\[export\]"
    with pytest.raises(errors.ConfigError, match=message):
        exported.load(description.read_model(str(folder)))


def test_other_classes_are_refused(folder):
    _describe(folder, class_names=["a", "b", "c"])
    with pytest.raises(schema.DataError, match="classes"):
        _evaluate(folder)
