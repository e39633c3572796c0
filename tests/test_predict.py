"""`--mode=predict`: from photos to masks, by the folder of a run alone."""

import csv
import errno
import importlib
import json
import os
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.files import images
from data.preparing import preprocessing, resizing
from tests import shallow, test_evaluate
from tests.benchmarks import predicting
from tests.faults import processes
from trainer import errors, flags, load_run
from trainer.assembly import trained_model
from trainer.modes import predict
from trainer.predicting import outputs, photos, predictor, reading, summary, tiles
from trainer.settings import config as config_lib
from trainer.settings import modes

_CLASSES = ("bg", "road", "car")


@pytest.fixture(scope="module", autouse=True)
def _short_encoder():
    with pytest.MonkeyPatch.context() as patch:
        shallow.shorten(patch)
        yield


def _run(*arguments):
    config, _ = flags.read_config(arguments)
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory):
    """Returns a folder with data of 32x32 pixels, and a short run at that size."""
    root = tmp_path_factory.mktemp("predict")
    test_evaluate._draw_folder(root / "data", {"train": 8, "val": 5})
    test_evaluate._write_colors(root / "colors.csv", _CLASSES)
    shallow.write_weights(root / "encoder.weights.h5")
    _run(
        f"--model_dir={root / 'run'}",
        "--dataset=folder",
        f"--data_dir={root / 'data'}",
        f"--label_colors={root / 'colors.csv'}",
        "--image_size=32",
        "--encoder_alpha=0.35",
        f"--encoder_weights={root / 'encoder.weights.h5'}",
        "--decoder_filters=16,8,8,8",
        "--batch_size=4",
        "--learning_rate=0.01",
        "--train_epochs=4",
        "--ema_decay=0.5",
        "--num_gpus=0",
    )
    return root


def _predict(root, output, *arguments, source="data/val/images"):
    _run(
        "--mode=predict",
        f"--model_dir={root / 'run'}",
        f"--input={root / source}",
        f"--output={output}",
        *arguments,
    )


def _labels(path):
    return np.asarray(Image.open(path))


def test_masks_of_photos_of_the_models_size_are_those_that_evaluation_scores(
    root, tmp_path
):
    _predict(root, tmp_path / "out")
    _run("--mode=evaluate", f"--model_dir={root / 'run'}")
    line = (root / "run/evaluations.jsonl").read_text().splitlines()[-1]
    colors = np.array([test_evaluate._COLORS[name] for name in _CLASSES])
    counts = np.zeros((3, 3), int)
    for path in sorted((root / "data/val/masks").iterdir()):
        mask = np.asarray(Image.open(path).convert("RGB"))
        truth = (mask[..., None, :] == colors).all(-1).argmax(-1)
        predicted = _labels(tmp_path / "out/labels" / path.name)
        assert Image.open(tmp_path / "out/labels" / path.name).mode == "P"
        np.add.at(counts, (truth, predicted), 1)
    scores = json.loads(line)["scores"]
    assert counts.trace() / counts.sum() == pytest.approx(scores["pixel_accuracy"])
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert (counts.diagonal() / union)[1] == pytest.approx(scores["iou/road"])


