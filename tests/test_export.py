"""`--mode=export`: files that compute what was trained, and nothing half done."""

import errno
import importlib
import importlib.util
import io
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.sources import synthetic
from data.stores import file_locks
from tests import helpers, shallow
from tests.faults import processes
from trainer import children, errors, flags
from trainer.assembly import exporting, photos, remote_data, restoring
from trainer.evaluating import closing, export_scores
from trainer.exporting import (
    description,
    feature_ranges,
    proof,
    publishing,
    registry,
)
from trainer.exporting.formats import litert_int8, onnx_file, saved_model
from trainer.modes import evaluate, export, train
from trainer.run_folder import checkpoint_folders, golden
from trainer.settings import config as config_lib

_DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / "docs" / "export.md"
_KERAS = "--export_format=keras"


def _read(*arguments):
    settings = {"model_dir": "a", **flags.parse(arguments).typed}
    return config_lib.from_dict(settings)


def _start(mode, *arguments):
    config, _ = flags.read_config(arguments)
    mode.run(config)


def _train(model_dir, weights, *arguments):
    _start(
        train,
        f"--model_dir={model_dir}",
        f"--encoder_weights={weights}",
        "--image_size=32",
        "--encoder_alpha=0.35",
        "--decoder_filters=8,8,8,8",
        "--batch_size=8",
        "--train_epochs=0",
        *arguments,
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Returns a file of weights of the short encoder."""
    path = tmp_path_factory.mktemp("weights") / "short.weights.h5"
    shallow.write_weights(path)
    return path


@pytest.fixture(scope="module")
def small_data():
    """Makes the built-in data small and the encoder short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
        shallow.shorten(patch)
        yield patch


@pytest.fixture(scope="module")
def trained_dir(tmp_path_factory, small_data, weights):
    """Trains until logits separate; returns the run's folder, not to be written to."""
    path = tmp_path_factory.mktemp("trained") / "run"
    _train(
        path,
        weights,
        "--train_steps=60",
        "--epochs_between_evals=20",
        "--checkpoint_interval=50",
        "--learning_rate=0.02",
        "--ema_decay=0.9",
        # Of what a frozen encoder of random weights gives, little is learned.
        "--nofreeze_encoder",
    )
    return path


@pytest.fixture
def run_dir(trained_dir, tmp_path):
    """Returns a copy of the trained run."""
    return shutil.copytree(trained_dir, tmp_path / "run")


def _need(name):
    for package in registry.FORMATS[name].packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; pip install '.[export]' has it")


def _export(run_dir, *arguments):
    _start(export, "--mode=export", f"--model_dir={run_dir}", *arguments)


def _read_lines_of_document(name):
    """Returns the code that the document has for a format."""
    sections = re.findall(
        r"^## (\w+)\n\n```python\n(.*?)```", _DOCUMENT.read_text(), re.M | re.S
    )
    code = dict(sections)
    if name == "litert_int8":  # "The folder is another one, and the rest the same."
        return code["litert"].replace("export/litert", "export/litert_int8")
    return code[name]


def _run_lines_of_document(name, run_dir, image):
    """Runs them as they are printed, on one photo; returns the labels."""
    folder = run_dir.parent
    (folder / "runs").mkdir()
    (folder / "runs" / "tutorial").symlink_to(run_dir)
    # No loss, so that all decoders agree: they look at what is in the file.
    (folder / "photo.jpg").write_bytes(tf.io.encode_png(image).numpy())
    end = (
        "import sys, numpy\n"
        "assert not {'trainer', 'models', 'data'} & sys.modules.keys()\n"
        "numpy.save('labels.npy', labels)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = _read_lines_of_document(name)
    assert len([line for line in code.splitlines() if line]) <= 10
    subprocess.run(
        [sys.executable, "-c", code + end], cwd=folder, env=environment, check=True
    )
    return np.load(folder / "labels.npy")


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_file_computes_what_was_trained(run_dir, name, capsys):
    _need(name)
    _export(run_dir, f"--export_format={name}", "--export_probabilities")
    folder = run_dir / "export" / name
    described = description.read(folder)
    kept = golden.read(run_dir)
    proved = described["proof"]
    assert proved["photos"] == 8
    assert proved["pixels"] == (kept.labels != 255).sum()
    assert proved["agreement"] >= registry.FORMATS[name].least_agreement
    assert f"{name}: {folder}" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == [name]

    run = importlib.import_module(registry.FORMATS[name].module).load(str(folder))
    outputs = run(kept.images)
    trained = restoring.load_run(run_dir)
    expected = trained.predict(kept.images, probabilities=True)
    # Something was learned, and not one class alone.
    assert len(np.unique(expected.argmax(-1))) > 1
    shares = outputs["labels"] == expected.argmax(-1)
    assert shares.mean() >= registry.FORMATS[name].least_agreement
    assert outputs["labels"].dtype == np.uint8
    differences = np.abs(outputs["probabilities"] - expected)
    if registry.FORMATS[name].is_calibrated:
        assert differences.mean() < 0.1
    else:
        assert differences.max() < 1e-4
    labels = _run_lines_of_document(name, run_dir, kept.images[0])
    np.testing.assert_array_equal(labels, outputs["labels"][0])

    # The scores of the run's last evaluation, those of the file, and, of the file by
    # itself, the same again.
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    of_run = json.loads(lines[-1])
    scores = described["scores"]
    assert (of_run["split"], scores["num_examples"]) == ("eval", 10)
    _start(
        evaluate,
        "--mode=evaluate",
        f"--model={folder}",
        f"--model_dir={run_dir}",
        "--distribution_strategy=one_device",
    )
    line = json.loads((run_dir / "export_evaluations.jsonl").read_text())
    for tag in ("mean_iou", "pixel_accuracy", "iou/body"):
        assert scores["checkpoint"][tag] == pytest.approx(of_run[tag], abs=1e-4)
        assert scores["export"][tag] == pytest.approx(of_run[tag], abs=0.01)
        assert line["scores"][tag] == pytest.approx(scores["export"][tag], abs=1e-3)
    if not registry.FORMATS[name].is_calibrated:
        assert line["scores"]["loss"] == pytest.approx(of_run["loss"], rel=1e-3)


def test_a_file_that_loses_too_much_is_an_error(run_dir, monkeypatch):
    config, _ = flags.read_config(["--mode=export", f"--model_dir={run_dir}"])
    trained = restoring.load_run(run_dir)
    comparison = export_scores.Comparison(config, trained)
    of_checkpoint = {"mean_iou": 0.5, "recall/border": math.nan}
    found = iter([{"mean_iou": 0.489}, of_checkpoint, {"mean_iou": 0.491}])
    monkeypatch.setattr(export_scores, "_scores", lambda setup: next(found))
    message = (
        r"^--export_format=onnx: its mean IoU on synthetic/test is 0.4890, and that of "
        r"the checkpoint 0.5000; 0.01 is the most that a file may lose. It was not pub"
    )
    with pytest.raises(errors.ExportError, match=message) as e:
        comparison.score("onnx", lambda: trained)
    assert e.value.exit_code == 6
    scores = comparison.score("onnx", lambda: trained)
    assert scores == {
        "split": "synthetic/test",
        "num_examples": 10,
        "export": {"mean_iou": 0.491},
        "checkpoint": {"mean_iou": 0.5, "recall/border": None},
    }
    said = ", mean IoU 0.4910 (checkpoint 0.5000)"
    assert export_scores.describe(scores) == said
    scores["export"] = {"mean_iou": None}  # All pixels of all masks are ignored.
    assert export_scores.describe(scores) == said.replace("0.4910", "unknown")


def test_a_description_is_json_for_all_programs(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        description.write(tmp_path, {"scores": {"iou/body": math.nan}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "num_said"),
    [
        (["--dataset=folder", "--data_dir=/nowhere"], 1),
        (["--dataset=folder", "--data_dir=unknown://bucket/data"], 1),
        (["--noexport_scores"], 0),
    ],
)
def test_a_split_that_is_not_scored_is_no_error(
    run_dir, caplog, monkeypatch, arguments, num_said
):
    config, _ = flags.read_config(
        ["--mode=export", f"--model_dir={run_dir}", *arguments]
    )
    trained = types.SimpleNamespace(class_names=("body", "background", "border"))
    comparison = export_scores.Comparison(config, trained)
    for name in ("onnx", "keras"):
        assert comparison.score(name, lambda: pytest.fail("loaded")) is None
    assert caplog.text.count("the evaluation split is not at hand") == num_said
    assert export_scores.describe(None) == ""


def test_a_split_that_cannot_be_read_to_its_end_costs_no_export(
    tmp_path, monkeypatch, caplog
):
    def fail(setup):
        raise schema.DataError("val/3.png is damaged.")

    config = _read("--mode=export", f"--model_dir={tmp_path}")
    file = types.SimpleNamespace(model=None)
    comparison = export_scores.Comparison(config, file)
    comparison._setup = types.SimpleNamespace(info=None, examples=[])
    monkeypatch.setattr(export_scores.evaluation, "make_eval_setup", lambda *_: None)
    monkeypatch.setattr(export_scores, "_scores", fail)
    assert [comparison.score(name, lambda: file) for name in ("keras", "onnx")] == [
        None,
        None,
    ]
    assert caplog.text.count("split cannot be read (val/3.png is damaged).") == 1


@pytest.mark.parametrize(
    "error", [errors.ConfigError, errors.RemoteError, errors.WriteError]
)
def test_data_behind_a_url_that_cannot_be_had_costs_no_export(
    tmp_path, monkeypatch, caplog, error
):
    def fail(settings):
        raise error("There is no such bucket.")

    monkeypatch.setattr(remote_data, "find_folder", fail)
    config = _read("--mode=export", f"--model_dir={tmp_path}")
    trained = types.SimpleNamespace(class_names=("body", "background", "border"))
    assert export_scores.Comparison(config, trained).score("onnx", None) is None
    photo = np.zeros([1, 4, 4, 3], np.uint8)
    instead = golden.Golden(photo, photo[..., 0], ("a",))
    assert photos.find_calibration(config, trained, instead) is photo
    assert caplog.text.count("split is not at hand (There is no such bucket).") == 2
    # Nothing else is there to prove an export by.
    is_final = error is errors.ConfigError
    expected = errors.ExportError if is_final else error
    with pytest.raises(expected, match="no such bucket"):
        photos.find_golden(config, trained)


def test_photos_that_cannot_be_used_are_left_out(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (4, 32, 32)).astype(np.uint8)
    for kind in ("images", "masks"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        for index, values in enumerate(noise):
            photo = Image.fromarray(values).convert("RGB" if kind == "images" else "L")
            photo.save(tmp_path / "train" / kind / f"{index}.png")
    damaged = tmp_path / "train/images/2.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    config = _read(
        "--dataset=folder",
        f"--data_dir={tmp_path}",
        "--num_classes=3",
        "--image_size=32",
    )
    trained = types.SimpleNamespace(
        class_names=None, image_format=schema.ImageFormat(3, (0, 255))
    )
    some = photos.read_some(config, trained, 4, is_training=True)
    assert [pathlib.Path(name).stem for name in some.names] == ["0", "1", "3"]
    np.testing.assert_array_equal(some.labels, noise[[0, 1, 3]])


def test_a_file_that_computes_something_else_is_not_published(run_dir, monkeypatch):
    label = exporting.label
    monkeypatch.setattr(exporting, "label", lambda *args: label(*args) ^ 1)
    with pytest.raises(errors.ExportError, match=r"keras: 0\.000% of the labels") as e:
        _export(run_dir, _KERAS)
    assert e.value.exit_code == 6
    assert list((run_dir / "export").iterdir()) == []


def test_what_cannot_be_converted_is_said_in_a_sentence(run_dir, monkeypatch):
    def fail(model):
        raise ValueError("Odd is no layer of Keras' own")

    monkeypatch.setattr(exporting.stock, "make_stock_model", fail)
    message = r"^--export_format=keras: .*\(Odd is no layer of Keras' own\); use"
    with pytest.raises(errors.ExportError, match=message):
        _export(run_dir, _KERAS)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        # A full disk and a limit of a file's size, as TensorFlow tells of them.
        (tf.errors.ResourceExhaustedError(None, None, "a; No space left on device"), 3),
        (tf.errors.UnknownError(None, None, "x/variables; File too large"), 3),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 3),
        (ValueError("Odd is no layer of Keras' own"), 6),
        # What others find words for.
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
    ],
)
def test_a_disk_that_is_full_is_no_model_that_cannot_be_converted(
    tmp_path, monkeypatch, raised, expected
):
    def write(network, folder):
        raise raised

    monkeypatch.setattr(saved_model, "write", write)
    with pytest.raises(Exception) as e:
        export._write("saved_model", None, tmp_path)
    if expected is None:
        assert e.value is raised
    else:
        assert e.value.exit_code == expected
        assert str(e.value).startswith("--export_format=saved_model: th")
        assert str(raised) in str(e.value)


