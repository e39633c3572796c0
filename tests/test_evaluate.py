"""`--mode=evaluate`: the folder of a run is enough, and classes go by their names."""

import dataclasses
import importlib
import json
import pathlib
import random as random_lib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.preparing import preprocessing
from data.sources import folder, registry
from models.encoders import weights
from tests import shallow
from tests.faults import processes
from trainer import errors, flags, load_run, main
from trainer.evaluating import scoring
from trainer.run_folder import checkpoint_folders, checkpointing
from trainer.settings import modes

_COLORS = {"bg": (0, 0, 0), "road": (255, 0, 0), "car": (0, 255, 0)}


@pytest.fixture(scope="module", autouse=True)
def _short_encoder():
    with pytest.MonkeyPatch.context() as patch:
        shallow.shorten(patch)
        yield


def _write_colors(path, names):
    path.write_text(
        "".join(f"{name},{','.join(map(str, _COLORS[name]))}\n" for name in names)
    )


def _draw_folder(root, splits, names=tuple(_COLORS)):
    """Draws photos with coloured masks of three classes in blocks of 16 pixels."""
    random = np.random.default_rng(0)
    palette = np.array([_COLORS[name] for name in names], np.uint8)
    for split, count in splits.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            labels = np.kron(random.integers(0, 3, (2, 2)), np.ones((16, 16), int))
            photo = 60 * labels[..., None] + random.integers(0, 40, (32, 32, 3))
            for kind, pixels in (("images", photo), ("masks", palette[labels])):
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / split / kind / f"{index}.png")


def _run(*arguments):
    config, _ = flags.read_config(arguments)
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)


def _lines(run):
    return [json.loads(x) for x in (run / "evaluations.jsonl").read_text().splitlines()]


def change_settings(run, **values):
    """Rewrites what a run's folder says that it was trained with."""
    saved = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**saved, **values}))


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory):
    """Returns the folder of a short run, its encoder's weights gone."""
    root = tmp_path_factory.mktemp("evaluate")
    _draw_folder(root / "data", {"train": 8, "val": 5})
    _write_colors(root / "a.csv", ["bg", "road", "car"])
    shallow.write_weights(root / "encoder.weights.h5")
    _run(
        f"--model_dir={root / 'run'}",
        "--dataset=folder",
        f"--data_dir={root / 'data'}",
        f"--label_colors={root / 'a.csv'}",
        "--image_size=45,70",
        "--encoder_alpha=0.35",
        f"--encoder_weights={root / 'encoder.weights.h5'}",
        "--decoder_filters=16,8,8,8",
        "--batch_size=4",
        "--learning_rate=0.01",
        "--train_epochs=4",
        "--loss=ce+0.5*dice+focal",
        "--focal_gamma=20",
        "--metrics=boundary_iou",
        "--num_gpus=0",
    )
    (root / "encoder.weights.h5").unlink()
    return root / "run"


@pytest.fixture(name="copy")
def _copy(trained, tmp_path):
    """Returns a copy of the run at another place."""
    return shutil.copytree(trained, tmp_path / "moved")


def _scores(line):
    return {tag: v for tag, v in line["scores"].items() if tag != "images_per_sec"}


def test_a_moved_folder_alone_gives_the_scores_of_the_training(copy, capsys):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    point = json.loads((copy / "metrics.jsonl").read_text().splitlines()[-1])

    _run("--mode=evaluate", f"--model_dir={copy}")

    (line,) = _lines(copy)
    tags = ["loss", "loss/ce", "loss/dice", "loss/focal", "pixel_accuracy", "mean_iou"]
    for tag in (*tags, "iou/road", "mean_boundary_iou", "boundary_iou/road"):
        assert line["scores"][tag] == pytest.approx(point[tag], rel=1e-5), tag
    assert (line["step"], line["checkpoint"]) == (8, "step-00000008")
    assert (line["dataset"], line["split"]) == ("folder", "data/val")
    assert line["num_examples"] == 5 and len(line["fingerprint"]) == 16
    assert (copy / line["picture"]).read_bytes()[:4] == b"\x89PNG"
    out = capsys.readouterr().out
    assert re.search(r"^class +IoU  precision  recall  boundary IoU  of pix", out, re.M)
    assert re.search(r"^road +0\.\d{4} ", out, re.M) and "mean boundary IoU  0." in out
    assert line["class_names"] == ["bg", "road", "car"]
    counts = np.array(line["confusion"])
    accuracy = np.trace(counts) / counts.sum()
    assert accuracy == pytest.approx(line["scores"]["pixel_accuracy"])
    recall = counts[1, 1] / counts[1].sum()
    assert recall == pytest.approx(line["scores"]["recall/road"])
    assert re.search(rf"^road  .* {recall:.1%} ", out, re.M)
    share = counts[1].sum() / counts.sum()
    assert re.search(rf"^road .* {recall:.4f} .* {share:.1%}$", out, re.M)
    # Nothing of the run itself has changed.
    assert {p: p.read_bytes() for p in before} == before


