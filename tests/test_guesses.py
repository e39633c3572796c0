"""A folder of no known layout: the error proposes patterns that pair all of it."""

import re

import pytest

from data import schema
from data.sources import guesses, layouts


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


LAYOUTS = {
    "labelme2voc": (
        ("JPEGImages/{}.jpg", "SegmentationClassPNG/{}.png", "SegView/{}.jpg"),
        ("JPEGImages/*.jpg", "SegmentationClassPNG/*.png"),
    ),
    "cityscapes": (
        (
            "leftImg8bit/train/bonn/{}_leftImg8bit.png",
            "leftImg8bit/val/ulm/{}_leftImg8bit.png",
            "gtFine/train/bonn/{}_gtFine_labelIds.png",
            "gtFine/train/bonn/{}_gtFine_color.png",
            "gtFine/val/ulm/{}_gtFine_labelIds.png",
            "gtFine/val/ulm/{}_gtFine_color.png",
        ),
        (
            "leftImg8bit/{{split}}/**/*_leftImg8bit.png",
            "gtFine/{{split}}/**/*_gtFine_labelIds.png",
        ),
    ),
    "one folder, two endings": (("{}.jpg", "{}.png"), ("*.jpg", "*.png")),
    "one folder, an affix": (("{}.png", "{}_mask.png"), None),
    "an export of splits": (
        ("train/{}.jpg", "train/{}_mask.png", "valid/v{}.jpg", "valid/v{}_mask.png"),
        ("{{split}}/*.jpg", "{{split}}/*_mask.png"),
    ),
    "other words": (("imgs/{}.tif", "Labels/{}.tif"), ("imgs/*.tif", "Labels/*.tif")),
    "signs of patterns": (("im[1]/{}.jpg", "gt/{}.png"), ("im[[]1]/*.jpg", "gt/*.png")),
    "a mask is missing": (("x/a{}.jpg", "y/a{}.png", "x/{}.jpg"), None),
    "which are masks is open": (("x/{}.png", "y/{}.png"), None),
    "masks of two kinds": (("masks0/{}.png", "masks1/{}.png"), None),
    "masks that are lossy": (("x/{}.jpg", "masks/{}.jpg"), None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_patterns_are_proposed_that_pair_all_or_none(tmp_path, name):
    files, patterns = LAYOUTS[name]
    touch(tmp_path, *(file.format(f"00{i}_9") for file in files for i in range(3)))

    with pytest.raises(schema.DataError) as caught:
        layouts.find_split(str(tmp_path))

    found = re.search("; say --images='(.*)' --masks='(.*)', which", str(caught.value))
    if patterns is None:
        assert found is None
        assert "say where the files are with --images='photos/*.jpg'" in str(
            caught.value
        )
        return
    assert found.groups() == tuple(pattern.format() for pattern in patterns)
    split = layouts.find_split(
        str(tmp_path), "all", image_pattern=found[1], mask_pattern=found[2]
    )
    num_images = len([file for file in files if re.search(r"jpg|left|imgs", file)])
    num_images -= name == "labelme2voc"
    assert (len(split.pairs), split.problems) == (3 * num_images, ())


def test_folders_that_take_long_are_left_alone(tmp_path, monkeypatch):
    touch(tmp_path, "x/a.jpg", "y/a.png", "x/b.jpg", "y/b.png")
    monkeypatch.setattr(guesses, "_MOST_FILES", 8)  # Four files in two families.
    assert guesses.propose(str(tmp_path), ())
    monkeypatch.setattr(guesses, "_MOST_FILES", 7)
    assert guesses.propose(str(tmp_path), ()) == ""