def test_a_disk_that_is_full_is_no_file_that_does_not_run(tmp_path, monkeypatch):
    ended = children.Ended(1, "a\nOSError: [Errno 28] No space left on device\n")
    monkeypatch.setattr(children, "run", lambda *_: ended)
    with pytest.raises(errors.WriteError, match=r"^--export_format=keras: there is no"):
        proof.run_alone("keras", str(tmp_path), {"a": np.zeros([1, 2, 2, 3], np.uint8)})


def test_a_file_that_does_not_run_is_an_error(tmp_path):
    with pytest.raises(errors.ExportError, match="keras: .* does not run in a fresh"):
        proof.run_alone("keras", str(tmp_path), {"a": np.zeros([1, 2, 2, 3], np.uint8)})


def test_photos_of_a_proof_lie_where_a_later_export_clears_up(tmp_path, monkeypatch):
    def fail(module, arguments, environment):
        found.extend(path.name for path in tmp_path.rglob("*.npz"))
        return children.Ended(1, "first\nlast\n")

    found = []
    monkeypatch.setattr(children, "run", fail)
    with pytest.raises(errors.ExportError, match=r"fresh process \(last\)"):
        proof.run_alone("keras", str(tmp_path), {"a": np.zeros([1, 2, 2, 3], np.uint8)})
    assert found == ["in.npz"]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, run_dir, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"--export_format=onnx: onnx needs the package tf2onnx.*\[export\]"
    with pytest.raises(errors.ConfigError, match=message):
        _export(run_dir, "--export_format=onnx")