def test_photos_of_any_size_are_predicted_as_by_the_library(root, tmp_path):
    random = np.random.default_rng(1)
    (tmp_path / "in/deep").mkdir(parents=True)
    sizes = {"a": (40, 71), "deep/b": (17, 23), "c": (32, 32)}
    for name, size in sizes.items():
        pixels = random.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"in/{name}.png")

    words = "--save=labels,confidence,probabilities,npz,overlay"
    _predict(root, tmp_path / "out", words, source=tmp_path / "in")

    trained = load_run(root / "run")
    rows = list(csv.DictReader((tmp_path / "out/summary.csv").open()))
    assert [row["photo"] for row in rows[::3]] == ["a", "c", "deep/b"]
    for name, size in sizes.items():
        photo = np.asarray(Image.open(tmp_path / f"in/{name}.png"))
        expected = trained.predict(photo, probabilities=True)
        labels = _labels(tmp_path / f"out/labels/{name}.png")
        np.testing.assert_array_equal(labels, trained.predict(photo))
        stored = np.load(tmp_path / f"out/npz/{name}.npz")
        assert tuple(stored["class_names"]) == _CLASSES
        np.testing.assert_allclose(
            stored["probabilities"] / 65535, expected.transpose(2, 0, 1), atol=1e-5
        )
        for index in range(3):
            plane = _labels(tmp_path / f"out/probabilities/{name}.{index}.png")
            np.testing.assert_array_equal(plane, stored["probabilities"][index])
        confidence = _labels(tmp_path / f"out/confidence/{name}.png")
        np.testing.assert_allclose(confidence, expected.max(-1) * 255, atol=0.51)
        overlay = np.asarray(Image.open(tmp_path / f"out/overlay/{name}.jpg"))
        assert overlay.shape[1] == size[1] and overlay.shape[0] > size[0]
        for index, row in enumerate(r for r in rows if r["photo"] == name):
            is_class = labels == index
            assert row["class"] == _CLASSES[index]
            assert int(row["pixels"]) == is_class.sum()
            assert float(row["share"]) == pytest.approx(is_class.mean(), abs=1e-6)
            if is_class.any():
                mean = expected.max(-1)[is_class].mean()
                assert float(row["mean_confidence"]) == pytest.approx(mean, abs=1e-5)


def test_the_palette_shows_the_classes(root, tmp_path):
    _predict(root, tmp_path / "out")
    picture = Image.open(tmp_path / "out/labels/0.png")
    shown = np.asarray(picture.convert("RGB"))
    palette = np.array(load_run(root / "run").palette)
    np.testing.assert_array_equal(shown, palette[np.asarray(picture)])


def test_a_second_run_does_what_is_missing(root, tmp_path, capsys):
    out = tmp_path / "out"
    _predict(root, out)
    assert capsys.readouterr().out.startswith("5 photos by step-")
    before = (out / "labels/1.png").stat().st_mtime_ns
    (out / "labels/3.png").unlink()
    lines = (out / "summary.csv").read_text().splitlines(keepends=True)
    # Killed in the midst of a line.
    (out / "summary.csv").write_text("".join(lines[:-1]) + "4,car")

    _predict(root, out)

    assert capsys.readouterr().out.startswith("2 photos by step-")
    assert (out / "labels/1.png").stat().st_mtime_ns == before
    assert sorted((out / "summary.csv").read_text().splitlines()) == sorted(
        "".join(lines).splitlines()
    )
    _predict(root, out, "--save=labels,confidence")
    assert capsys.readouterr().out.startswith("5 photos by step-")
    _predict(root, out, "--overwrite")
    assert (out / "labels/1.png").stat().st_mtime_ns > before
    assert len((out / "summary.csv").read_text().splitlines()) == 16


def test_masks_of_two_kinds_do_not_lie_in_one_folder(root, tmp_path):
    out, source = tmp_path / "out", tmp_path / "in"
    shutil.copytree(root / "data/val/images", source)
    _predict(root, out, source=source)
    message = r"made with tta none \(now flip\); give another folder, or --overwrite"
    with pytest.raises(errors.ConfigError, match=message):
        _predict(root, out, "--tta=flip", source=source)
    message = r"made with precision float32 \(now mixed_bfloat16\)"
    with pytest.raises(errors.ConfigError, match=message):
        _predict(root, out, "--mixed_precision=bfloat16", source=source)
    (source / "3.png").write_bytes(b"")
    with pytest.raises(schema.DataError, match="1 of 5 photos"):
        _predict(root, out, "--tta=flip", "--overwrite", source=source)
    record = json.loads((out / "prediction.json").read_text())
    assert record["tta"] == ["flip"] and record["class_names"] == list(_CLASSES)
    # The mask of the photo that cannot be read any more was made without it.
    assert sorted(path.stem for path in (out / "labels").iterdir()) == list("0124")


def _prepare(out, *arguments, save=("labels",), names=("a",)):
    """Does what comes before the first photo, without a model."""
    trained = types.SimpleNamespace(
        checkpoint=out,
        weights="f00",
        image_size=(32, 32),
        class_names=["one"],
        palette=[(0, 0, 0)],
    )
    typed = {"mode": "predict", "model_dir": "a", "output": str(out)}
    config = config_lib.from_dict({**typed, **flags.parse(arguments).typed})
    output = outputs.Output(str(out), save, ["one"], [(0, 0, 0)])
    found = [photos.Photo(f"{name}.jpg", name) for name in names]
    return predict._prepare(config, trained, output, found)


