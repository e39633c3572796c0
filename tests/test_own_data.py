"""A data set like none that the package knows, trained through flags alone.

Streets of flat shapes: twelve classes, of very different frequency, in RGB masks with
void along the outlines, and images wider than high, of many sizes.
"""

import importlib
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests import shallow
from trainer import flags
from trainer.settings import modes

_CLASSES = {
    # name: colour in the masks, colour in the photos
    "sky": ((70, 130, 180), (170, 205, 235)),
    "building": ((70, 70, 70), (150, 110, 95)),
    "road": ((128, 64, 128), (85, 85, 90)),
    "pavement": ((244, 35, 232), (185, 180, 170)),
    "tree": ((107, 142, 35), (50, 110, 45)),
    "pole": ((153, 153, 153), (30, 30, 30)),
    "sign": ((220, 220, 0), (240, 200, 30)),
    "fence": ((190, 153, 153), (215, 150, 190)),
    "car": ((0, 0, 142), (190, 30, 35)),
    "bus": ((0, 60, 100), (245, 130, 40)),
    "person": ((220, 20, 60), (40, 60, 200)),
    "cyclist": ((119, 11, 32), (60, 200, 200)),
}
_VOID = (0, 0, 0)


def _draw_street(random):
    """Returns a photo and its mask, Pillow images of one random size."""
    height, width = (int(n) for n in random.integers((100, 170), (130, 230)))
    mask = Image.new("RGB", (width, height), _CLASSES["sky"][0])
    draw = ImageDraw.Draw(mask)

    def add(name, box, shape="rectangle"):
        getattr(draw, shape)(box, fill=_CLASSES[name][0], outline=_VOID)

    horizon = int(height * random.uniform(0.4, 0.6))
    curb = horizon + int(height * random.uniform(0.1, 0.2))
    for left in range(0, width, 45):
        top = int(random.uniform(0.1, 0.8) * horizon)
        name = random.choice(["building", "building", "tree", "fence"])
        add(name, (left, top, left + int(random.uniform(25, 45)), horizon))
    add("pavement", (0, horizon, width, curb))
    add("road", (0, curb, width, height))
    for name, size, bottom in (
        ("car", (34, 18), (curb, height)),
        ("bus", (48, 30), (curb, height)),
        ("person", (9, 24), (horizon + 5, height)),
        ("cyclist", (14, 24), (curb, height)),
        ("pole", (6, 50), (horizon, curb)),
        ("sign", (14, 14), (30, horizon)),
    ):
        for _ in range(random.integers(1, 3)):
            x, y = int(random.uniform(0, width - 10)), int(random.uniform(*bottom))
            shape = "ellipse" if name in ("sign", "cyclist") else "rectangle"
            add(name, (x, y - size[1], x + size[0], y), shape)
    pixels = np.asarray(mask)
    photo = np.full(pixels.shape, 128.0)
    for color, shown in _CLASSES.values():
        photo[(pixels == color).all(axis=-1)] = shown
    light = random.uniform(0.75, 1.15)
    photo = photo * light + random.normal(0, 12, photo.shape)
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8)), mask


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Writes the data set and its list of colours; returns their folder."""
    root = tmp_path_factory.mktemp("streets")
    random = np.random.default_rng(12)
    for split, count in (("train", 48), ("val", 16)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            photo, mask = _draw_street(random)
            photo.save(root / split / "images" / f"{index:02}.jpg", quality=92)
            mask.save(root / split / "masks" / f"{index:02}.png")
    rows = [(name, *colors[0]) for name, colors in _CLASSES.items()]
    lines = [",".join(map(str, row)) for row in [*rows, ("void", *_VOID)]]
    (root / "colors.csv").write_text("\n".join(lines) + "\n")
    return root


def test_twelve_colored_classes_in_wide_images_are_learnt_through_flags(
    streets, tmp_path, monkeypatch
):
    shallow.shorten(monkeypatch)
    config, _ = flags.read_config(
        [
            f"--model_dir={tmp_path}",
            "--dataset=folder",
            f"--data_dir={streets}",
            f"--label_colors={streets / 'colors.csv'}",
            "--image_size=64,96",
            "--resize=pad",
            "--eval_native_size",
            "--class_weights=inverse_sqrt",
            "--encoder_alpha=0.35",
            "--encoder_weights=none",
            "--nofreeze_encoder",
            "--encoder_bn_momentum=0.9",
            "--decoder_filters=64,48,32,24",
            "--batch_size=8",
            "--learning_rate=3e-3",
            "--lr_schedule=cosine",
            "--train_steps=150",
            "--epochs_between_evals=100",
            "--log_steps=50",
        ]
    )
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    point = [point for point in map(json.loads, lines) if point["split"] == "eval"][-1]
    assert {name for name in _CLASSES if f"iou/{name}" in point} == set(_CLASSES)
    assert point["mean_iou"] > 0.9, point
