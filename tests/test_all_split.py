"""The split named `all` holds every example once, of any data set."""

import re

import numpy as np
import pytest

from data import schema
from data.sources import registry, synthetic
from tests import helpers, test_doctor, test_folder
from trainer.assembly import inputs

find, write, paths_of = test_folder.find, test_folder.write, test_folder.paths_of


def test_undivided_folder_is_whole_with_or_without_a_fraction(tmp_path):
    test_folder.write_undivided(tmp_path)

    found = find(tmp_path, "all", is_training=False)

    assert found.name == "all"
    assert [pair.key for pair in found.pairs] == list("abcdef")
    assert find(tmp_path, "all", train_fraction=0.5).pairs == found.pairs


def test_splits_are_joined_with_keys_of_their_own(tmp_path):
    for split in ("val", "train"):
        write(tmp_path, f"{split}/images/a.jpg", f"{split}/masks/a.png")

    found = find(tmp_path, "all", is_training=False)

    assert paths_of(found) == [
        ("train/images/a.jpg", "train/masks/a.png"),
        ("val/images/a.jpg", "val/masks/a.png"),
    ]
    assert len({pair.key for pair in found.pairs}) == 2


def test_pair_that_is_in_two_lists_counts_once(tmp_path):
    test_folder.write_undivided(tmp_path, "abc")
    for name, stems in (("train", "b"), ("val", "c"), ("trainval", "bc")):
        test_folder.write_list(tmp_path, f"{name}.txt", *stems)

    found = find(tmp_path, "all", is_training=False)

    assert [image for image, _ in paths_of(found)] == ["images/b.jpg", "images/c.jpg"]


def test_a_split_of_that_name_goes_before(tmp_path):
    for split in ("all", "train"):
        write(tmp_path, f"{split}/images/a.jpg", f"{split}/masks/a.png")

    assert paths_of(find(tmp_path, "all")) == [("all/images/a.jpg", "all/masks/a.png")]


@pytest.mark.parametrize("split", ["{split}", "x"])
def test_patterns_are_joined_too(tmp_path, split):
    names = ("train", "test") if split == "{split}" else ("x",)
    for name in names:
        write(tmp_path, f"photos/{name}/a.jpg", f"labels/{name}/a.png")

    found = find(
        tmp_path,
        "all",
        image_pattern=f"photos/{split}/*",
        mask_pattern=f"labels/{split}/*",
    )

    assert [image for image, _ in paths_of(found)] == [
        f"photos/{name}/a.jpg" for name in sorted(names)
    ]


@pytest.mark.parametrize("place", ["{split}/img", "img/{split}"])
def test_absolute_patterns_are_joined_by_paths_from_one_folder(tmp_path, place):
    """Of `{split}/img`, a split by itself has paths from its own folder."""
    masks = place.replace("img", "labels")
    for split in ("train", "val", "test"):
        for folder in (place, masks):
            write(tmp_path, *(f"{folder.format(split=split)}/{i}.png" for i in "012"))
    alone = [f"{place.format(split='val')}/x.png", f"{masks.format(split='val')}/y.png"]
    write(tmp_path, *alone)
    patterns = {
        "image_pattern": f"{tmp_path}/{place}/*.png",
        "mask_pattern": f"{tmp_path}/{masks}/*.png",
    }

    found = find("", "all", **patterns)
    by_itself = find("", "test", **patterns)

    assert found.folder.path == tmp_path
    assert [(pair.image, pair.mask) for pair in found.pairs] == [
        (f"{place.format(split=split)}/{i}.png", f"{masks.format(split=split)}/{i}.png")
        for split in ("test", "train", "val")
        for i in "012"
    ]
    assert [file for problem in found.problems for file in problem.files] == alone
    start = "img/test" if place == "img/{split}" else "img"
    assert by_itself.pairs[0].image == f"{start}/0.png"


@pytest.mark.parametrize("image_pattern", ["", "{split}/images/*"])
def test_photos_of_a_test_split_whose_masks_nobody_has_are_left_out_with_a_warning(
    tmp_path, image_pattern, caplog
):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png", "test/images/b.jpg")

    found = find(
        tmp_path,
        "all",
        image_pattern=image_pattern,
        mask_pattern=image_pattern.replace("images", "masks"),
    )

    assert paths_of(found) == [("train/images/a.jpg", "train/masks/a.png")]
    assert "split test has images but no masks; `all` leaves it out" in caplog.text


def test_problems_of_all_splits_are_told(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png", "train/masks/b.png")
    write(tmp_path, "val/images/a.jpg", "val/masks/a.png", "val/images/c.jpg")

    found = find(tmp_path, "all")

    assert [problem.files for problem in found.problems] == [
        ("train/masks/b.png",), ("val/images/c.jpg",)
    ]  # fmt: skip


@pytest.mark.parametrize("is_training, flag", [(True, "train"), (False, "eval")])
def test_undivided_folder_is_refused_with_the_split_of_the_role(
    tmp_path, is_training, flag
):
    test_folder.write_undivided(tmp_path)

    with pytest.raises(schema.DataError, match=f"--{flag}_split=all") as caught:
        find(tmp_path, is_training=is_training)

    other = {"train": "eval", "eval": "train"}[flag]
    assert f"--{other}_split" not in str(caught.value)
    assert caught.value.kind == "undivided"


def test_evaluating_a_divided_folder_takes_no_fraction_amiss(tmp_path):
    """The fraction may be that of the run, which was trained on another folder."""
    write(tmp_path, "val/images/a.jpg", "val/masks/a.png")

    found = find(tmp_path, is_training=False, train_fraction=0.5)

    assert len(found.pairs) == 1


def _ask_for_all(**kwargs) -> registry.SplitRequest:
    return registry.SplitRequest(
        split="all", is_training=False, image_size=(32, 32), **kwargs
    )


def test_drawn_splits_come_one_after_the_other(monkeypatch):
    monkeypatch.setattr(
        synthetic, "NUM_EXAMPLES", {"train": 3, "test": 2, "validation": 1}
    )
    source = registry.open_source("synthetic", _ask_for_all())

    images = [example["image"] for example in source.examples().as_numpy_iterator()]

    assert len(source) == len(images) == 6
    drawn = [("train", 0), ("train", 1), ("train", 2), ("test", 0), ("test", 1)]
    for image, (split, index) in zip(images, [*drawn, ("validation", 0)], strict=True):
        expected, _ = synthetic.draw_example(0, split, index, 32)
        np.testing.assert_array_equal(image, expected)


@helpers.needs_pets
def test_tfds_has_it_in_its_own_language():
    source = registry.open_source(
        "tfds:oxford_iiit_pet", _ask_for_all(data_dir=str(helpers.SHARED / "tfds"))
    )

    assert len(source) == 300 + 298


def test_doctor_looks_at_all_of_an_undivided_folder(tmp_path):
    (tmp_path / "data").mkdir()
    test_doctor.undivide(tmp_path / "data")
    setup = inputs.prepare_inspection(
        test_doctor.make_config(tmp_path, "--num_classes=3")
    )

    assert (setup.train.name, len(setup.train)) == ("data/all", 6)
    assert setup.evaluation is None
    ((_, error),) = setup.errors
    assert re.search("--train_fraction=0.8", str(error))