def test_golden_photos_are_examples_of_the_evaluation_split(trained_dir):
    kept = golden.read(trained_dir)
    assert kept.images.shape == (8, 32, 32, 3)
    assert kept.labels.shape == (8, 32, 32)
    assert len(set(kept.names)) == 8


def test_a_run_without_golden_photos_takes_the_evaluation_split(run_dir, monkeypatch):
    kept = golden.read(run_dir)
    shutil.rmtree(run_dir / "golden")
    seen = []
    monkeypatch.setattr(export, "_export", lambda name, s: seen.append(s.examples))
    _export(run_dir)
    np.testing.assert_array_equal(seen[0].images, kept.images)
    np.testing.assert_array_equal(seen[0].labels, kept.labels)
    with pytest.raises(errors.ExportError, match="kept no photos .*--data_dir"):
        _export(run_dir, "--dataset=folder", f"--data_dir={run_dir}/no")


def test_a_file_tells_of_the_averages_that_it_has(run_dir, monkeypatch):
    """Whatever is typed, as export does not use it."""
    said = []
    monkeypatch.setattr(
        export, "_export", lambda name, s: said.append(export._describe(name, s, {}))
    )
    _export(run_dir, _KERAS, "--ema_decay=0")
    assert said[0]["uses_averages"] is True


