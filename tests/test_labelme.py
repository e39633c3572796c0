"""LabelMe's JSON files, one for each image, become masks."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from data import schema
from data.sources import labelme, layouts, outlines, registry


def make_shape(label, points, kind="polygon", **others):
    return {"label": label, "points": points, "shape_type": kind, **others}


SQUARE = make_shape("cat", [[1, 1], [4, 1], [4, 4], [1, 4]])


def _damage_png():
    """Returns a mask that says of its pixels that they take less than they do."""
    content = io.BytesIO()
    Image.fromarray(np.ones((2, 2), np.uint8)).save(content, "PNG")
    damaged = bytearray(content.getvalue())
    damaged[damaged.index(b"IDAT") - 1] = 2
    return base64.b64encode(damaged).decode()


_DAMAGED = _damage_png()


def write(root, path, shapes, *, image=None, size=(6, 8), **others):
    """Writes an image, by default beside the file, and the file."""
    image = image or path.replace(".json", ".png")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 9, np.uint8)).save(root / image)
    content = {
        "shapes": shapes, "imagePath": image.split("/")[-1], "imageData": "AAAA",
        "imageHeight": size[0], "imageWidth": size[1], **others,
    }  # fmt: skip
    (root / path).write_text(json.dumps(content))


def open_all(root):
    return labelme.LabelMeSource(str(root), "all")


def test_objects_are_drawn_in_their_order(tmp_path):
    text = io.BytesIO()
    Image.fromarray(np.uint8([[255, 0], [255, 255]])).save(text, "PNG")
    write(
        tmp_path,
        "a.json",
        [
            make_shape("dog", [[0, 0], [7, 5]], "rectangle"),
            SQUARE,
            make_shape("_background_", [[2, 2], [3, 3]], "rectangle"),
            make_shape("__ignore__", [[7, 5], [8, 6]], "rectangle"),
            make_shape(
                "cat", [[5, 0], [6, 1]], "mask",
                mask=base64.b64encode(text.getvalue()).decode(),
            ),
        ],
    )  # fmt: skip

    source = open_all(tmp_path)

    expected = np.zeros((6, 8), int)
    expected[:5, :7] = 2
    expected[1:4, 1:4] = 1
    expected[2, 2] = 0
    expected[5, 7] = 255
    expected[0, 5] = expected[1, 5:7] = 1
    assert source.info.class_names == ("background", "cat", "dog")
    (example,) = source.examples().as_numpy_iterator()
    np.testing.assert_array_equal(example["label"], expected)
    assert (example["name"], example["label_name"]) == (b"a.png", b"a.json")


def test_a_circle_is_round(tmp_path):
    write(
        tmp_path, "a.json", [make_shape("x", [[20, 20], [20, 30]], "circle")],
        size=(40, 40),
    )  # fmt: skip

    label = open_all(tmp_path).draw_label(0)

    rows, columns = np.indices(label.shape) + 0.5
    distance = np.hypot(rows - 20, columns - 20)
    assert label[distance < 9.9].all() and not label[distance > 10].any()


@pytest.mark.parametrize("seed", range(4))
def test_runs_of_a_mask_make_the_mask(seed):
    mask = np.random.default_rng(seed).random((7, 5)) < seed / 3

    counts = outlines.count_runs(mask)

    np.testing.assert_array_equal(outlines.draw([(1, counts)], mask.shape), mask)


def test_images_are_found_beside_or_by_their_path_or_by_the_name_of_the_file(tmp_path):
    write(
        tmp_path, "json/a.json", [], image="photos/a.png", imagePath="..\\photos\\a.png"
    )
    write(tmp_path, "b.json", [SQUARE], imagePath="C:\\old\\name.jpg")
    write(tmp_path, "c.json", [], imageHeight=None, imageWidth=None)

    source = open_all(tmp_path)

    assert source.names == ("b.png", "c.png", "photos/a.png")
    assert source.draw_label(1).shape == (6, 8)


def test_a_size_that_is_not_written_is_that_of_the_photo_as_it_is_shown(tmp_path):
    """Its outline lies below what is stored as the last row."""
    low = make_shape("cat", [[1, 6], [3, 6], [3, 8], [1, 8]])
    write(tmp_path, "a.json", [low], imageHeight=None)
    turned = Image.open(tmp_path / "a.png")  # 6 rows of 8 pixels, shown as 8 of 6.
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)

    label = open_all(tmp_path).draw_label(0)

    assert label.shape == (8, 6)
    assert np.argwhere(label).tolist() == [[6, 1], [6, 2], [7, 1], [7, 2]]


def test_a_damaged_photo_whose_size_is_not_written_is_named_and_told_to_the_doctor(
    tmp_path,
):
    write(tmp_path, "a.json", [SQUARE], imageHeight=None)
    write(tmp_path, "b.json", [SQUARE])
    (tmp_path / "a.png").write_bytes(b"no image")

    with pytest.raises(
        schema.DataError, match=r"1 image of the JSON files .*: a\.png \(it is no JPEG"
    ):
        open_all(tmp_path)
    source = labelme.LabelMeSource(str(tmp_path), "all", allow_problems=True)
    assert source.names == ("b.png",)
    assert [problem.kind for problem in source.problems] == ["unreadable_file"]


@pytest.mark.parametrize(
    ("split", "left"),
    [
        ("train", "2 images have no JSON file of LabelMe, and are left out: test/c."),
        ("val", "1 image has no JSON file of LabelMe, and is left out: test/c.png;"),
        ("all", "2 images have no JSON file of LabelMe, and are left out: test/c."),
    ],
)
def test_images_without_a_file_are_left_out_with_a_warning(
    tmp_path, caplog, split, left
):
    for path in ("train/a.json", "train/b.json", "val/a.json", "test/c.json"):
        write(tmp_path, path, [SQUARE])
    for path in ("train/b.json", "test/c.json"):
        (tmp_path / path).unlink()

    source = labelme.LabelMeSource(str(tmp_path), split)

    assert len(source) == 1 + (split == "all")
    assert left in caplog.text


def test_all_images_have_a_file(tmp_path, caplog):
    for path in ("train/a.json", "val/a.json"):
        write(tmp_path, path, [SQUARE])

    open_all(tmp_path)
    labelme.LabelMeSource(str(tmp_path), "val")

    assert "left out" not in caplog.text


def test_folders_are_splits_and_have_the_classes_of_all(tmp_path):
    write(tmp_path, "train/a.json", [SQUARE])
    write(tmp_path, "val/b.json", [{**SQUARE, "label": "ant"}])

    train = labelme.LabelMeSource(str(tmp_path))
    evaluation = labelme.LabelMeSource(str(tmp_path), is_training=False)

    assert (train.names, evaluation.names) == (("train/a.png",), ("val/b.png",))
    assert train.info == evaluation.info
    assert train.info.class_names == ("background", "ant", "cat")
    (tmp_path / "val/b.json").unlink()
    alone = labelme.LabelMeSource(str(tmp_path))
    assert alone.draw_label(0).max() == 1 and train.draw_label(0).max() == 2
    assert alone.fingerprint != train.fingerprint  # What is cached holds numbers.


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"shapes": [{**SQUARE, "points": [1, 2]}]},
            "(a polygon has points that are",
        ),
        (
            {"shapes": [{**SQUARE, "points": [[None, 1], [4, 1], [4, 4]]}]},
            "a.json is not as LabelMe has it (an outline has a coordinate that is no ",
        ),
        (
            {"shapes": [{"label": "x"}]},
            "a.json is not as LabelMe has it (no 'points')",
        ),
        ({"shapes": ["x"]}, "a.json is not as LabelMe has it ("),
        (
            {"shapes": [make_shape("x", [[1, 2]], "circle")]},
            "(a circle has 1 points, not two)",
        ),
        (
            {"shapes": [make_shape("x", [[1, 2]], "point")]},
            "1 object of the JSON files without an inside: a.json: x, a point; draw",
        ),
        (
            {"shapes": [make_shape("x", [[1, 2], [3, 4]], "mask", mask="AAAA")]},
            "a.json is not as LabelMe has it (a mask: it is no JPEG, PNG",
        ),
        (
            {"shapes": [make_shape("x", [[1, 2], [3, 4]], "mask", mask=_DAMAGED)]},
            "a.json is not as LabelMe has it (a mask: it cannot be decoded (broken PNG",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, change, message):
    write(tmp_path, "a.json", **{"shapes": [], **change})

    with pytest.raises(schema.DataError) as caught:
        open_all(tmp_path)

    assert message in str(caught.value)


def test_what_is_not_there_is_named(tmp_path):
    write(tmp_path, "a.json", [SQUARE])
    (tmp_path / "a.png").unlink()
    with pytest.raises(schema.DataError, match="1 image of the JSON files not there"):
        open_all(tmp_path)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(
        schema.DataError, match="^a.json in --data_dir=.* cannot be read"
    ):
        open_all(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(schema.DataError, match="holds no JSON file of LabelMe; name"):
        open_all(tmp_path)


def test_it_is_proposed_and_opened_and_divided(tmp_path):
    for index in range(9):
        write(tmp_path, f"{index}.json", [SQUARE])
    with pytest.raises(schema.DataError, match="say --dataset=labelme, which draws"):
        layouts.find_split(str(tmp_path))

    sides = [
        registry.open_source(
            "labelme",
            registry.SplitRequest(
                split="", is_training=is_training, image_size=(8, 8),
                data_dir=str(tmp_path), train_fraction=0.5,
            ),
        )
        for is_training in (True, False)
    ]  # fmt: skip

    assert len(sides[0]) + len(sides[1]) == 9 and min(map(len, sides)) > 0