def test_a_checkpoint_that_a_training_removes_meanwhile_is_scored(copy, monkeypatch):
    path = copy / "checkpoints" / "step-00000008"
    origin = checkpoint_folders.read_origin(path)
    score_all = scoring.score_all

    def score_and_remove(setup):
        shutil.rmtree(path)
        return score_all(setup)

    monkeypatch.setattr(scoring, "score_all", score_and_remove)
    _run("--mode=evaluate", f"--model_dir={copy}", "--nokeep_golden")
    (line,) = _lines(copy)
    assert (line["step"], line["checkpoint"]) == (8, path.name)
    assert line["weights"] == origin.weights


def test_the_best_and_the_worst_are_kept_with_the_scores(copy, capsys):
    _run("--mode=evaluate", f"--model_dir={copy}", "--metrics=calibration,image_iou")
    (line,) = _lines(copy)
    # Of five examples, one of each kind.
    kinds = {example["kind"]: example for example in line["examples"]}
    assert list(kinds) == ["best", "typical", "worst"]
    assert len({example["name"] for example in kinds.values()}) == 3
    scores = [kinds[kind]["mean_iou"] for kind in ("worst", "typical", "best")]
    assert scores == sorted(scores) and scores[0] < scores[2]
    assert sum(line["images_by_mean_iou"]) == 5
    low, high = (min(int(s * 20), 19) for s in (scores[0], scores[2]))
    assert line["images_by_mean_iou"][low] and line["images_by_mean_iou"][high]
    assert scores[0] <= line["scores"]["image_mean_iou"] <= scores[2]
    for example in kinds.values():
        strip = tf.io.decode_png((copy / example["picture"]).read_bytes())
        assert strip.shape == (45, 4 * 70 + 3 * 6, 3)
        assert pathlib.Path(example["name"]).suffix == ".png"
    assert sum(number for number, _, _ in line["calibration"]) == 5 * 45 * 70

    _run("--mode=report", f"--model_dir={copy}")
    page = (copy / "report.html").read_text("utf-8")
    assert all(f"<b>{score:.4f}</b>" in page for score in scores)


def test_other_groups_of_classes_keep_pictures_of_their_own(copy, capsys):
    change_settings(copy, gradient_accumulation_steps=3)  # Of training alone.
    for merged in ("a=road+car", "b=bg+road"):
        _run("--mode=evaluate", f"--model_dir={copy}", f"--merge_classes={merged}")
    found = [line["examples"][0]["picture"] for line in _lines(copy)]
    assert len(set(found)) == 2 and all((copy / path).exists() for path in found)


def test_private_photos_are_not_kept(copy, capsys):
    _run("--mode=evaluate", f"--model_dir={copy}", "--nokeep_golden")
    (line,) = _lines(copy)
    assert line["picture"] is None and line["examples"] == []
    assert not (copy / "evaluations").exists()
    assert "Photos" not in capsys.readouterr().out


