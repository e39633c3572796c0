"""COCO's JSON files: outlines and runs become masks, and what is wrong is named."""

import json

import numpy as np
import pytest
from PIL import Image

from data import schema
from data.sources import coco, coco_files, layouts, outlines, registry

SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def pack(counts) -> str:
    """Packs runs as COCO's own tools do."""
    text = ""
    for index, number in enumerate(counts):
        number = int(number - (counts[index - 2] if index > 2 else 0))
        is_more = True
        while is_more:
            bits, number = number & 31, number >> 5
            is_more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * is_more)
    return text


def count_runs(mask) -> list[int]:
    flat = np.concatenate([[False], mask.T.ravel()])
    places = np.flatnonzero(np.diff(flat)) if flat.any() else []
    return np.diff(np.concatenate([[0], places, [mask.size]])).astype(int).tolist()


def annotate(image_id, category_id, segmentation, **others):
    return {
        "id": 1, "image_id": image_id, "category_id": category_id,
        "segmentation": segmentation, **others,
    }  # fmt: skip


def write(root, path, names, annotations, categories=CATEGORIES, size=(6, 8)):
    """Writes images that are not there yet, and a JSON file."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 9, np.uint8)).save(file)
    images = [
        {"id": i, "file_name": name.split("/")[-1], "height": size[0], "width": size[1]}
        for i, name in enumerate(names)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps(content))


def draw(shape, size):
    """Returns the pixels of one outline or of runs, bool [height, width]."""
    shape = shape if shape.dtype.kind == "i" else [shape]
    return outlines.draw([(1, shape)], size).astype(bool)


def is_inside(outline, size):
    """Counts, for the middle of each pixel, the edges to its left."""
    x, y = np.reshape(outline, (-1, 2)).T
    mask = np.zeros(size, bool)
    for row, column in np.ndindex(*size):
        for i in range(len(x)):
            ends = (y[i - 1], y[i])
            if min(ends) <= row + 0.5 < max(ends):
                share = (row + 0.5 - ends[0]) / (ends[1] - ends[0])
                if x[i - 1] + share * (x[i] - x[i - 1]) <= column + 0.5:
                    mask[row, column] ^= True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_pixels_are_filled_whose_middles_lie_inside(seed):
    random = np.random.default_rng(seed)
    outline = random.uniform(-4, 16, 2 * random.integers(3, 9))
    if seed % 2:
        outline = outline.round() + 0.5  # Corners and edges on middles.

    filled = draw(outline, (11, 13))

    np.testing.assert_array_equal(filled, is_inside(outline, (11, 13)))


def test_a_square_has_its_own_area():
    filled = draw(np.array(SQUARE, float), (6, 8))

    assert filled.sum() == 9 and filled[1:4, 1:4].all()
    assert not draw(np.array([1.0, 1, 4, 4]), (6, 8)).any()
    assert not draw(np.array([1.0, -9, 4, -9, 4, -8]), (6, 8)).any()


@pytest.mark.parametrize("is_runs", [False, True])
def test_only_the_box_of_an_object_is_filled(is_runs):
    """To fill all of a large photo takes longer than to decode it, for each object."""
    size = (6, 8)
    if is_runs:
        filled = outlines.fill_runs(np.array([2 * 6 + 1, 3, 3, 3, 26]), size)
        assert filled.columns == slice(2, 4)
    else:
        filled = outlines.fill_outline(np.array([2, 1, 4.0, 1, 4, 4, 2, 4]), size)
        assert (filled.rows, filled.columns) == (slice(1, 4), slice(2, 4))

    label = np.zeros(size, int)
    label[filled.rows, filled.columns][filled.mask] = 1
    assert label.sum() == 6 and label[1:4, 2:4].all()


def test_runs_go_down_the_columns():
    mask = np.random.default_rng(0).random((40, 50)) < 0.1
    mask[:, 7:30] = True  # A run of more than a thousand.
    counts = count_runs(mask)

    np.testing.assert_array_equal(draw(np.array(counts), mask.shape), mask)
    np.testing.assert_array_equal(outlines.unpack_runs(pack(counts)), counts)
    assert outlines.unpack_runs("52203").tolist() == [5, 2, 2, 2, 5]  # Worked by hand.
    with pytest.raises(ValueError, match="end within a number"):
        outlines.unpack_runs("P")


def test_objects_are_drawn_the_small_ones_last(tmp_path):
    """As outlines, runs and packed runs; ids of classes may be any."""
    mask = np.zeros((6, 8), bool)
    mask[2:, 2:5] = True
    runs = count_runs(mask)
    for name, segmentation in {
        "a": [[0, 0, 2, 0, 2, 2, 0, 2], [2, 2, 5, 2, 5, 6, 2, 6]],
        "b": {"size": [6, 8], "counts": runs},
        "c": {"size": [6, 8], "counts": pack(runs)},
    }.items():
        annotations = [
            annotate(0, 7, [[3, 3, 4, 3, 4, 4, 3, 4]], area=1),
            annotate(0, 3, segmentation, area=16, iscrowd=int(name != "a")),
        ]
        write(tmp_path / name, "result.json", ["images/x.png"], annotations)

        source = coco.CocoSource(str(tmp_path / name), "all")

        expected = mask.astype(np.uint16)
        expected[:2, :2] = name == "a"
        expected[3, 3] = 2
        assert source.info.class_names == ("background", "cat", "dog")
        (example,) = source.examples().as_numpy_iterator()
        np.testing.assert_array_equal(example["label"], expected)
        assert example["label"].dtype == np.uint16
        assert example["name"] == b"images/x.png"
        assert example["label_name"] == b"result.json"
        assert Image.open(tmp_path / name / "images/x.png").size == (8, 6)


@pytest.mark.parametrize(
    "areas",
    [
        (9, 36),
        (None, None),
        (0, 0),
        (9, None),
        (None, 36),
        (float("nan"), float("nan")),
    ],
)
def test_areas_that_are_not_written_are_measured(tmp_path, areas):
    """As an outline and as runs; the small one comes first in the file."""
    large = np.zeros((6, 8), bool)
    large[:, 1:7] = True
    runs = {"size": [6, 8], "counts": count_runs(large)}
    for name, segmentation in {
        "a": [[1, 0, 7, 0, 7, 6, 1, 6]],
        "b": runs,
    }.items():
        annotations = [annotate(0, 7, [SQUARE]), annotate(0, 3, segmentation)]
        for annotation, area in zip(annotations, areas, strict=True):
            annotation.pop("area", None)
            if area is not None:
                annotation["area"] = area
        write(tmp_path / name, "result.json", ["x.png"], annotations)

        (example,) = coco.CocoSource(str(tmp_path / name), "all").examples()

        assert np.bincount(example["label"].numpy().flat).tolist() == [12, 27, 9]


def test_other_json_files_do_not_hide_those_of_coco(tmp_path):
    write(tmp_path, "train.json", ["x.png"], [])
    for number in range(coco_files._MOST_FILES):
        (tmp_path / f"{number}.json").write_text("{}")

    assert len(coco.CocoSource(str(tmp_path), "all")) == 1
    assert coco_files.find(str(tmp_path)) == []  # Where it would be a guess.


def test_splits_are_those_of_the_files(tmp_path):
    background = [{"id": 0, "name": "_background_"}, *CATEGORIES[:1]]
    write(tmp_path, "train/_annotations.coco.json", ["train/a.png"], [], background)
    write(tmp_path, "valid/_annotations.coco.json", ["valid/a.png", "valid/b.png"], [])

    train = coco.CocoSource(str(tmp_path))
    evaluation = coco.CocoSource(str(tmp_path), is_training=False)

    assert train.names == ("train/a.png",)
    assert evaluation.names == ("valid/a.png", "valid/b.png")
    assert (train.name, evaluation.name) == (
        f"{tmp_path.name}/train", f"{tmp_path.name}/valid"
    )  # fmt: skip
    # Ids of all files, so that both splits have the same classes.
    assert train.info == evaluation.info
    assert train.info.class_names == ("background", "cat", "dog")
    assert len(coco.CocoSource(str(tmp_path), "all")) == 3
    assert train.fingerprint != evaluation.fingerprint
    with pytest.raises(schema.DataError, match="no JSON file of a split test; it has "):
        coco.CocoSource(str(tmp_path), "test")
    with pytest.raises(schema.DataError, match="train_fraction=0.5: the JSON files of"):
        coco.CocoSource(str(tmp_path), train_fraction=0.5)


def test_instances_count_and_images_lie_in_folders_of_their_split(tmp_path):
    names = [f"images/train/{i}.png" for i in range(3)]
    write(tmp_path, "annotations/captions_train2017.json", names, [])
    write(tmp_path, "annotations/instances_train2017.json", names, [])
    write(tmp_path, "annotations/instances_val2017.json", ["images/val/1.png"], [])

    assert coco.CocoSource(str(tmp_path)).names == tuple(names)


@pytest.mark.parametrize(
    "folder, train, val, file, names",
    [
        # images/val was not copied: both files mean a photo of their own.
        ("images/train", ["0", "1"], ["0"], "val", None),
        ("images/train", ["0", "1"], ["0"], "train", ["0", "1"]),
        ("images/val", ["0"], ["0", "1"], "train", None),
        # All photos lie in one folder, whatever it is called.
        ("images/train", ["0", "1"], ["2"], "val", ["2"]),
        ("images/trainval", ["0", "1"], ["0"], "val", ["0"]),
        ("images/validation", ["1"], ["0"], "val", ["0"]),
        ("photos", ["0", "1"], ["0"], "val", ["0"]),
    ],
)
def test_a_photo_of_another_split_that_names_it_too_is_not_meant(
    tmp_path, folder, train, val, file, names
):
    for split, stems in (("train", train), ("val", val)):
        paths = [f"{folder}/{stem}.png" for stem in stems]
        write(tmp_path, f"annotations/{split}.json", paths, [])

    source = coco.CocoSource(
        str(tmp_path), file, is_training=file == "train", allow_problems=True
    )

    if names is None:
        (problem,) = source.problems
        assert (problem.kind, problem.files[0]) == ("not_there", "0.png")
        assert f"{folder}/0.png" not in source.names
    else:
        assert source.problems == ()
        assert source.names == tuple(f"{folder}/{name}.png" for name in names)


def test_a_file_may_name_a_photo_in_the_folder_of_another_split(tmp_path):
    for split in ("train", "val"):
        write(tmp_path, f"{split}.json", ["images/train/0.png"], [])
        content = (tmp_path / f"{split}.json").read_text()
        (tmp_path / f"{split}.json").write_text(content.replace('"0.p', '"train/0.p'))

    source = coco.CocoSource(str(tmp_path), "val", is_training=False)

    assert source.names == ("images/train/0.png",)


def test_images_beside_their_file_are_meant_before_others_of_the_name(tmp_path):
    for task, category in (("one", 3), ("two", 7)):
        write(
            tmp_path,
            f"{task}/x.json",
            [f"{task}/a.png"],
            [annotate(0, category, [SQUARE])],
        )

    source = coco.CocoSource(str(tmp_path), "all")

    assert source.names == ("one/a.png", "two/a.png")
    assert [source.draw_label(i)[2, 2] for i in range(2)] == [1, 2]


def test_one_file_is_divided(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    write(tmp_path, "x.json", names, [])
    with pytest.raises(schema.DataError, match="give --train_fraction") as caught:
        coco.CocoSource(str(tmp_path))
    assert caught.value.kind == "undivided"

    sides = [
        coco.CocoSource(str(tmp_path), is_training=is_training, train_fraction=0.5)
        for is_training in (True, False)
    ]

    assert sorted(sides[0].names + sides[1].names) == sorted(names)
    assert 4 < len(sides[0]) < 16
    with pytest.raises(schema.DataError, match="1e-06 leaves none of the 20 examples"):
        coco.CocoSource(str(tmp_path), train_fraction=1e-6)


@pytest.mark.parametrize(
    "annotation, message",
    [
        (
            annotate(0, 3, []),
            "1 object of the JSON files without an outline: a.png",
        ),
        (
            annotate(0, 9, [SQUARE]),
            "x.json is not as COCO has it (no 9); write it",
        ),
        (annotate(0, 3, [[1, 2, 3]]), "(an outline is no list of x and y in turn)"),
        (
            annotate(0, 3, [[float("nan"), 1, 5, 1, 5, 5]]),
            "x.json is not as COCO has it (an outline has a coordinate that is no num",
        ),
        (annotate(0, 3, [[1e300, 1, 5, 1, 5, 5]]), "is no number, or that no image "),
        (annotate("0", 3, [SQUARE]), "(image_id '0' and the id of an image are text a"),
        (annotate(0, 3, {"counts": [5, 6]}), "(runs of 11 pixels in an image of 6x8)"),
        (annotate(0, 3, {"counts": "~"}), "'~' is no character of packed runs"),
        ("text", "x.json is not as COCO has it ("),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, annotation, message):
    write(tmp_path, "x.json", ["a.png"], [annotation])

    with pytest.raises(schema.DataError) as caught:
        coco.CocoSource(str(tmp_path), "all")

    assert message in str(caught.value)


def test_annotations_of_images_that_the_file_does_not_name_are_warned_of(
    tmp_path, caplog
):
    """As where a part of the images was taken, and all of the annotations."""
    strays = [annotate(image_id, 3, [SQUARE]) for image_id in (5, 7, 5)]
    write(tmp_path, "x.json", ["a.png"], [annotate(0, 3, [SQUARE]), *strays])

    source = coco.CocoSource(str(tmp_path), "all")

    assert source.draw_label(0).sum() == 9
    assert (
        "x.json: 3 annotations are of images that it does not name (image_id 5, 7), "
        "and are left out." in caplog.text
    )


def test_images_that_are_not_there_are_named_or_told_to_the_doctor(tmp_path):
    write(tmp_path, "x.json", ["a.png", "b.png"], [])
    (tmp_path / "b.png").unlink()

    with pytest.raises(schema.DataError, match="1 image of the JSON files in no fol"):
        coco.CocoSource(str(tmp_path), "all")
    source = coco.CocoSource(str(tmp_path), "all", allow_problems=True)
    assert source.names == ("a.png",)
    assert [problem.kind for problem in source.problems] == ["not_there"]


def test_folders_without_such_files_are_refused_and_those_with_them_known(
    tmp_path,
):
    (tmp_path / "a.json").write_text('{"shapes": []}')
    with pytest.raises(schema.DataError, match="no JSON file of COCO"):
        coco.CocoSource(str(tmp_path))
    write(tmp_path, "annotations/x.json", ["images/a.png"], [])
    with pytest.raises(schema.DataError, match="say --dataset=coco, which draws .*x"):
        layouts.find_split(str(tmp_path))


def test_a_damaged_file_is_named(tmp_path):
    write(tmp_path, "train.json", ["a.png"], [])
    (tmp_path / "val.json").write_bytes((tmp_path / "train.json").read_bytes()[:50])

    with pytest.raises(schema.DataError, match="^val.json in --data_dir=.* cannot be"):
        coco.CocoSource(str(tmp_path))


def test_registry_opens_it(tmp_path):
    write(tmp_path, "x.json", ["a.png", "b.png"], [annotate(0, 3, [SQUARE])])
    request = registry.SplitRequest(
        split="all", is_training=True, image_size=(8, 8), data_dir=str(tmp_path)
    )

    assert len(registry.open_source("coco", request)) == 2