def test_masks_of_another_kind_are_not_left_beside_those_that_overwrite(tmp_path):
    """Whatever of them is not replaced, as it is of another photo, kind or class."""
    labels = [tmp_path / f"labels/{name}.png" for name in "ab"]
    confidence = tmp_path / "confidence/a.png"
    classes = [tmp_path / f"probabilities/a.{index}.png" for index in (0, 1)]
    _prepare(tmp_path)
    for path in [*labels, confidence, *classes]:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    change = ("--tta=flip", "--overwrite")
    for names, save, rest in (
        ("a", ["labels", "confidence", "probabilities"], [labels[1], classes[1]]),
        ("ab", ["labels", "probabilities"], [confidence, classes[1]]),
    ):
        listed = ", ".join(str(path.relative_to(tmp_path)) for path in rest)
        message = f"--output={tmp_path}: --overwrite would leave {listed}, made with "
        message += "tta none (now flip); let --input and --save cover them, remove "
        with pytest.raises(errors.ConfigError, match=re.escape(message)):
            _prepare(tmp_path, *change, names=names, save=save)
    assert json.loads((tmp_path / "prediction.json").read_text())["tta"] == []
    # The same kind may be made again of some photos.
    _prepare(tmp_path, "--overwrite")
    assert all(path.exists() for path in labels)
    classes[1].unlink()
    save = ["labels", "confidence", "probabilities"]
    _prepare(tmp_path, *change, names="ab", save=save)
    assert json.loads((tmp_path / "prediction.json").read_text())["tta"] == ["flip"]