def test_an_export_beside_a_training_is_of_the_checkpoint_that_it_began_with(
    run_dir, monkeypatch
):
    """The training has saved a newer one meanwhile, and removes this one later."""
    *_, path, newer = sorted((run_dir / "checkpoints").iterdir())
    aside, loaded, described = run_dir / "newer", [], []
    newer.rename(aside)
    load = restoring.load_run

    def load_and_save(*args, **kwargs):
        loaded.append(load(*args, **kwargs))
        if aside.exists():
            aside.rename(newer)
        return loaded[-1]

    def remove_and_describe(name, subject):
        shutil.rmtree(path)
        described.append(export._describe(name, subject, {}))

    monkeypatch.setattr(restoring, "load_run", load_and_save)
    monkeypatch.setattr(export, "_export", remove_and_describe)
    _export(run_dir, _KERAS, "--mixed_precision=bfloat16")
    assert [trained.checkpoint for trained in loaded] == [path] * 2
    assert described[0]["step"] == checkpoint_folders.step_of(path)


@pytest.mark.parametrize("arguments", [["--nokeep_golden"], ["--mode=train"]])
def test_no_photos_are_kept_where_they_shall_not_be(
    small_data, weights, tmp_path, arguments
):
    _train(tmp_path / "run", weights, "--train_steps=1", *arguments)
    assert not (tmp_path / "run" / "golden").exists()
    assert not (tmp_path / "run" / "predictions.png").exists()


