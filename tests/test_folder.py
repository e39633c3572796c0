"""Folders of images and masks: layouts, pairs, splits, refusals, fingerprints."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import schema
from data.preparing import preprocessing
from data.sources import folder, globs, layouts, registry, tfds
from data.stores import store
from tests import helpers

PREPROCESSOR = preprocessing.Preprocessor((32, 32), 3)


def make_image(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 256, (32, 48, 3), np.uint8))


def make_mask(number: int) -> Image.Image:
    label = np.random.default_rng(number).integers(0, 3, (32, 48), np.uint8)
    return Image.fromarray(label)


def write(root: pathlib.Path, *paths: str) -> None:
    """Writes images, or masks where the path says so."""
    for path in paths:
        whole = root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        number = sum(whole.stem.encode())
        is_mask = any(
            word in str(path) for word in ("mask", "trimaps", "Class", "labels")
        )
        (make_mask(number) if is_mask else make_image(number)).save(whole)


def write_list(root: pathlib.Path, path: str, *lines: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("\n".join(lines) + "\n")


def write_undivided(root: pathlib.Path, stems="abcdef") -> None:
    write(root, *(f"images/{s}.jpg" for s in stems), *(f"masks/{s}.png" for s in stems))


def find(root, split="", **kwargs):
    return layouts.find_split(str(root), split, **kwargs)


def paths_of(split) -> list[tuple[str, str]]:
    assert split.problems == ()
    return [(pair.image, pair.mask) for pair in split.pairs]


def read(source, *args):
    return list(source.examples(*args).as_numpy_iterator())


# Layouts


def test_folders_in_folders_of_splits(tmp_path):
    write(tmp_path, "train/images/b.jpg", "train/masks/b.png")
    write(tmp_path, "train/images/a.PNG", "train/masks/a.png")
    write(tmp_path, "val/images/c.jpg", "val/masks/c.png")

    assert paths_of(find(tmp_path)) == [
        ("train/images/a.PNG", "train/masks/a.png"),
        ("train/images/b.jpg", "train/masks/b.png"),
    ]
    assert paths_of(find(tmp_path, is_training=False)) == [
        ("val/images/c.jpg", "val/masks/c.png")
    ]


def test_valid_is_a_name_of_the_validation_split(tmp_path):
    write(tmp_path, "valid/images/a.jpg", "valid/masks/a.png", "test/images/b.jpg")
    write(tmp_path, "test/masks/b.png")

    assert find(tmp_path, is_training=False).name == "valid"


def test_splits_in_folders_of_images_and_masks(tmp_path):
    write(tmp_path, "images/train/a.jpg", "masks/train/a.png")
    write(tmp_path, "images/test/seq/b.jpg", "masks/test/seq/b.png")

    assert paths_of(find(tmp_path)) == [("images/train/a.jpg", "masks/train/a.png")]
    assert paths_of(find(tmp_path, is_training=False)) == [
        ("images/test/seq/b.jpg", "masks/test/seq/b.png")
    ]


def test_lists_of_stems(tmp_path):
    write_undivided(tmp_path)
    write_list(tmp_path, "train.txt", "d", "# no example", "", "a")
    write_list(tmp_path, "test.txt", "c")

    assert [pair.key for pair in find(tmp_path).pairs] == ["a", "d"]
    assert [pair.key for pair in find(tmp_path, is_training=False).pairs] == ["c"]


@pytest.mark.parametrize(
    "text",
    [
        "x/my photo.jpg,y/my mask.png\nx/b.jpg,y/labels_b.png\n",
        "\ufeffimage,mask\r\nx/my photo.jpg,y/my mask.png\r\n"
        'x/b.jpg,"y/labels_b.png"\r\n',
        "image;mask\nx/my photo.jpg; y/my mask.png\n\n./x/b.jpg;y/labels_b.png\n",
    ],
    ids=["plain", "of Windows", "semicolons"],
)
def test_lists_in_csv(tmp_path, text):
    write(tmp_path, "x/my photo.jpg", "y/my mask.png", "x/b.jpg", "y/labels_b.png")
    (tmp_path / "train.csv").write_bytes(text.encode())

    assert paths_of(find(tmp_path)) == [
        ("x/b.jpg", "y/labels_b.png"),
        ("x/my photo.jpg", "y/my mask.png"),
    ]


def test_a_comment_may_stand_before_the_names_of_the_columns(tmp_path):
    write_undivided(tmp_path)
    write_list(
        tmp_path, "train.csv", "# made by hand", "", "image,mask",
        "images/a.jpg,masks/a.png",
    )  # fmt: skip

    assert paths_of(find(tmp_path)) == [("images/a.jpg", "masks/a.png")]


def test_tables_of_other_things_are_no_lists(tmp_path):
    write_undivided(tmp_path)
    write_list(tmp_path, "train.csv", "id,depth", "a,517", "b,306")

    assert len(find(tmp_path, "all").pairs) == 6
    write_list(tmp_path, "train.csv", "images/a.jpg,masks/a.png", "images/b.jpg")
    with pytest.raises(schema.DataError, match="train.csv: the row 'images/b.jpg' is"):
        find(tmp_path)


def test_lists_of_paths(tmp_path):
    write(tmp_path, "x/my photo.jpg", "y/my mask.png", "x/b.jpg", "y/labels_b.png")
    write_list(
        tmp_path,
        "train.txt",
        "x/my photo.jpg\ty/my mask.png",
        "./x/b.jpg y/labels_b.png",
    )

    assert paths_of(find(tmp_path)) == [
        ("x/b.jpg", "y/labels_b.png"),
        ("x/my photo.jpg", "y/my mask.png"),
    ]


def test_stem_in_a_list_may_have_spaces(tmp_path):
    write_undivided(tmp_path, ["one photo", "two photos more"])
    write_list(tmp_path, "train.txt", "one photo", "two photos more")

    assert [p.key for p in find(tmp_path).pairs] == ["one photo", "two photos more"]


def test_list_of_any_name_can_be_asked_for(tmp_path):
    write_undivided(tmp_path)
    write_list(tmp_path, "fold1.txt", "b")

    assert [pair.key for pair in find(tmp_path, "fold1").pairs] == ["b"]


def test_pascal_voc(tmp_path):
    stems = ("2007_000032", "2007_000039")
    write(tmp_path, *(f"JPEGImages/{s}.jpg" for s in (*stems, "2007_000027")))
    write(tmp_path, *(f"SegmentationClass/{s}.png" for s in stems))
    lists = "ImageSets/Segmentation"
    write_list(tmp_path, f"{lists}/train.txt", stems[1])
    write_list(tmp_path, f"{lists}/val.txt", stems[0])
    write_list(tmp_path, f"{lists}/trainval.txt", *stems)

    train = find(tmp_path)

    assert paths_of(train) == [
        ("JPEGImages/2007_000039.jpg", "SegmentationClass/2007_000039.png")
    ]
    assert [p.key for p in find(tmp_path, is_training=False).pairs] == [stems[0]]
    assert [p.key for p in find(tmp_path, "trainval").pairs] == [*stems]
    assert train.info.num_classes == 21
    assert train.info.class_names[15] == "person"


def test_oxford_pets(tmp_path):
    stems = ("Abyssinian_1", "beagle_2", "pug_3")
    write(tmp_path, *(f"images/{stem}.jpg" for stem in stems))
    write(tmp_path, *(f"annotations/trimaps/{stem}.png" for stem in stems))
    write_list(tmp_path, "images/Abyssinian_1.mat", "no image")
    write_list(tmp_path, "annotations/trimaps/._pug_3.png", "no image")
    write_list(tmp_path, "annotations/list.txt", "#Image CLASS-ID SPECIES BREED ID")
    write_list(tmp_path, "annotations/trainval.txt", "pug_3 25 2 18", "beagle_2 5 2 4")
    write_list(tmp_path, "annotations/test.txt", "Abyssinian_1 1 1 1")

    train = find(tmp_path)

    assert paths_of(train) == [
        ("images/beagle_2.jpg", "annotations/trimaps/beagle_2.png"),
        ("images/pug_3.jpg", "annotations/trimaps/pug_3.png"),
    ]
    assert train.name == "trainval"
    assert train.info == tfds.KNOWN_INFOS["oxford_iiit_pet"]
    assert [p.key for p in find(tmp_path, is_training=False).pairs] == [stems[0]]


@pytest.mark.parametrize("there, asked", [("val", "validation"), ("validation", "val")])
def test_val_and_validation_are_the_same(tmp_path, there, asked):
    write(tmp_path, f"{there}/images/a.jpg", f"{there}/masks/a.png")

    assert find(tmp_path, asked).name == there
    assert find(tmp_path, is_training=False).name == there


def test_validation_goes_before_test(tmp_path):
    for split in ("test", "val", "train"):
        write(tmp_path, f"{split}/images/a.jpg", f"{split}/masks/a.png")

    assert find(tmp_path, is_training=False).name == "val"
    assert find(tmp_path, "test", is_training=False).name == "test"


_BY_PATTERNS = {"image_pattern": "{split}/images/*", "mask_pattern": "{split}/masks/*"}


@pytest.mark.parametrize("split", ["", "val", "all"])
@pytest.mark.parametrize(
    "left, patterns, message",
    [
        (
            "images",
            {},
            "val/masks/ is not there, but val/images/ is; add it, take val/images/ "
            "away, or name another split with --train_split or --eval_split.",
        ),
        ("masks", {}, "val/images/ is not there, but val/masks/ is; add it, take "),
        ("images", _BY_PATTERNS, "val/masks/* matches no image file; mend the patt"),
        ("masks", _BY_PATTERNS, "val/images/* matches no image file; mend the patt"),
    ],
)
def test_no_other_split_stands_in_for_one_of_which_half_is_there(
    tmp_path, split, left, patterns, message
):
    for name in ("train", "val", "test"):
        write(tmp_path, f"{name}/images/a.jpg", f"{name}/masks/a.png")
    shutil.rmtree(tmp_path / "val" / {"images": "masks", "masks": "images"}[left])

    with pytest.raises(schema.DataError) as caught:
        find(tmp_path, split, is_training=False, **patterns)

    assert message in str(caught.value)
    assert find(tmp_path, "test", is_training=False, **patterns).name == "test"


def test_no_other_split_stands_in_for_a_table_that_is_no_list(tmp_path):
    write_undivided(tmp_path)
    write_list(tmp_path, "train.csv", "images/a.jpg,masks/a.png")
    write_list(tmp_path, "val.csv", "1,images/b.jpg,masks/b.png")
    write_list(tmp_path, "test.csv", "images/c.jpg,masks/c.png")

    with pytest.raises(schema.DataError, match="val.csv: the row '1,images/b.jpg,mas"):
        find(tmp_path, is_training=False)


@pytest.mark.parametrize("patterns", [{}, _BY_PATTERNS])
def test_an_empty_folder_is_no_half_of_a_split(tmp_path, patterns):
    for name in ("train", "test"):
        write(tmp_path, f"{name}/images/a.jpg", f"{name}/masks/a.png")
    (tmp_path / "val/images").mkdir(parents=True)

    assert find(tmp_path, is_training=False, **patterns).name == "test"


def test_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png")
    write(tmp_path, "test/images/a.jpg", "test/masks/a.png")

    with pytest.raises(
        schema.DataError, match="no split train\\[:9\\]; it has train, test. Name one"
    ):
        find(tmp_path, "train[:9]")


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png")
    for path in ("images/Thumbs.db", "images/.b.jpg", "masks/a.xml", "images/.c/d.jpg"):
        write_list(tmp_path, f"train/{path}", "?")

    assert len(paths_of(find(tmp_path))) == 1


# Undivided folders


def test_undivided_folder_is_divided_by_hash(tmp_path):
    stems = [f"{number:03}" for number in range(200)]
    for path in ("images/{}.jpg", "masks/{}.png"):
        for stem in stems:
            write_list(tmp_path, path.format(stem), "?")

    train = find(tmp_path, train_fraction=0.75)
    rest = find(tmp_path, train_fraction=0.75, is_training=False)

    keys = [[pair.key for pair in split.pairs] for split in (train, rest)]
    assert sorted(keys[0] + keys[1]) == stems
    assert 130 <= len(keys[0]) <= 170  # 150 +- 3.3 standard deviations of 6.1.
    assert (train.name, rest.name) == ("train", "validation")
    for name in ("val", "validation", "test"):
        assert find(tmp_path, name, train_fraction=0.75).pairs == rest.pairs


def test_added_files_move_no_other_to_the_other_side(tmp_path):
    write_undivided(tmp_path)
    before = [p.key for p in find(tmp_path, train_fraction=0.5).pairs]

    write_undivided(tmp_path, "uvwxyz")
    after = [p.key for p in find(tmp_path, train_fraction=0.5).pairs]

    assert 0 < len(before) < 6
    assert [key for key in after if key in "abcdef"] == before


def test_another_seed_divides_otherwise(tmp_path):
    write_undivided(tmp_path, "abcdefghijklmnop")

    splits = [find(tmp_path, train_fraction=0.5, seed=seed).pairs for seed in range(2)]

    assert splits[0] != splits[1]


def test_larger_fraction_keeps_the_training_examples(tmp_path):
    write_undivided(tmp_path, "abcdefghijklmnop")

    small, large = (find(tmp_path, train_fraction=f).pairs for f in (0.3, 0.8))

    assert set(small) < set(large)


def test_undivided_folder_without_fraction_is_refused_with_the_remedy(tmp_path):
    write_undivided(tmp_path)

    with pytest.raises(schema.DataError, match="not divided.*--train_fraction=0.8"):
        find(tmp_path)


def test_fraction_that_leaves_nothing_is_refused(tmp_path):
    write_undivided(tmp_path, "ab")

    with pytest.raises(schema.DataError, match="0.001 leaves none of the 2 examples"):
        find(tmp_path, train_fraction=0.001)


def test_fraction_of_a_divided_folder_is_refused(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png")

    with pytest.raises(schema.DataError, match="0.5: .* has splits of its own"):
        find(tmp_path, train_fraction=0.5)


def test_undivided_folder_has_no_other_split(tmp_path):
    write_undivided(tmp_path)

    with pytest.raises(schema.DataError, match="there is no split trainval"):
        find(tmp_path, "trainval", train_fraction=0.5)


# Patterns


@pytest.mark.parametrize(
    "patterns, files, pairs",
    [
        (
            ("photos/*.jpg", "labels/*.png"),
            ["photos/a.jpg", "photos/b.png", "labels/a.png", "labels/deep/c.png"],
            [("a", "photos/a.jpg", "labels/a.png")],
        ),
        (
            ("photos/*", "labels/*_mask.*"),
            ["photos/a.jpg", "labels/a_mask.png"],
            [("a", "photos/a.jpg", "labels/a_mask.png")],
        ),
        (
            ("img/**/*.jpg", "labels/**/*.png"),
            ["img/a.jpg", "img/x/y/a.jpg", "labels/a.png", "labels/x/y/a.png"],
            [
                ("a", "img/a.jpg", "labels/a.png"),
                ("x/y/a", "img/x/y/a.jpg", "labels/x/y/a.png"),
            ],
        ),
        (
            ("left/*/*_left.png", "labels/*/*_fine.png"),
            ["left/ulm/0_left.png", "labels/ulm/0_fine.png"],
            [("ulm/0", "left/ulm/0_left.png", "labels/ulm/0_fine.png")],
        ),
        (
            ("*/photo.jpg", "*/mask.png"),
            ["a/photo.jpg", "a/mask.png", "b/photo.jpg", "b/mask.png"],
            [("a", "a/photo.jpg", "a/mask.png"), ("b", "b/photo.jpg", "b/mask.png")],
        ),
        (  # Another number of wildcards: the names of the files count.
            ("img/**/*.jpg", "labels/*.png"),
            ["img/x/a.jpg", "labels/a.png"],
            [("a", "img/x/a.jpg", "labels/a.png")],
        ),
        (
            ("img/[ab]?.jpg", "labels/[ab]?.png"),
            ["img/a1.jpg", "img/c1.jpg", "labels/a1.png"],
            [("a/1", "img/a1.jpg", "labels/a1.png")],
        ),
        (  # What looks like an ending is a part of the stems.
            ("img/img.*", "labels/img.*"),
            ["img/img.0001.jpg", "img/img.2.jpg", "labels/img.0001.png"]
            + ["labels/img.2.png"],
            [
                ("0001", "img/img.0001.jpg", "labels/img.0001.png"),
                ("2", "img/img.2.jpg", "labels/img.2.png"),
            ],
        ),
        (
            ("img/[^k]*.jpg", "labels/[^k]*.png"),
            ["img/k1.jpg", "img/^2.jpg", "img/a3.jpg", "labels/k1.png"]
            + ["labels/^2.png"],
            [
                ("^/2", "img/^2.jpg", "labels/^2.png"),
                ("k/1", "img/k1.jpg", "labels/k1.png"),
            ],
        ),
        (  # A range from z to a holds nothing, and its complement any character.
            ("img/[!z-a][z-ab].jpg", "labels/[!z-a][z-ab].png"),
            ["img/xb.jpg", "img/xa.jpg", "labels/xb.png"],
            [("x/b", "img/xb.jpg", "labels/xb.png")],
        ),
        (  # No set of characters, as nothing closes it.
            ("img/[!]*.jpg", "labels/[!]*.png"),
            ["img/[!]a.jpg", "labels/[!]a.png"],
            [("a", "img/[!]a.jpg", "labels/[!]a.png")],
        ),
    ],
)
def test_patterns_pair_what_their_wildcards_stand_for(tmp_path, patterns, files, pairs):
    write(tmp_path, *files)

    _, found, problems = globs.find_pairs(str(tmp_path), *patterns)

    assert problems == []
    assert [(pair.key, pair.image, pair.mask) for pair in found] == pairs


def test_absolute_patterns_may_lead_to_two_places(tmp_path):
    write(tmp_path, "x/photos/a.jpg", "y/labels/a.png")

    split = find(
        "",
        image_pattern=f"{tmp_path}/x/photos/*.jpg",
        mask_pattern=f"{tmp_path}/y/labels/*.png",
        train_fraction=0.9999,
    )

    assert split.folder.path == tmp_path
    assert paths_of(split) == [("x/photos/a.jpg", "y/labels/a.png")]


def test_split_takes_its_place_in_patterns(tmp_path):
    write(tmp_path, "img/train/a.jpg", "labels/train/a.png")
    write(tmp_path, "img/val/b.jpg", "labels/val/b.png")
    patterns = {"image_pattern": "img/{split}/*", "mask_pattern": "labels/{split}/*"}

    assert [p.key for p in find(tmp_path, **patterns).pairs] == ["a"]
    assert find(tmp_path, is_training=False, **patterns).name == "val"


def test_a_pattern_that_is_not_written_like_its_files_is_refused(tmp_path):
    write(tmp_path, "photos/a.jpg", "labels/a.png")

    with pytest.raises(
        schema.DataError,
        match=r"^--images=\*/\.\./photos/\*\.jpg matches photos/a\.jpg, but .*"
        r"e\.g\. photos/\*\.$",
    ):
        globs.find_pairs(str(tmp_path), "*/../photos/*.jpg", "*/../labels/*.png")


@pytest.mark.parametrize("which", ["images", "masks"])
def test_pattern_without_a_file_is_refused(tmp_path, which):
    write(tmp_path, "photos/a.jpg", "labels/a.png")
    patterns = {"image_pattern": "photos/*", "mask_pattern": "labels/*"}
    patterns[f"{which[:-1]}_pattern"] = "nowhere/*.png"

    with pytest.raises(
        schema.DataError, match=rf"^--{which}=.*nowhere/\*.png matches no image file"
    ):
        find(tmp_path, **patterns, train_fraction=0.5)


# Refusals


def test_images_and_masks_that_are_alone_are_counted_and_named(tmp_path):
    write(tmp_path, *(f"train/images/{name}.jpg" for name in "abcdefgh"))
    write(tmp_path, "train/masks/a.png", "train/masks/z.png")

    assert tuple(map(str, find(tmp_path).problems)) == (
        "7 images without a mask: train/images/b.jpg, train/images/c.jpg, "
        "train/images/d.jpg, train/images/e.jpg, train/images/f.jpg and 2 more; add "
        "the masks, or take the images away",
        "1 mask without an image: train/masks/z.png; add the images, or take the masks "
        "away",
    )


def test_files_in_place_of_images_are_counted(tmp_path):
    write(tmp_path, "masks/a.png")
    (tmp_path / "images/x").mkdir(parents=True)
    for name in ("a.npy", "x/b.npy", "notes.txt", ".DS_Store"):
        (tmp_path / "images" / name).touch()

    with pytest.raises(schema.DataError) as caught:
        find(tmp_path, "all")

    assert "images/ holds no image file (2 .npy and 1 .txt); known" in str(caught.value)
    assert "write arrays as TIFF files" in str(caught.value)


def test_source_refuses_what_has_problems(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/images/b.jpg", "train/masks/a.png")
    write(tmp_path, "train/images/a.png")

    with pytest.raises(
        schema.DataError,
        match="split train: 2 images of one name: train/images/a.jpg, train/images/"
        "a.png; keep one of them. Also, 1 image without a mask: train/images/b.jpg; a",
    ):
        folder.FolderSource(str(tmp_path))


@pytest.mark.parametrize("kind, ending", [("images", "bmp"), ("masks", "bmp")])
def test_two_files_of_one_stem_are_refused(tmp_path, kind, ending):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png")
    write(tmp_path, f"train/{kind}/a.{ending}")

    (problem,) = find(tmp_path).problems

    assert str(problem).startswith(
        f"2 {kind} of one name: train/{kind}/a.{ending}, train/"
    )


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_empty_folder_is_refused(tmp_path, kind):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png")
    for file in (tmp_path / "train" / kind).iterdir():
        file.unlink()

    with pytest.raises(
        schema.DataError, match=f"train/{kind}/ holds no image file; kno"
    ):
        find(tmp_path)


def test_folder_in_no_known_layout_is_refused_with_the_known_ones(tmp_path):
    write_list(tmp_path, "photos/a.jpg", "?")

    with pytest.raises(schema.DataError, match="holds photos, but .*--images='photos/"):
        find(tmp_path)


@pytest.fixture(name="lock")
def _lock(monkeypatch):
    """Returns a function that lets nobody, not even root, read a folder."""

    def lock(folder):
        def scan(path, *, real=os.scandir):
            if os.path.samefile(path, folder):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scan)

    return lock


@pytest.mark.parametrize("locked", ["images", "masks/deep"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path, lock, locked):
    write_undivided(tmp_path)
    write(tmp_path, "masks/deep/a.png")
    lock(tmp_path / locked)

    with pytest.raises(
        schema.DataError,
        match=rf"^The folder {tmp_path}/{locked} cannot be read \(Permission denied\); "
        "let this user read it, or take it away",
    ):
        find(tmp_path, train_fraction=0.5)


def test_of_no_known_layout_the_whole_may_be_unreadable_or_a_part(tmp_path, lock):
    write(tmp_path, "photos/a.jpg", "labels/a.png")
    (tmp_path / "lost+found").mkdir()

    lock(tmp_path / "lost+found")
    with pytest.raises(
        schema.DataError, match=r"say --images='photos/\*\.jpg' --masks="
    ):
        find(tmp_path)
    lock(tmp_path)
    with pytest.raises(schema.DataError, match=f"^The folder {tmp_path} cannot be re"):
        find(tmp_path)


def test_empty_folder_of_all_is_refused(tmp_path):
    with pytest.raises(schema.DataError, match="holds nothing, but there should be"):
        find(tmp_path)


def test_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        schema.DataError, match=f"^--data_dir={tmp_path}/no is no folder"
    ):
        find(tmp_path / "no")


@pytest.mark.parametrize(
    "lines, problem",
    [
        (["a", "x"], "train.txt names 1 example not there: x; mend the list, or add"),
        (["a", "b", "a"], "train.txt names 1 example more than once: a; keep one line"),
        (
            ["images/a.jpg masks/a.png", "./images/a.jpg masks/b.png"],
            "train.txt names 1 example more than once: ./images/a.jpg; keep one line",
        ),
        (
            ["images/a.jpg masks/a.png", "a"],
            "train.txt names 1 example more than once: a; keep one line",
        ),
        (["e"], "1 image without a mask: images/e.jpg"),
        (["m"], "1 mask without an image: masks/m.png"),
        (["images/a.jpg masks/no.png"], "names 1 example not there: masks/no.png"),
        (
            ["../other/images/a.jpg masks/a.png"],
            "1 file outside of the folder .*: ../ot",
        ),
        (
            ["images/a.jpg {root}/masks/a.png"],
            "1 file outside .*absolute.*/masks/a.png",
        ),
        (["images/a.jpg ../{name}/masks/a.png"], None),  # Comes back into the folder.
    ],
)
def test_lists_that_lead_astray_are_refused(tmp_path, lines, problem):
    root = tmp_path / "own"
    write_undivided(root, "ab")
    write(root, "images/e.jpg", "masks/m.png")
    write_undivided(tmp_path / "other", "a")
    names = {"root": root, "name": "own"}
    write_list(root, "train.txt", *(line.format(**names) for line in lines))

    problems = find(root).problems

    if problem is None:
        assert problems == ()
    else:
        assert len(problems) == 1
        assert re.search(problem, str(problems[0]))


def test_empty_list_is_refused(tmp_path):
    write_undivided(tmp_path)
    write_list(tmp_path, "train.txt", "# nothing")

    with pytest.raises(schema.DataError, match="the split train is empty"):
        find(tmp_path)


def test_list_that_is_no_text_is_refused(tmp_path):
    write_undivided(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\xff")

    with pytest.raises(schema.DataError, match="train.txt cannot be read"):
        find(tmp_path)


@pytest.mark.parametrize("what", ["file", "subfolder", "folder"])
def test_links_that_leave_the_folder_are_refused(tmp_path, what):
    root = tmp_path / "own"
    write(root, "train/images/a.jpg", "train/masks/a.png", "train/masks/b.png")
    write(tmp_path, "other/b.jpg", "other/a.jpg")
    if what == "file":
        (root / "train/images/b.jpg").symlink_to(tmp_path / "other/b.jpg")
    elif what == "subfolder":
        (root / "train/images/more").symlink_to(tmp_path / "other")
    else:
        (root / "train/images/a.jpg").unlink()
        (root / "train/images").rmdir()
        (root / "train/images").symlink_to(tmp_path / "other")

    assert "outside of the folder (by an absolute path, a symbolic link" in str(
        find(root).problems[0]
    )


def test_links_inside_the_folder_are_followed(tmp_path):
    root = tmp_path / "own"
    write(root, "raw/b.jpg", "train/images/a.jpg", "train/masks/a.png")
    write(root, "train/masks/b.png", "train/masks/raw/b.png")
    (root / "train/images/b.jpg").symlink_to(root / "raw/b.jpg")
    (root / "train/images/raw").symlink_to(root / "raw")
    (root / "train/images/loop").symlink_to(root / "train/images")
    (tmp_path / "link").symlink_to(root)

    keys = [pair.key for pair in find(tmp_path / "link").pairs]

    assert keys == ["a", "b", "raw/b"]
    assert find(tmp_path / "link").problems == ()


def test_patterns_follow_no_link_out_of_the_folder(tmp_path):
    root = tmp_path / "own"
    write(root, "photos/a.jpg", "labels/a.png")
    write(tmp_path, "other/b.jpg")
    (root / "photos/b.jpg").symlink_to(tmp_path / "other/b.jpg")

    _, _, problems = globs.find_pairs(str(root), "photos/*", "labels/*")

    assert "outside of the folder" in str(problems[0])


def test_source_with_problems_can_be_looked_at(tmp_path):
    """Files outside of the folder are not read; those that are gone may be named."""
    root = tmp_path / "own"
    write(root, "train/images/a.jpg", "train/images/b.jpg", "train/masks/a.png")
    write(root, "train/masks/c.png", "train/images/d.jpg", "train/masks/d.png")
    write(tmp_path, "other/c.jpg")
    (root / "train/images/c.jpg").symlink_to(tmp_path / "other/c.jpg")
    (root / "train/images/d.jpg").unlink()
    (root / "train/images/d.jpg").symlink_to("nowhere.jpg")

    source = open_source(root, allow_problems=True)

    assert [problem.kind for problem in source.problems] == [
        "outside_folder", "missing_pair"
    ]  # fmt: skip
    assert source.problems[1].files == ("train/images/b.jpg",)
    assert len(source) == 2
    assert source.load(0)["name"] == b"train/images/a.jpg"
    with pytest.raises(tf.errors.NotFoundError, match="d.jpg"):
        source.load(1)
    with pytest.raises(schema.DataError) as caught:
        open_source(root)
    assert caught.value.kind == "outside_folder"


def test_broken_link_is_refused(tmp_path):
    write(tmp_path, "train/images/a.jpg", "train/masks/a.png", "train/masks/b.png")
    (tmp_path / "train/images/b.jpg").symlink_to("nowhere.jpg")

    with pytest.raises(schema.DataError, match="train/images/b.jpg cannot be read"):
        folder.FolderSource(str(tmp_path))


# The source


@pytest.fixture(name="root")
def _root(tmp_path):
    root = tmp_path / "animals"
    stems = "abcd"
    write(root, *(f"train/images/{stem}.jpg" for stem in stems))
    write(root, *(f"train/masks/{stem}.png" for stem in stems))
    write(root, "val/images/v.jpg", "val/masks/v.png")
    return root


def open_source(root, **kwargs):
    kwargs = {"split": "", "is_training": True, "image_size": (32, 32), **kwargs}
    request = registry.SplitRequest(data_dir=str(root), **kwargs)
    return registry.open_source("folder", request)


def test_source_gives_files_as_they_are(root):
    source = open_source(root)

    (example,) = read(source, 1, 2)

    assert len(source) == 4
    assert source.name == "animals/train"
    assert source.info is None
    assert example == {
        "image": (root / "train/images/b.jpg").read_bytes(),
        "label": (root / "train/masks/b.png").read_bytes(),
        "name": b"train/images/b.jpg",
        "label_name": b"train/masks/b.png",
    }


@pytest.mark.parametrize("start, stop", [(0, None), (0, 2), (2, 4), (3, 9), (4, 4)])
def test_slice_is_that_of_the_full_pass(root, start, stop):
    source = open_source(root)

    assert read(source, start, stop) == read(source)[start:stop]


def test_any_example_can_be_loaded_in_a_graph(root):
    source = open_source(root)
    load = tf.function(source.load)

    for id in (3, 0, 2):
        example = load(tf.constant(id, tf.int64))
        assert {k: v.numpy() for k, v in example.items()} == read(source)[id]
    ids = tf.data.Dataset.from_tensor_slices(tf.constant([2, 1], tf.int64))
    loaded = list(ids.map(source.load).as_numpy_iterator())
    assert loaded == [read(source)[2], read(source)[1]]


def test_roles_have_their_splits(root):
    assert open_source(root, is_training=False).name == "animals/val"
    assert open_source(root, split="val").name == "animals/val"


def test_arguments_reach_the_layout(tmp_path):
    write(tmp_path, *(f"photos/{s}.jpg" for s in "abcdefgh"))
    write(tmp_path, *(f"labels/{s}.png" for s in "abcdefgh"))
    patterns = {"image_pattern": "photos/*", "mask_pattern": "labels/*"}

    names = [
        {e["name"] for e in read(open_source(tmp_path, **patterns, **kwargs))}
        for kwargs in (
            {"train_fraction": 0.5},
            {"train_fraction": 0.5, "is_training": False},
            {"train_fraction": 0.5, "seed": 1},
        )
    ]

    assert len(names[0] | names[1]) == 8
    assert not names[0] & names[1]
    assert names[0] != names[2]


def test_store_holds_what_the_files_hold(root):
    examples = store.open_store(
        open_source(root), preprocessing.Preprocessor((32, 48), 3)
    )

    assert examples.names == tuple(f"train/images/{stem}.jpg" for stem in "abcd")
    for index, stem in enumerate("abcd"):
        encoded = (root / f"train/images/{stem}.jpg").read_bytes()
        np.testing.assert_array_equal(
            examples.images[index], tf.io.decode_image(encoded, channels=3)
        )
        np.testing.assert_array_equal(
            examples.labels[index], np.asarray(make_mask(ord(stem)))
        )


def test_bad_file_is_named_with_its_mask(root):
    make_image(0).save(root / "train/masks/c.png")

    with pytest.raises(
        schema.DataError,
        match=r"^animals/train, example 2 \(train/images/c.jpg, train/masks/c.png\): "
        "the mask: its 1536 colours are those of a photo",
    ):
        store.open_store(open_source(root), PREPROCESSOR)


@pytest.mark.parametrize("path", ["images/b.jpg", "masks/b.png"])
def test_damaged_file_is_told(root, path):
    encoded = (root / "train" / path).read_bytes()
    (root / "train" / path).write_bytes(encoded[:-30])

    with pytest.raises(
        schema.DataError,
        match=rf"example 1 \(.*\): the {path[:5].rstrip('s/')}.?: it cannot be decoded",
    ):
        store.open_store(open_source(root), PREPROCESSOR)


def test_file_that_went_away_is_named(root):
    source = open_source(root)
    (root / "train/images/b.jpg").unlink()

    with pytest.raises(
        schema.DataError,
        match=r"^animals/train, example 1: it cannot be read \(/.*images/b.jpg; No",
    ):
        store.open_store(source, PREPROCESSOR)


def test_start_reads_no_file(root):
    for path in root.rglob("*.*"):
        path.write_bytes(b"no image")

    assert len(open_source(root)) == 4


# Fingerprints


def test_fingerprint_is_the_same_wherever_the_folder_lies(root, tmp_path):
    before = open_source(root).fingerprint
    root.rename(tmp_path / "moved")

    assert open_source(tmp_path / "moved").fingerprint == before


def _touch(root):
    status = (root / "train/images/a.jpg").stat()
    os.utime(root / "train/images/a.jpg", (status.st_atime, status.st_mtime + 2))


def _grow(root):
    path = root / "train/masks/b.png"
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _add(root):
    write(root, "train/images/e.jpg", "train/masks/e.png")


def _take_away(root):
    (root / "train/images/d.jpg").unlink()
    (root / "train/masks/d.png").unlink()


def _rename(root):
    (root / "train/images/d.jpg").rename(root / "train/images/e.jpg")
    (root / "train/masks/d.png").rename(root / "train/masks/e.png")


@pytest.mark.parametrize("change", [_touch, _grow, _add, _take_away, _rename])
def test_fingerprint_changes_with_the_files(root, change):
    before = [open_source(root).fingerprint, open_source(root, split="val").fingerprint]
    change(root)

    assert open_source(root).fingerprint != before[0]
    assert open_source(root, split="val").fingerprint == before[1]


def test_changed_folder_is_decoded_again(root, tmp_path):
    def open_on_disk():
        return store.open_store(
            open_source(root), PREPROCESSOR, cache="disk", cache_dir=str(tmp_path / "c")
        )

    first = open_on_disk()
    make_mask(77).save(root / "train/masks/a.png")
    _touch(root)
    second = open_on_disk()

    assert first.fingerprint != second.fingerprint
    assert (first.labels[0] != second.labels[0]).any()
    np.testing.assert_array_equal(first.labels[1:], second.labels[1:])


# Real data


@helpers.needs_pets
def test_pets_as_files_give_the_bits_of_pets_through_tfds(tmp_path):
    source = tfds.TfdsSource(
        "oxford_iiit_pet", "train[:24]", data_dir=str(helpers.SHARED / "tfds")
    )
    for example in source.examples().as_numpy_iterator():
        stem = pathlib.Path(example["name"].decode()).stem
        for path, key in (("images/{}.jpg", "image"), ("masks/{}.png", "label")):
            whole = tmp_path / "train" / path.format(stem)
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_bytes(example[key])
    preprocessor = preprocessing.Preprocessor((64, 64), 3, label_offset=-1)

    there = store.open_store(source, preprocessor)
    here = store.open_store(open_source(tmp_path), preprocessor)

    order = np.argsort([pathlib.Path(name).stem for name in there.names])
    assert [pathlib.Path(name).name for name in here.names] == [
        there.names[index] for index in order
    ]
    np.testing.assert_array_equal(here.images, there.images[order])
    np.testing.assert_array_equal(here.labels, there.labels[order])
