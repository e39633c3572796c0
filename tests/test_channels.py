"""Images of other kinds than RGB of 8 bits teach what only they know, through flags."""

import importlib
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from data import schema
from data.files import image_decoding
from data.stores import statistics
from tests import shallow
from trainer import flags
from trainer.settings import modes

_SIZE = 32

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def _encode(pixels, kind="PNG"):
    file = io.BytesIO()
    if kind == "TIFF":
        tifffile.imwrite(
            file,
            pixels,
            photometric="minisblack",
            planarconfig="contig",
            compression="zlib",
        )
    else:
        Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _noise(random, *channels):
    return random.integers(100, 156, (_SIZE, _SIZE, *channels)).astype(np.uint8)


def _hide_in_gray(random, label):
    return _encode(_noise(random) - 60 * label)


def _hide_in_alpha(random, label):
    alpha = (_noise(random) - 60 * label)[..., np.newaxis]
    return _encode(np.concatenate([_noise(random, 3), alpha], axis=-1))


def _hide_in_low_bits(random, label):
    # 256 * 8 + 60 or 180 of 4095: the upper 8 of the 16 bits are 8 everywhere.
    del random
    return _encode((256 * 8 + 60 + 120 * label.astype(np.uint16)).astype(np.uint16))


def _hide_in_band_7(random, label):
    bands = _noise(random, 8)
    bands[..., 7] -= 60 * label
    return _encode(bands, "TIFF")


_KINDS = {
    "gray": (_hide_in_gray, "png", ["--image_channels=1"]),
    "alpha": (_hide_in_alpha, "png", ["--image_channels=4"]),
    "12 bits": (_hide_in_low_bits, "png", ["--image_range=2000,2400"]),
    "8 bands": (_hide_in_band_7, "tif", ["--image_channels=8"]),
}


def _write(root, make, ending):
    random = np.random.default_rng(5)
    for split, count in (("train", 16), ("val", 8)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            blocks = random.integers(0, 2, (2, 2))
            label = np.kron(blocks, np.ones([_SIZE // 2] * 2, int)).astype(np.uint8)
            image = make(random, label)
            (root / split / "images" / f"{index}.{ending}").write_bytes(image)
            (root / split / "masks" / f"{index}.png").write_bytes(_encode(label))


@pytest.fixture(autouse=True)
def _shorten_the_encoder(monkeypatch):
    shallow.shorten(monkeypatch)


def run(root, model_dir, *arguments):
    """Runs a mode with a tiny model."""
    config = flags.read_config(
        [
            f"--model_dir={model_dir}",
            "--dataset=folder",
            f"--data_dir={root}",
            "--num_classes=2",
            f"--image_size={_SIZE}",
            "--encoder_alpha=0.35",
            "--encoder_weights=none",
            "--nofreeze_encoder",
            "--encoder_bn_momentum=0.9",
            "--decoder_filters=16,16,16,16",
            "--batch_size=8",
            "--learning_rate=5e-3",
            "--distribution_strategy=one_device",  # Traced faster.
            "--train_steps=40",
            "--epochs_between_evals=20",
            *arguments,
        ]
    ).config
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)
    return config


def _read_scores(model_dir):
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [p for p in map(json.loads, lines) if p["split"] == "eval"][-1]


@pytest.mark.parametrize("kind", _KINDS)
def test_what_only_such_images_know_is_learnt(kind, tmp_path):
    make, ending, arguments = _KINDS[kind]
    _write(tmp_path / "data", make, ending)

    run(tmp_path / "data", tmp_path / "run", *arguments)

    assert _read_scores(tmp_path / "run")["mean_iou"] > 0.9


def _read_weights(model_dir, step):
    path = model_dir / "checkpoints" / f"step-{step:08}" / "state"
    reader = tf.train.load_checkpoint(str(path))
    names = reader.get_variable_to_shape_map()
    return {
        name: reader.get_tensor(name)
        for name in names
        if "OBJECT_GRAPH" not in name and "save_counter" not in name
    }


def test_what_was_measured_comes_with_the_checkpoint(tmp_path, monkeypatch):
    """For a run that goes on, and for evaluation without the training split."""
    data = tmp_path / "data"
    _write(data, _hide_in_band_7, "tif")
    flags_of_run = ["--image_channels=8", "--deterministic", "--ema_decay=0.5"]
    # Evaluated is the run that goes on.
    run(data, tmp_path / "alone", *flags_of_run, "--train_steps=4", "--mode=train")
    run(data, tmp_path / "run", *flags_of_run, "--train_steps=2", "--mode=train")
    monkeypatch.setattr(statistics, "measure_channels", None)

    run(data, tmp_path / "run", *flags_of_run, "--train_steps=4")

    alone, resumed = (_read_weights(tmp_path / n, 4) for n in ("alone", "run"))
    assert alone.keys() == resumed.keys()
    for name, value in alone.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    (mean,) = (v for n, v in alone.items() if n.endswith("/mean" + _VALUE))
    noise = 127.5  # The middle of 100..155; band 7 is darker.
    np.testing.assert_allclose(mean[:7], noise, atol=1)
    assert 90 < mean[7] < 115
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["image_range"] == [0, 255]
    assert settings["image_normalization"] == "measured"

    shutil.rmtree(data / "train")
    config = flags.read_config(
        ["--mode=evaluate", f"--model_dir={tmp_path / 'run'}"]
    ).config
    importlib.import_module(modes.MODES["evaluate"].module).run(config)
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    expected = _read_scores(tmp_path / "run")
    assert json.loads(lines[-1])["scores"]["loss"] == pytest.approx(expected["loss"])


@pytest.mark.parametrize("make", [_hide_in_alpha, _hide_in_low_bits])
def test_nothing_of_it_is_left_in_rgb_of_8_bits(make):
    """So no network could learn it of three channels of 8 bits."""
    images = [
        image_decoding.decode_image(
            make(np.random.default_rng(0), np.full([_SIZE] * 2, label, np.uint8))
        )
        for label in (0, 1)
    ]

    np.testing.assert_array_equal(*images)


def test_8_bands_are_refused_as_rgb():
    image = _hide_in_band_7(np.random.default_rng(0), np.zeros([_SIZE] * 2, np.uint8))

    with pytest.raises(
        schema.DataError, match="has 8 bands, and --image_channels=3; say --image_chan"
    ):
        image_decoding.decode_image(image)