@pytest.mark.parametrize("name", ["labels/a.png", "summary.csv"])
def test_what_no_prediction_wrote_is_not_overwritten(tmp_path, name):
    """Next to the photos of a data set, `labels` may hold masks that people drew."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("drawn")
    message = f"--output={tmp_path}: {path} would be overwritten, and no prediction "
    with pytest.raises(errors.ConfigError, match=re.escape(message)):
        _prepare(tmp_path)
    assert path.read_text() == "drawn"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        path.relative_to(tmp_path).parts[0]
    ]
    message = f"would leave {name}, made with what no prediction.json tells"
    if name.startswith("labels"):
        with pytest.raises(errors.ConfigError, match=message):
            _prepare(tmp_path, "--overwrite", names="b")
    assert len(_prepare(tmp_path, "--overwrite")) == 1
    # From then on, what is there was predicted; also where a table alone was begun,
    # of which not even the first line may be there.
    assert len(_prepare(tmp_path)) == 1
    for content in ((tmp_path / "summary.csv").read_text(), ""):
        (tmp_path / "prediction.json").unlink()
        (tmp_path / "labels" / "a.png").unlink(missing_ok=True)
        (tmp_path / "summary.csv").write_text(content)
        assert len(_prepare(tmp_path)) == 1


def _save_bad(folder, name):
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    if name == "empty":
        (folder / "empty.png").write_bytes(b"")
    elif name == "damaged":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / "damaged.png")
        content = (folder / "damaged.png").read_bytes()
        (folder / "damaged.png").write_bytes(content[: len(content) // 2])
    elif name == "moving":
        other = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
        image.save(folder / "moving.gif", save_all=True, append_images=[other])
    else:
        Image.new("RGB", (200, 300)).save(folder / "large.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "empty.png: it is no JPEG, .* file, or its header is damaged"),
        ("damaged", "damaged.png: it cannot be decoded"),
        ("moving", "moving.gif: it is an animation of 2 pictures"),
        ("large", "large.png: its header announces 300x200 pixels, more than the 0.05"),
    ],
)
def test_what_cannot_be_read_is_named_and_the_rest_done(root, tmp_path, name, reason):
    source = tmp_path / "in"
    shutil.copytree(root / "data/val/images", source)
    _save_bad(source, name)
    with pytest.raises(schema.DataError, match="1 of 6 photos could not") as caught:
        _predict(root, tmp_path / "out", "--max_megapixels=0.05", source=source)
    assert caught.match(reason)
    assert len(list((tmp_path / "out/labels").iterdir())) == 5


def test_an_animation_that_is_cut_short_is_a_damaged_file(tmp_path):
    _save_bad(tmp_path, "moving")
    path = tmp_path / "moving.gif"
    content, kinds = path.read_bytes(), set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            reading.read(photos.Photo(str(path), "moving"), 10_000)
        except schema.DataError as error:
            kinds.add(error.kind)
    assert kinds == {"no_image_file", "damaged_file", "animated"}


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "I;16"])
def test_photos_of_other_channels_become_the_models(root, tmp_path, mode):
    (tmp_path / "in").mkdir()
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 30), 40000, np.uint16))
    else:
        image = Image.new(mode, (30, 20), 100 if mode == "L" else None)
    image.save(tmp_path / ("in/a.jpg" if mode == "CMYK" else "in/a.png"))
    _predict(root, tmp_path / "out", source=tmp_path / "in")
    assert _labels(tmp_path / "out/labels/a.png").shape == (20, 30)


def test_dark_photos_of_16_bits_are_predicted_with_a_warning(root, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    for name, value in (("a", 3000), ("b", 40000), ("c", 16383)):
        image = Image.fromarray(np.full((20, 30), value, np.uint16))
        image.save(tmp_path / f"in/{name}.png")
    with caplog.at_level("WARNING", "absl"):
        _predict(root, tmp_path / "out", source=tmp_path / "in")

    (message,) = [m for m in caplog.messages if "16 bits" in m]
    assert message.startswith(
        f"2 photos of 16 bits ({tmp_path}/in/a.png, ...) use less"
    )
    assert len(list((tmp_path / "out/labels").iterdir())) == 3


_DEEP = schema.ImageFormat(3, (0, 4095))


@pytest.mark.parametrize(
    ("bits", "greatest", "image_format", "misfit"),
    [
        (8, 3, schema.RGB, ""),
        (16, 63, schema.RGB, "dark"),
        (16, 64, schema.RGB, ""),
        (16, 4095, _DEEP, ""),
        (16, 4096, _DEEP, "beyond"),
        (16, 16383, schema.ImageFormat(3, (0, 65535)), "dark"),
        (16, 16384, schema.ImageFormat(3, (0, 65535)), ""),
    ],
)
def test_values_that_are_not_those_of_the_model(bits, greatest, image_format, misfit):
    header = images.Header("TIFF", "", (2, 3), bits=bits)
    pixels = np.full((2, 3, 3), greatest, image_format.dtype)

    assert reading.find_misfit(header, pixels, image_format) == misfit


def test_beyond_names_the_greatest_value_of_the_model():
    (message,) = reading.describe_misfits({"beyond": ["x.tif"]}, _DEEP)

    assert message.startswith(
        "1 photo of 16 bits (x.tif) holds values beyond 4095, the"
    )


@pytest.mark.parametrize(
    ("pixels", "image_format", "reason"),
    [
        (
            np.zeros((4, 5, 3), np.uint8),
            _DEEP,
            "3 channels of 8 bits, .* 3 of 16 .0 to ",
        ),
        (
            np.zeros((4, 5, 3), np.uint8),
            schema.ImageFormat(5),
            "3 channels of 8 bits, and the model was trained on 5 of 8 .0 to 255.; ",
        ),
    ],
)
def test_photos_that_are_not_those_of_the_model_are_told_as_such(
    tmp_path, pixels, image_format, reason
):
    """And no flag of a training is proposed."""
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = photos.Photo(str(tmp_path / "a.png"), "a")
    encoded = reading.read(photo, 1000)

    with pytest.raises(schema.DataError, match=f"^it has {reason}") as caught:
        reading.decode(encoded, image_format, 1000)
    assert "--" not in str(caught.value)


def test_masks_lie_as_viewers_show_the_photo_or_as_it_is_stored(root, tmp_path):
    (tmp_path / "in").mkdir()
    upright = np.asarray(Image.open(root / "data/val/images/0.png"))[:, :20]
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        # 6: its rows are shown from the right to the left.
        stored = upright if orientation == 1 else np.rot90(upright)
        Image.fromarray(stored).save(tmp_path / f"in/{orientation}.png", exif=exif)
    for flag in ("shown", "stored"):
        out = tmp_path / flag
        _predict(root, out, f"--mask_orientation={flag}", source=tmp_path / "in")
    expected = _labels(tmp_path / "shown/labels/1.png")
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(_labels(tmp_path / "shown/labels/6.png"), expected)
    np.testing.assert_array_equal(
        _labels(tmp_path / "stored/labels/6.png"), np.rot90(expected)
    )


def test_several_devices_predict_the_same(root, tmp_path):
    _predict(root, tmp_path / "one")
    _predict(root, tmp_path / "two", "--virtual_devices=2")
    for index in range(5):
        one, two = (
            _labels(tmp_path / f"{n}/labels/{index}.png") for n in ("one", "two")
        )
        np.testing.assert_array_equal(one, two)


def test_test_time_augmentation_is_that_of_the_library(root, tmp_path):
    _predict(root, tmp_path / "out", "--tta=flip,1.5")
    photo = np.asarray(Image.open(root / "data/val/images/2.png"))
    expected = load_run(root / "run").predict(photo, tta=("flip", "1.5"))
    np.testing.assert_array_equal(_labels(tmp_path / "out/labels/2.png"), expected)


def test_tiles_of_the_models_size_are_the_whole(root, tmp_path):
    _predict(root, tmp_path / "whole")
    _predict(root, tmp_path / "tiles", "--tile_size=32")
    for index in range(5):
        np.testing.assert_array_equal(
            *(_labels(tmp_path / f"{n}/labels/{index}.png") for n in ("whole", "tiles"))
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input=none.png",), "--input=none.png: no file has this path"),
        (("--input={root}/run/checkpoints",), "there is no image file in it"),
        (("--output={root}/data/val/images/m",), "it lies within --input="),
        (("--output=",), "give --output, e.g. --output=masks"),
        (("--input=",), "give --input, e.g. --input=photos"),
        (("--save=mask",), "'mask' is nothing to save; use labels, overlay"),
        (("--save=labels,labels",), "a word is there twice"),
        (("--save=",), "--save=: use labels"),
        (("--tile_size=31",), "use at least 32, or 0"),
        (("--tile_overlap=0.5",), "a meaning only with a tile in --tile_size"),
        (
            ("--distribution_strategy=multi_worker_mirrored",),
            "prediction uses the devices of one host",
        ),
    ],
)
def test_what_cannot_work_is_said(root, tmp_path, arguments, message):
    given = [argument.format(root=root) for argument in arguments]
    with pytest.raises(errors.ConfigError, match=message):
        _predict(root, tmp_path / "out", *given)


def test_a_run_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(errors.CheckpointError):
        _predict(tmp_path, tmp_path / "out", source="in")


def test_two_photos_of_one_name_are_refused(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(errors.ConfigError, match=r"masks of .*a.jpg and .*a.png would"):
        photos.find(str(tmp_path), "/elsewhere")
    found = photos.find(str(tmp_path / "*.jpg"), "/elsewhere")
    assert found == [photos.Photo(str(tmp_path / "a.jpg"), "a")]
    assert photos.find(str(tmp_path / "a.png"), str(tmp_path)) == [
        photos.Photo(str(tmp_path / "a.png"), "a")
    ]


def test_folders_are_searched_but_for_what_is_hidden(tmp_path):
    for name in ("b/c/x.JPG", "b/notes.txt", ".git/y.png", ".z.png", "a.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [photo.name for photo in photos.find(str(tmp_path), "/elsewhere")]
    assert names == ["a", "b/c/x"]


def test_photos_behind_links_are_found_once(tmp_path):
    inside, other = tmp_path / "photos", tmp_path / "disk"
    for path in (inside / "c.png", other / "a.png"):
        path.parent.mkdir()
        path.touch()
    (inside / "2024").symlink_to(other)
    (other / "back").symlink_to(inside)
    found = photos.find(str(inside), "/elsewhere")
    assert found == [
        photos.Photo(str(inside / "2024/a.png"), "2024/a"),
        photos.Photo(str(inside / "c.png"), "c"),
    ]
    with pytest.raises(errors.ConfigError, match="would take masks for photos"):
        photos.find(str(inside), str(other))


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "x.png").touch()
    scandir = os.scandir

    def refuse(path):  # As permissions would: they mean nothing to root.
        if pathlib.Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    message = rf"The folder {tmp_path}/locked cannot be read \(Permission denied\)"
    with pytest.raises(schema.DataError, match=message):
        photos.find(str(tmp_path), "/elsewhere")


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "expected"),
    [
        (10, 10, 0.5, [0]),
        (11, 10, 0.0, [0, 1]),
        (20, 10, 0.0, [0, 10]),
        (20, 10, 0.5, [0, 5, 10]),
        (21, 10, 0.5, [0, 4, 7, 11]),
    ],
)
def test_tiles_cover_a_line_evenly(length, tile, overlap, expected):
    assert tiles.places(length, tile, overlap) == expected


def _blur(images):
    """Predicts from a pixel and its four neighbours, zeros outside."""
    padded = np.pad(images.astype(np.float32), [(0, 0), (1, 1), (1, 1), (0, 0)])
    mean = (
        padded[:, 1:-1, 1:-1]
        + padded[:, :-2, 1:-1]
        + padded[:, 2:, 1:-1]
        + padded[:, 1:-1, :-2]
        + padded[:, 1:-1, 2:]
    ) / 1280
    return np.concatenate([mean, 1 - mean], axis=-1)


@pytest.mark.parametrize("size", [(40, 60), (8, 70), (50, 9), (16, 16)])
def test_tiles_are_blended_as_their_definition_says(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 1)).astype(np.uint8)
    padded = np.pad(image, [(0, max(16 - n, 0)) for n in size] + [(0, 0)])
    sums, shares = np.zeros((*padded.shape[:2], 2)), np.zeros((*padded.shape[:2], 1))
    middle = np.exp(-(((np.arange(16) - 7.5) / 2) ** 2) / 2)
    weight = (middle[:, None] * middle)[..., None]
    for top in tiles.places(padded.shape[0], 16, 0.4):
        for left in tiles.places(padded.shape[1], 16, 0.4):
            part = np.s_[top : top + 16, left : left + 16]
            sums[part] += weight * _blur(padded[None][(0, *part)][None])[0]
            shares[part] += weight
    strips = list(
        tiles.predict_strips(
            image, _blur, tile=16, overlap=0.4, batch_size=3, fill_value=0
        )
    )
    found = np.concatenate(strips)
    expected = (sums / shares)[: size[0], : size[1]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Of a strip there is a tile's height at most.
    assert max(map(len, strips)) <= 16


def test_tiles_are_the_whole_away_from_their_borders():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 1)).astype(np.uint8)
    strips = tiles.predict_strips(
        image, _blur, tile=32, overlap=0.0, batch_size=2, fill_value=0
    )
    found, whole = np.concatenate(list(strips)), _blur(image[None])[0]
    is_inner = np.ones(64, bool)
    is_inner[31:33] = False  # What a pixel sees ends at the tile's edge.
    inner = np.ix_(is_inner, is_inner)
    np.testing.assert_allclose(found[inner], whole[inner], atol=1e-6)
    assert np.abs(found - whole).max() > 0.05


@pytest.mark.parametrize("method", ["stretch", "pad"])
@pytest.mark.parametrize("size", [(50, 90), (90, 20), (8, 11), (16, 24)])
def test_rows_are_those_of_the_whole(method, size):
    scores = tf.random.stateless_normal([16, 24, 3], seed=(0, 1))
    size = tf.constant(size)
    whole = resizing.restore_size(scores, size, method)
    rows = tf.range(3, 7)
    found = resizing.restore_rows(scores, size, method, rows)
    np.testing.assert_allclose(found, whole[3:7], atol=1e-5)


def _fake_model(images, training):
    del training
    images = tf.cast(images, tf.float32) / 1000
    return tf.concat([images, 3 - images], axis=-1)


def _load_fake(image_size):
    """Returns a model of 12 bits, from 100 on, that does not clip by itself."""
    return trained_model.TrainedModel(
        _fake_model,
        ("a", "b"),
        ((0, 0, 0), (1, 1, 1)),
        image_size,
        schema.ImageFormat(1, (100, 4095)),
        "pad",
        pathlib.Path("run"),
        1,
        "weights",
        uses_averages=False,
        build_for_any_size=lambda: _fake_model,
    )


@pytest.mark.parametrize("size", [(24, 32), (37, 50), (10, 7)])
def test_an_image_comes_to_the_size_and_range_that_training_gives_it(size):
    image = np.random.default_rng(0).integers(0, 8000, (*size, 1)).astype(np.uint16)
    trained = _load_fake((24, 32))
    preprocessor = preprocessing.Preprocessor(
        (24, 32), 2, image_format=trained.image_format, resize="pad"
    )
    label = tf.zeros(size, tf.uint8)
    example = {"image": tf.constant(image), "label": label, "name": tf.constant("a")}
    resized = trained.resize_image(image).numpy()
    assert resized.max() == 4095
    np.testing.assert_array_equal(resized, preprocessor(example)["image"])


def test_of_no_images_there_are_no_classes():
    trained = _load_fake((24, 32))
    none = np.zeros((0, 10, 7, 1), np.uint16)
    labels, shares = (trained.predict(none, probabilities=p) for p in (False, True))
    some = np.zeros((2, 10, 7, 1), np.uint16)
    assert (labels.shape, labels.dtype) == ((0, 10, 7), trained.predict(some).dtype)
    expected = trained.predict(some, probabilities=True)
    assert (shares.shape, shares.dtype) == ((0, *expected.shape[1:]), expected.dtype)
    assert trained.predict([]) == []
    with pytest.raises(
        ValueError, match=r"uint16 \[height, width, 1\], not uint8 \[10"
    ):
        trained.predict(none.astype(np.uint8))


def test_variants_are_those_of_values_within_the_range():
    image = np.random.default_rng(0).integers(0, 8000, (24, 32, 1)).astype(np.uint16)
    trained = _load_fake((24, 32))
    tiled = predictor.Predictor(
        tf.distribute.get_strategy(),
        trained,
        tta=["0.5"],
        rows_per_replica=2,
        tile_size=16,
        tile_overlap=0.0,
    )
    found = []
    for shown in (image, image.clip(100, 4095)):
        canvas = outputs.Canvas((24, 32), 2, ["probabilities"])
        tiled.paint_in_tiles(canvas, shown)
        whole = trained.predict(shown, probabilities=True, tta=["0.5"])
        found.append((whole, canvas.probabilities))
    for value, expected in zip(*found, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_tally_is_that_of_numpy():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (9, 7)).astype(np.uint8)
    confidences = random.random((9, 7), np.float32)
    tally = summary.Tally(4)
    for rows in (slice(0, 4), slice(4, 9)):
        tally.add(labels[rows], confidences[rows])
    for index, row in enumerate(tally.rows("x", "abcd")):
        chosen = confidences[labels == index]
        mean = f"{chosen.mean(dtype=float):.6f}" if len(chosen) else ""
        assert row == [
            "x", "abcd"[index], str(len(chosen)), f"{len(chosen) / 63:.6f}", mean
        ]  # fmt: skip


def test_names_with_commas_and_line_ends_come_back(tmp_path):
    path = tmp_path / "summary.csv"
    table = summary.Summary(path, 1)
    table.start([])
    table.add([['a,"b"\nc', "car", "1", "1.0", ""]])
    assert 'a,"b"\nc' in summary.Summary(path, 1)


def test_names_that_are_not_utf_8_come_back(tmp_path):
    path, name = tmp_path / "summary.csv", os.fsdecode(b"caf\xe9")
    table = summary.Summary(path, 1)
    table.start([])
    table.add([[name, "car", "1", "1.0", ""]])
    table = summary.Summary(path, 1)
    assert name in table
    table.start([name])
    assert name not in summary.Summary(path, 1)


def test_processes_with_photos_of_their_own_share_a_table(tmp_path):
    path = tmp_path / "summary.csv"

    def make_rows(photo):
        return [[photo, name, "1", "0.5", "1"] for name in ("car", "road")]

    first = summary.Summary(path, 2)
    first.start(["a", "b"])
    first.add(make_rows("a"))
    second = summary.Summary(path, 2)
    first.add(make_rows("b"))
    second.start(["c"])
    second.add(make_rows("c"))
    assert [photo in summary.Summary(path, 2) for photo in "abc"] == [True] * 3
    second.start(["c"])
    assert [photo in summary.Summary(path, 2) for photo in "abc"] == [True, True, False]
    second.start(["c"], keeps_others=False)
    assert path.read_text() == "photo,class,pixels,share,mean_confidence\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("photo,class\ncaf\xe9,car\n".encode("cp1252"), "'utf-8' codec can't decode"),
        (b"photo,class\n" + b"x" * 200_000, "field larger than field limit"),
        (None, "Is a directory"),
    ],
)
def test_a_summary_that_cannot_be_read_is_named(tmp_path, content, reason):
    path = tmp_path / "summary.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    message = rf"summary.csv cannot be read \({reason}.* or give another --output"
    with pytest.raises(errors.RunError, match=message):
        summary.Summary(path, 1)


def test_braces_in_a_name_are_no_place_for_a_class(tmp_path):
    output = outputs.Output(str(tmp_path), ["labels"], ["a", "b"], [(0, 0, 0)] * 2)
    photo = photos.Photo("{x}{0}.jpg", "{x}{0}")
    assert output.paths(photo, "labels") == [tmp_path / "labels/{x}{0}.png"]
    assert output.paths(photo, "probabilities") == [
        tmp_path / f"probabilities/{{x}}{{0}}.{index}.png" for index in (0, 1)
    ]


def test_the_overlay_of_a_photo_that_no_jpeg_holds_has_a_part_of_its_pixels(tmp_path):
    output = outputs.Output(str(tmp_path), ["overlay"], ["a"], [(0, 0, 0)])
    canvas = outputs.Canvas((3, 66_000), 1, ["overlay"])
    canvas.labels[:] = 0
    shown = np.full((3, 66_000, 3), 200, np.uint8)
    output.write(photos.Photo("wide.png", "wide"), canvas, shown, 1)
    with Image.open(tmp_path / "overlay/wide.jpg") as picture:
        assert picture.size[0] == 33_000


def test_each_kind_has_an_encoder():
    assert all(hasattr(outputs.Output, f"_encode_{kind}") for kind in outputs._ENDINGS)


def test_the_benchmark_times_prediction_a_plain_loop_and_the_parts(
    root, monkeypatch, capsys
):
    source = f"--input={root / 'data/val/images'}"
    arguments = [f"--model_dir={root / 'run'}", source, "--rounds=1", "--batch_size=2"]
    monkeypatch.setattr("sys.argv", ["predicting", *arguments])
    assert predicting.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [
        "segloop", "plain", "decoding", "scoring", "encoding"
    ]  # fmt: skip
    assert re.fullmatch(r"segloop is [\d.]+x as fast .* takes [\d.]+ of .*", lines[-1])


def test_what_prediction_does_not_use_is_said(root, tmp_path):
    arguments = ["--mode=predict", f"--model_dir={root / 'run'}", "--learning_rate=1"]
    _, remarks = flags.read_config([*arguments, "--cache=disk", "--input=a"])
    assert remarks == ["--mode=predict does not use --cache, --learning_rate."]


def test_what_only_training_uses_does_not_limit_prediction(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    test_evaluate.change_settings(
        tmp_path / "run", crop_size=[32, 32], gradient_accumulation_steps=3
    )
    photos_folder = root / "data/val/images"
    _predict(tmp_path, tmp_path / "out", "--image_size=16", source=photos_folder)
    assert len(list((tmp_path / "out/labels").iterdir())) == 5


def test_what_was_stopped_leaves_whole_files_and_goes_on(root, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    content = (root / "data/val/images/0.png").read_bytes()
    for index in range(500):
        (source / f"{index}.png").write_bytes(content)
    process = processes.start(
        root,
        root / "run",
        "--mode=predict",
        f"--input={source}",
        f"--output={out}",
        program="tests.faults.short_program",
        SECS_PER_FILE="0.1",  # So all of them take a minute.
    )
    processes.wait_for(lambda: list(out.glob("labels/*.png")), process)
    process.terminate()
    assert processes.finish(process) == errors.Stopped.exit_code
    done = list(out.glob("labels/*.png"))
    assert 0 < len(done) < 500
    for path in done:
        assert _labels(path).shape == (32, 32)
    for path in sorted(source.iterdir())[100:]:
        path.unlink()
    _predict(root, out, source=source)
    assert all((out / f"labels/{path.name}").exists() for path in source.iterdir())