def test_photos_of_an_earlier_start_are_named(trained_dir, caplog):
    def end(**settings):
        with caplog.at_level("WARNING"):
            caplog.clear()
            closing.warn_of_pictures(
                config_lib.from_dict({"model_dir": str(trained_dir), **settings})
            )
        return caplog.text

    assert "still holds photos, in golden/photos.npz, pred" in end(keep_golden=False)
    assert end() == ""


def test_the_trained_precision_is_that_of_the_last_start(run_dir):
    file, settings = run_dir / "environment.json", {"model_dir": str(run_dir)}
    environment = json.loads(file.read_text())
    photos_to_label = golden.read(run_dir)

    def find(**others):
        config = config_lib.from_dict({**settings, **others})
        return export._trained_precision(config)

    assert find() == environment["precision"] == "float32"
    file.write_text(json.dumps({**environment, "precision": "mixed_bfloat16"}))
    assert find() == "mixed_bfloat16"  # Of another machine; here, auto is float32.
    assert find(mixed_precision="float16") == "mixed_float16"
    file.unlink()
    assert find() is None
    unknown = export._compare_precision(
        config_lib.from_dict(settings), None, photos_to_label, photos_to_label.labels
    )
    assert unknown == {
        "trained_precision": None,
        "agreement_with_trained_precision": None,
    }