def test_each_term_and_metric_has_a_curve_of_its_own(trained):
    tags = {
        split: {t for s, t, _ in processes.read_events(trained) if s == split}
        for split in ("train", "eval")
    }
    for split in ("train", "eval"):
        assert {"loss", "loss/ce", "loss/dice", "mean_iou"} <= tags[split]
    assert {"mean_boundary_iou", "boundary_iou/car", "confusion"} <= tags["eval"]
    for line in (trained / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        expected = point["loss/ce"] + 0.5 * point["loss/dice"] + point["loss/focal"]
        assert point["loss"] == pytest.approx(expected, rel=1e-6)


def test_options_reach_the_losses_of_training_and_evaluation(trained):
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    assert {point["split"] for point in points} == {"train", "eval"}
    for point in points:
        # (1 - p)^20 leaves almost nothing; the default of 2 would leave 0.4 of it.
        assert 0 < point["loss/focal"] < 0.01 * point["loss/ce"]


def test_the_saved_flagfile_does_not_turn_an_evaluation_into_a_training(trained):
    saved = (trained / "config.flags").read_text()
    assert "--mode" not in saved and "--model_dir" not in saved
    typed = ["--mode=evaluate", f"--model_dir={trained}"]
    flagfile = f"--flagfile={trained / 'config.flags'}"
    for line in ([*typed, flagfile], [flagfile, *typed]):
        assert flags.read_config(line).config.run.mode == "evaluate"


def test_classes_in_another_order_are_found_by_their_names(copy, tmp_path):
    _write_colors(tmp_path / "b.csv", ["road", "car", "bg"])
    _run("--mode=evaluate", f"--model_dir={copy}")
    _run(
        "--mode=evaluate", f"--model_dir={copy}", f"--label_colors={tmp_path / 'b.csv'}"
    )
    first, second = _lines(copy)
    assert _scores(first) == _scores(second)
    assert first["picture"] != second["picture"]  # The labels are made otherwise.


def test_other_classes_are_refused_with_both_lists(copy, tmp_path):
    (tmp_path / "c.csv").write_text("bg,0,0,0\nstreet,255,0,0\ncar,0,255,0\n")
    message = "classes bg, street, car, and the model was trained with bg, road, car"
    with pytest.raises(schema.DataError, match=message):
        _run(
            "--mode=evaluate",
            f"--model_dir={copy}",
            f"--label_colors={tmp_path / 'c.csv'}",
        )


def test_other_data_is_scored_without_a_split_to_train_on(copy, tmp_path):
    _draw_folder(tmp_path / "other", {"test": 3}, names=("bg", "road", "car"))
    _write_colors(tmp_path / "a.csv", ["bg", "road", "car"])
    _run(
        "--mode=evaluate",
        f"--model_dir={copy}",
        "--dataset=folder",
        f"--data_dir={tmp_path / 'other'}",
        f"--label_colors={tmp_path / 'a.csv'}",
        "--eval_native_size",
        "--virtual_devices=2",
        "--batch_size=2",
    )
    (line,) = _lines(copy)
    assert (line["split"], line["num_examples"]) == ("other/test", 3)
    assert line["picture"].endswith("-native.png")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("{run}", "this is the folder of a run, which --model_dir names"),
        ("/nowhere", "there is no such folder; say last, best, or one of step-"),
        ("{run}/checkpoints", "this folder is no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_said(trained, which, message):
    which = which.format(run=trained)
    with pytest.raises(
        errors.CheckpointError, match=f"--checkpoint={which}: {message}"
    ):
        checkpoint_folders.find(str(trained), which)


@pytest.mark.parametrize("which", ["step-00000008", "{run}/checkpoints/step-00000008"])
def test_a_checkpoint_goes_by_its_name_or_path(trained, which):
    (path,) = checkpoint_folders.find(str(trained), which.format(run=trained))
    assert path.name == "step-00000008"


def test_a_folder_that_is_no_run_is_said(tmp_path):
    with pytest.raises(errors.CheckpointError, match="is not the folder of a run"):
        flags.read_config(["--mode=evaluate", f"--model_dir={tmp_path}"])


def test_settings_of_a_run_before_there_was_a_format_are_read(copy):
    settings = json.loads((copy / "config.json").read_text())
    del settings["format_version"]
    old = {**settings, "mode": "train", "model_dir": "/gone", "momentum": 0.9}
    del old["resize"]
    (copy / "config.json").write_text(json.dumps(old))
    config, remarks = flags.read_config(["--mode=evaluate", f"--model_dir={copy}"])
    assert (config.run.model_dir, config.data.resize) == (str(copy), "stretch")
    assert (config.model.encoder_alpha, remarks) == (0.35, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "has the format version 99, and this segloop knows"),
        ({"batch_size": "many"}, 'batch_size is "many", which is no value of --batch'),
        ({"image_size": [True]}, "image_size is .true., which is no value of --image"),
    ],
)
def test_settings_that_cannot_be_read_are_said(copy, change, message):
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, **change}))
    with pytest.raises(errors.CheckpointError, match=message):
        flags.read_config(["--mode=evaluate", f"--model_dir={copy}"])


