"""The lines that convert masks are run, and give the classes that were drawn."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data.files import conversions, file_traits, images
from tests import test_doctor

COLORS = {
    "gray": [[0] * 3, [120] * 3, [255] * 3],
    "colour": [[0, 0, 0], [0, 255, 0], [255, 0, 0]],
}


def run(lines, folder):
    subprocess.run([sys.executable, "-c", lines], cwd=folder, check=True)


@pytest.mark.parametrize("kind", COLORS)
def test_lines_recover_the_classes_of_compressed_masks(tmp_path, kind):
    colors = np.uint8(COLORS[kind])
    labels, cells = {}, {}
    for split in ("train", "val [1]"):
        (tmp_path / split).mkdir()
        label = labels[split] = test_doctor.make_zones(len(split), (96, 96))
        mask = Image.fromarray(colors[label])
        mask = mask.convert("L") if kind == "gray" else mask
        mask.save(tmp_path / split / "1.jpg", quality=90, subsampling=0)
        pixels = np.asarray(Image.open(tmp_path / split / "1.jpg").convert("RGB"))
        for cell, count in conversions.count_cells(pixels).items():
            cells[cell] = cells.get(cell, 0) + count

    levels = conversions.find_levels(cells, 3)
    files = ["train/1.jpg", "val [1]/1.jpg"]
    values = [(0,), (1,), (2,)]
    run(conversions.write_lines(levels, values, files, mode="RGB"), tmp_path)

    assert np.abs(np.array(levels) - COLORS[kind]).max() <= 3
    for split, label in labels.items():
        written = np.asarray(Image.open(tmp_path / split / "1.png"))
        assert (written.dtype, written.shape) == (np.uint8, label.shape)
        assert (written != label).mean() < 0.002


def test_nothing_is_made_of_a_photo():
    cells = conversions.count_cells(test_doctor.make_photo(1))

    assert conversions.find_levels(cells, None) == []
    assert conversions.find_levels({}, 3) == []


def test_as_many_levels_as_classes_or_none():
    cells = {(0, 0, 0): 500, (30, 30, 30): 400, (63, 63, 63): 300}

    assert conversions.find_levels(cells, None) == [
        (0, 0, 0), (122, 122, 122), (255, 255, 255)
    ]  # fmt: skip
    assert conversions.find_levels(cells, 4) == []
    assert conversions.find_levels(cells, 2) == []


@pytest.mark.parametrize("ending, order", [("jpg", "<"), ("jpg", ">"), ("png", "<")])
def test_lines_take_the_note_off_photos(tmp_path, ending, order):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    exif.endian = order
    (tmp_path / "images").mkdir()
    for number in range(2):
        path = tmp_path / f"images/{number}.{ending}"
        Image.fromarray(test_doctor.make_photo(number)).save(path, exif=exif)
    before = np.asarray(Image.open(path))
    assert images.read_header(path.read_bytes()).orientation == 6

    (tmp_path / f"images/other.{ending}").write_bytes(path.read_bytes())
    text = file_traits.describe_turn_remedies(
        [f"images/{i}.{ending}" for i in range(2)], [f"images/other.{ending}"]
    )
    run("\n".join(text.split("\n")[1:3]), tmp_path)

    assert images.read_header(path.read_bytes()).orientation == 1
    other = tmp_path / f"images/other.{ending}"
    assert images.read_header(other.read_bytes()).orientation == 6
    assert Image.open(path).getexif()[0x010F] == "camera"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), before)