@pytest.fixture
def decode(monkeypatch):
    """Returns what makes a function that decodes as a SavedModel does, and its text."""

    def make(dtype, channels):
        def model(images, training):
            return images

        model.variables = []
        network = types.SimpleNamespace(
            model=model,
            image_size=(4, 6),
            image_shape=(4, 6, channels),
            num_channels=channels,
            dtype=dtype,
            any_size=False,
            outputs=lambda images: {"image": images},
        )
        about = saved_model.write(network, "")
        if "encoded" not in about:
            return None, ""
        function = saved.pop().label_encoded
        return lambda data: function(data)["image"].numpy(), about["encoded"]

    saved = []
    monkeypatch.setattr(tf.saved_model, "save", lambda one, *_, **__: saved.append(one))
    return make


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_said_of_files_of_8_bits_that_are_decoded_is_true(decode, channels):
    run, about = decode("uint8", channels)
    image = np.random.default_rng(0).integers(0, 256, (4, 6, channels)).astype(np.uint8)
    for kind in ("JPEG", "PNG", "BMP", "GIF"):
        file = io.BytesIO()
        try:
            Image.fromarray(image.squeeze()).save(file, kind)
        except OSError:  # There are no such files.
            assert kind not in about
            continue
        if kind not in about:
            with pytest.raises(tf.errors.InvalidArgumentError):
                run(file.getvalue())
        elif kind == "JPEG":
            assert run(file.getvalue()).shape == image.shape
        else:
            np.testing.assert_array_equal(run(file.getvalue()), image, kind)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_said_of_files_of_16_bits_that_are_decoded_is_true(decode, channels):
    run, about = decode("uint16", channels)
    assert about == "string [], the bytes of a PNG file of 16 bits"
    image = np.random.default_rng(0).integers(0, 65536, (4, 6, channels))
    image = image.astype(np.uint16)
    np.testing.assert_array_equal(run(tf.io.encode_png(image)), image)


def test_of_other_numbers_of_channels_no_files_are_decoded(decode):
    assert decode("uint8", 2) == (None, "")