def test_a_setting_that_came_later_does_not_orphan_a_run(trained):
    path, *_ = checkpoint_folders.find(str(trained), "last")
    metadata = checkpoint_folders.read_metadata(path)
    identity = dict(metadata.identity)
    del identity["resize"]
    checkpointer = checkpointing.Checkpointer(
        str(trained),
        state={"global_step": tf.Variable(0, dtype=tf.int64)},
        identity=metadata.identity,
        legacy={"resize": "stretch"},
        max_to_keep=1,
    )
    metadata.identity = identity
    checkpointer._check_identity(metadata)
    checkpointer._legacy = {"resize": "pad"}
    with pytest.raises(errors.CheckpointError, match="--resize was pad and is stret"):
        checkpointer._check_identity(metadata)


def test_help_needs_no_folder(capsys):
    assert main.main(["--help"]) == 0
    assert "--checkpoint:" in capsys.readouterr().out


def _read_split(run, image_size):
    """Returns the evaluation split, images and labels, at a size; None: its own."""
    names = tuple(_COLORS)
    preprocessor = preprocessing.Preprocessor(
        image_size, 3, label_colors=tuple((_COLORS[n], i) for i, n in enumerate(names))
    )
    source = folder.FolderSource(str(run.parent / "data"), "val", is_training=False)
    examples = list(source.examples().map(preprocessor).as_numpy_iterator())
    return (np.stack([e[key] for e in examples]) for key in ("image", "label"))


@pytest.mark.parametrize("is_native", [False, True])
def test_a_loaded_run_predicts_what_evaluation_scores(
    trained, copy, monkeypatch, is_native
):
    _run("--mode=evaluate", f"--model_dir={copy}", f"--eval_native_size={is_native}")
    images, labels = _read_split(trained, None if is_native else (45, 70))
    for module in (registry, weights):  # Neither data nor weights are looked for.
        for name in ("open_source", "read_into", "load_file"):
            monkeypatch.delattr(module, name, raising=False)

    loaded = load_run(str(copy))
    predicted = loaded.predict(images)

    assert predicted.dtype == np.uint8 and predicted.shape == labels.shape
    accuracy = _lines(copy)[-1]["scores"]["pixel_accuracy"]
    np.testing.assert_allclose((predicted == labels).mean(), accuracy, atol=1e-4)
    assert loaded.class_names == ("bg", "road", "car")
    assert loaded.palette == tuple(_COLORS.values())
    assert loaded.checkpoint.name == "step-00000008"
    assert not loaded.uses_averages


def test_a_mean_over_variants_is_evaluated_predicted_and_noted(trained, copy):
    _run("--mode=evaluate", f"--model_dir={copy}", "--tta=flip,1.25")
    _run("--mode=evaluate", f"--model_dir={copy}")
    images, labels = _read_split(trained, (45, 70))

    loaded = load_run(str(copy))
    predicted = loaded.predict(images, tta=("flip", "1.25"))
    shares = loaded.predict(images, tta=("flip",), probabilities=True)

    line, plain = _lines(copy)
    assert (line["tta"], plain["tta"]) == (["flip", "1.25"], [])
    assert line["picture"].endswith("-tta-flip-1.25.png")
    assert not plain["picture"].endswith("-tta-flip-1.25.png")
    assert abs(line["scores"]["loss"] - plain["scores"]["loss"]) > 1e-3
    accuracy = line["scores"]["pixel_accuracy"]
    np.testing.assert_allclose((predicted == labels).mean(), accuracy, atol=1e-3)
    assert (predicted != loaded.predict(images)).any()
    mirrored = loaded.predict(images[:, :, ::-1], probabilities=True)[:, :, ::-1]
    expected = (loaded.predict(images, probabilities=True) + mirrored) / 2
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    with pytest.raises(ValueError, match="^tta=flip,5: '5' is neither flip nor a scal"):
        loaded.predict(images, tta=("flip", "5"))