def _draw_photos(size):
    shape = (2, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_the_smallest_layers_stay_in_float_where_others_have_8_bits(
    tmp_path, monkeypatch
):
    _need("litert_int8")
    from ai_edge_litert import interpreter

    counted = []

    def choose_range(counts, low, high):
        counted.append(counts.sum())
        return -1.0, 1.0

    monkeypatch.setattr(feature_ranges, "choose_range", choose_range)

    images = keras.Input((8, 8, 3))
    features = keras.layers.Rescaling(1 / 64, -2)(images)
    features = keras.layers.Conv2D(4, 3, padding="same")(features)  # 108 weights
    features = keras.layers.DepthwiseConv2D(3, padding="same")(features)  # 36
    features = keras.layers.Conv2D(32, 3, activation="relu")(features)  # 1,152
    features = keras.layers.Conv2D(32, 3, padding="same")(features)  # 9,216
    features = keras.layers.Activation("hard_silu", name="bent")(features)
    model = keras.Model(images, keras.layers.Conv2D(3, 1)(features))  # 96
    # Of 10,608 weights the hundredth part is 106: the 36, and not the 96 as well.
    litert_int8.write(helpers.network_to_export(model, _draw_photos(8)), str(tmp_path))
    path = tmp_path / "model.tflite"
    details = interpreter.Interpreter(str(path)).get_tensor_details()
    dtypes = {tuple(d["shape"]): d["dtype"] for d in details}
    assert dtypes[1, 3, 3, 4] == np.float32
    shapes = [(4, 3, 3, 3), (32, 3, 3, 4), (32, 3, 3, 32), (3, 1, 1, 32)]
    assert [dtypes[shape] for shape in shapes] == [np.int8] * 4
    # A hard swish is a product of features.
    assert [d["dtype"] for d in details if "bent" in d["name"]] == [np.float32]
    # All values of two photos were counted, but for the ends, and the range was taken.
    assert pytest.approx(2 * 6 * 6 * 32, abs=2) in counted
    ranges = [d["quantization"][0] for d in details if (*d["shape"],) == (1, 6, 6, 32)]
    steps = [step for step in ranges if step]  # None in float32.
    assert steps == [pytest.approx(2 / 255)] * len(steps) and steps
    names = {d["name"]: d["dtype"] for d in details}
    (scaled,) = (dtype for name, dtype in names.items() if name.endswith("/add"))
    assert scaled == np.float32


def test_gelu_is_written_to_onnx(tmp_path):
    _need("onnx")
    images = keras.Input((4, 4, 3))
    scaled = keras.layers.Rescaling(1 / 64, -2)(images)
    model = keras.Model(images, keras.layers.Activation("gelu")(scaled))
    photos = _draw_photos(4)
    onnx_file.write(helpers.network_to_export(model, photos), str(tmp_path))
    x = photos / 64 - 2
    erf = np.vectorize(math.erf)(x / math.sqrt(2))
    powers = np.exp(0.5 * x * (1 + erf))
    expected = powers / powers.sum(axis=-1, keepdims=True)
    found = onnx_file.load(str(tmp_path))(photos)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_golden_photos_are_written_once(tmp_path):
    def read(ids):
        return ids.astype(np.uint8), ids.astype(np.uint8)

    names = [f"n{index}" for index in range(15)]
    golden.write_once(tmp_path, 15, read, names)
    kept = golden.read(tmp_path)
    assert kept.images.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert kept.names[1] == "n2"
    golden.write_once(tmp_path, 3, read, names)
    assert golden.read(tmp_path).images.tolist() == kept.images.tolist()
    (tmp_path / "golden" / "photos.npz").write_bytes(b"PK")
    with pytest.raises(errors.CheckpointError, match="cannot be read .*remove it"):
        golden.read(tmp_path)
    assert golden.read(tmp_path / "no") is None


def _publish(folder, text):
    with publishing.staging(folder) as stage:
        (stage / "file").write_text(text)
        description.write(stage, {})
        publishing.publish(stage, folder)


def test_a_folder_is_published_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "export" / "onnx"
    for text in ("first", "second"):
        _publish(folder, text)
    with pytest.raises(RuntimeError), publishing.staging(folder) as stage:
        (stage / "file").write_text("third")
        raise RuntimeError
    assert (folder / "file").read_text() == "second"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_link_in_the_place_of_a_folder_makes_way(tmp_path):
    folder, other = tmp_path / "export" / "onnx", tmp_path / "elsewhere"
    folder.parent.mkdir()
    other.mkdir()
    (other / "kept").touch()
    folder.symlink_to(other)
    with publishing.staging(folder) as stage:
        (stage / "file").touch()
        publishing.publish(stage, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert list(other.iterdir()) == [other / "kept"]


@pytest.mark.parametrize(
    ("name", "is_export"),
    [
        ("keras", False),  # A file where the folder shall be.
        ("keras/thesis.py", False),
        ("keras/model.json", False),  # Others have files of this name, too.
        ("keras/variables/notes", True),
        ("keras/link", True),
    ],
)
def test_what_no_export_wrote_is_not_deleted(tmp_path, name, is_export):
    folder, path = tmp_path / "keras", tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    if is_export:
        (folder / "weights").touch()
        description.write(folder, {})
        publishing.check_place(folder)
    if name.endswith("link"):
        path.symlink_to(tmp_path)
    else:
        path.write_text("{}")
    message = re.escape(f"--export_dir={tmp_path}: an export would delete {path}, wh")
    # Before any work: there is no run.
    with pytest.raises(errors.ConfigError, match=message + ".*; move it away, or nam"):
        export.run(_read("--mode=export", f"--export_dir={tmp_path}", _KERAS))
    with (
        publishing.staging(folder) as stage,
        pytest.raises(errors.ConfigError, match=message),
    ):
        publishing.publish(stage, folder)
    assert os.path.lexists(path)


def test_an_export_that_cannot_be_renamed_leaves_the_older_one(tmp_path, monkeypatch):
    folder = tmp_path / "export" / "onnx"
    _publish(folder, "older")
    rename = pathlib.Path.rename

    def fail(path, target):
        if path.name.startswith(".partial-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail)
    with pytest.raises(errors.WriteError, match="onnx could not be written"):
        _publish(folder, "newer")
    assert (folder / "file").read_text() == "older"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_an_export_was_killed_while_replacing_is_put_back(tmp_path):
    folder = tmp_path / "export" / "saved_model"
    _publish(folder, "older")
    stage = folder.with_name(f".partial-{'a' * 32}")
    older = folder.with_name(f".older-saved_model-{'a' * 32}")
    stage.mkdir()  # Of the killed one.
    folder.rename(older)
    descriptor = os.open(stage, os.O_RDONLY)
    file_locks.try_lock(descriptor)
    with publishing.staging(folder):
        pass  # The other process still runs.
    assert set(folder.parent.iterdir()) == {stage, older}
    os.close(descriptor)
    with publishing.staging(folder) as other:
        assert set(folder.parent.iterdir()) == {folder, other}
    assert (folder / "file").read_text() == "older"


def test_what_an_export_was_killed_after_replacing_is_removed(tmp_path):
    folder = tmp_path / "export" / "onnx"
    _publish(folder, "older")
    folder.rename(folder.with_name(f".older-onnx-{'a' * 32}"))
    folder.mkdir()
    (folder / "file").write_text("newer")
    with publishing.staging(folder):
        pass
    assert (folder / "file").read_text() == "newer"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_a_killed_export_left_is_removed_after_an_hour(tmp_path, monkeypatch):
    """So it is where the file system has no locks."""
    monkeypatch.setattr(file_locks, "try_lock", lambda descriptor: None)
    old, young = (tmp_path / f".partial-{digit * 32}" for digit in "ab")
    for path in (old, young):
        path.mkdir()
    os.utime(old, times=(time.time() - 4000,) * 2)
    with publishing.staging(tmp_path / "onnx"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_an_export_leaves_what_another_one_is_filling(tmp_path):
    (tmp_path / f".partial-{'a' * 32}").mkdir()  # Of a process that was killed.
    with (
        publishing.staging(tmp_path / "onnx") as first,
        publishing.staging(tmp_path / "keras") as second,
    ):
        assert set(tmp_path.iterdir()) == {first, second}
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_publishes_nothing_and_the_next_one_clears_up(run_dir):
    command = [sys.executable, "-m", "tests.faults.short_program", "--mode=export"]
    command += [f"--model_dir={run_dir}", _KERAS, "--noexport_scores"]
    export_dir = run_dir / "export"
    (export_dir / "keras").mkdir(parents=True)
    (export_dir / "keras" / "older").touch()
    description.write(export_dir / "keras", {})
    process = subprocess.Popen(
        command,
        cwd=processes.ROOT,
        env={**os.environ, "HOLD_EXPORT": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    processes.wait_for(lambda: list(export_dir.glob(".partial-*/*")), process)
    process.kill()
    processes.finish(process)
    assert process.returncode == -signal.SIGKILL
    assert list(export_dir.glob(".partial-*/*"))
    assert "older" in description.read(export_dir / "keras")["sha256"]
    _export(run_dir, _KERAS, "--noexport_scores")
    assert description.read(export_dir / "keras")["proof"]["agreement"] >= 0.999
    assert [path.name for path in export_dir.iterdir()] == ["keras"]


def test_only_valid_pixels_count_for_the_agreement():
    labels, reference = np.array([[[0, 1, 2, 2]]]), np.array([[[0, 1, 1, 1]]])
    # The third of four differs, and the fourth is ignored.
    is_valid = np.array([[[True, True, True, False]]])
    assert proof.agreement(labels, reference, is_valid) == pytest.approx(2 / 3)
    assert proof.agreement(labels, reference, np.zeros_like(is_valid)) == 0.5


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "name one of saved_model"),
        ("onnx,tflite", "'tflite' is no format; use saved_model, keras"),
        ("onnx,onnx", "onnx is there twice"),
    ],
)
def test_formats_that_are_none_are_refused(value, rule):
    with pytest.raises(errors.ConfigError, match=rf"^--export_format={value}: {rule}"):
        _read("--mode=export", f"--export_format={value}")


@pytest.mark.parametrize("name", registry.FORMATS)
def test_a_format_is_a_file_with_two_functions(name):
    module = importlib.import_module(registry.FORMATS[name].module)
    assert callable(module.write)
    assert callable(module.load)
    assert pathlib.Path(module.__file__).parent.name == "formats"