def test_merged_classes_are_scored_and_noted(trained, copy, capsys):
    point = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    _run("--mode=evaluate", f"--model_dir={copy}", "--merge_classes=front=road+car")
    (line,) = _lines(copy)
    assert line["merge_classes"] == ["front=road+car"]
    assert line["class_names"] == ["bg", "front"] and len(line["confusion"]) == 2
    assert "IoU front" in capsys.readouterr().out
    assert line["scores"]["loss"] == pytest.approx(point["loss"], rel=1e-5)
    # Pixels of a front class that were taken for the other one are right now.
    assert line["scores"]["pixel_accuracy"] > point["pixel_accuracy"]


def test_a_merged_class_that_is_none_is_refused_before_data_is_read(copy):
    message = "^--merge_classes=a=road.sky: 'sky' is no class of the model; there are"
    with pytest.raises(errors.ConfigError, match=f"{message} bg, road, car.$"):
        _run(
            "--mode=evaluate",
            f"--model_dir={copy}",
            "--data_dir=/nowhere",
            "--merge_classes=a=road+sky",
        )


def test_images_of_any_size_are_predicted_at_their_own(copy):
    loaded = load_run(copy)
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (h, 37, 3), np.uint8) for h in (20, 50, 99)]

    labels = loaded.predict(images)
    shares = loaded.predict(images, probabilities=True)

    assert [x.shape for x in labels] == [(20, 37), (50, 37), (99, 37)]
    for label, share, image in zip(labels, shares, images, strict=True):
        np.testing.assert_allclose(share.sum(axis=-1), 1, atol=1e-5)
        np.testing.assert_array_equal(share.argmax(axis=-1), label)
        np.testing.assert_array_equal(loaded.predict(image), label)


def test_loading_a_run_leaves_keras_as_it_was(copy):
    keras.config.set_dtype_policy("mixed_bfloat16")
    before = random_lib.getstate()

    loaded = load_run(copy)

    assert loaded.model.dtype_policy.name == "float32"
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert random_lib.getstate() == before


def test_a_run_without_a_description_of_its_data_loads(copy):
    (copy / "dataset.json").unlink()
    loaded = load_run(copy)
    assert loaded.class_names == ("bg", "road", "car")
    assert loaded.palette == schema.voc_palette(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "has the format version 9, and this segloop knows 1;"),
        ({"class_names": ["a", "b", "c"]}, "names the classes a, b, c, the checkpoi"),
        ({"palette": [[1, 2]]}, "cannot be read .* write it anew by starting"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(copy, change, message):
    path = copy / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(errors.CheckpointError, match=f"dataset.json {message}"):
        load_run(copy)


def test_what_is_no_run_is_not_loaded(copy, tmp_path):
    with pytest.raises(errors.CheckpointError, match="is not the folder of a run"):
        load_run(tmp_path)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(errors.CheckpointError, match="holds no checkpoint"):
        load_run(copy)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.zeros([4, 4, 3]), r"float64 \[4, 4, 3\]"),
        (np.zeros([4, 4, 4], np.uint8), r"uint8 \[4, 4, 4\]"),
        ("photo.jpg", "str"),
    ],
)
def test_what_is_no_image_is_refused(copy, image, kind):
    with pytest.raises(ValueError, match=rf"uint8 \[height, width, 3\], not {kind}$"):
        load_run(copy).predict([image])


def test_a_loaded_run_is_traced_once_for_batches_of_all_sizes(copy):
    num_traces = 0

    def model(images, training):
        nonlocal num_traces
        num_traces += 1
        return tf.zeros([tf.shape(images)[0], 45, 70, 3])

    loaded = dataclasses.replace(load_run(copy), model=model)
    for count in (1, 2, 9):  # Nine are a batch of eight, and one of one.
        photos = np.zeros([count, 20, 30, 3], np.uint8)
        assert loaded.predict(photos).shape == (count, 20, 30)
    assert num_traces == 1


def test_a_photo_without_channels_is_no_row_of_photos(copy):
    with pytest.raises(ValueError, match=r", not uint8 \[4, 5\]$"):
        load_run(copy).predict(np.zeros([4, 5], np.uint8))


def test_a_model_of_cropped_images_takes_its_own_size_only(copy):
    loaded = dataclasses.replace(load_run(copy), resize="crop")
    assert loaded.predict(np.zeros([45, 70, 3], np.uint8)).shape == (45, 70)
    with pytest.raises(ValueError, match="has 44x70 pixels.* --resize=crop at 45x70"):
        loaded.predict(np.zeros([44, 70, 3], np.uint8))
