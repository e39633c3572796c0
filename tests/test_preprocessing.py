"""Tests of decoding, resizing and label mapping."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.preparing import preprocessing

RAMP = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)

TRIMAP = np.array(
    [
        [2, 2, 2, 2, 2, 2],
        [2, 3, 3, 3, 3, 2],
        [2, 3, 1, 1, 3, 2],
        [2, 3, 3, 3, 3, 2],
    ],
    np.uint8,
)


def make_example(image=RAMP, label=TRIMAP):
    return {"image": image, "label": label, "name": b"drawn"}


def make_preprocessor(image_size=(4, 6), num_classes=3, **kwargs):
    return preprocessing.Preprocessor(image_size, num_classes, **kwargs)


def run(preprocessor, example):
    """Preprocesses one example in a graph, as the store does."""
    dataset = tf.data.Dataset.from_tensors(example).map(preprocessor)
    return next(dataset.as_numpy_iterator())


def write_png(pixels, mode):
    """Encodes an array as a PNG of a given kind."""
    if mode == "P":
        image = Image.fromarray(pixels, "L").convert("P")
        image.putdata(pixels.ravel().tolist())
    elif mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16))
    else:
        image = Image.fromarray(pixels, "L").convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def make_triangle_weights(size, new_size):
    """Makes the matrix of antialiased linear interpolation, pixel by pixel."""
    scale = size / new_size
    width = max(scale, 1)
    weights = np.zeros((new_size, size))
    for new in range(new_size):
        center = (new + 0.5) * scale
        for old in range(size):
            weights[new, old] = max(0, 1 - abs(old + 0.5 - center) / width)
    return weights / weights.sum(1, keepdims=True)


def test_pixels_of_the_right_size_pass_unchanged():
    result = run(make_preprocessor(label_offset=-1), make_example())

    np.testing.assert_array_equal(result["image"], RAMP)
    np.testing.assert_array_equal(result["label"], TRIMAP - 1)
    assert result["problem"] == 0


def test_name_is_kept():
    result = run(make_preprocessor(label_offset=-1), make_example())

    assert result["name"] == b"drawn"


def test_png_files_give_the_same_as_their_pixels():
    preprocessor = make_preprocessor((3, 5), label_offset=-1)
    encoded = make_example(
        tf.io.encode_png(RAMP).numpy(), tf.io.encode_png(TRIMAP[..., None]).numpy()
    )

    expected = run(preprocessor, make_example())
    result = run(preprocessor, encoded)

    assert result["problem"] == 0
    np.testing.assert_array_equal(result["image"], expected["image"])
    np.testing.assert_array_equal(result["label"], expected["label"])


def test_gray_image_file_gets_three_equal_channels():
    gray = np.repeat(RAMP[..., :1], 3, axis=-1)
    example = make_example(tf.io.encode_png(RAMP[..., :1]).numpy(), TRIMAP)

    result = run(make_preprocessor(label_offset=-1), example)

    np.testing.assert_array_equal(result["image"], gray)


def test_offset_is_added_to_each_mask_value():
    label = np.array([[10, 11], [12, 10]], np.uint8)
    preprocessor = make_preprocessor((2, 2), label_offset=-10)

    result = run(preprocessor, make_example(RAMP[:2, :2], label))

    np.testing.assert_array_equal(result["label"], [[0, 1], [2, 0]])


@pytest.mark.parametrize(
    "ignore_label, expected",
    [
        (3, [[1, 1, 1], [255, 0, 255]]),  # Would be class 2.
        (2, [[255, 255, 255], [2, 0, 2]]),
        (255, [[1, 1, 1], [2, 0, 2]]),
    ],
)
def test_ignored_value_is_that_of_the_raw_mask(ignore_label, expected):
    label = np.array([[2, 2, 2], [3, 1, 3]], np.uint8)
    preprocessor = make_preprocessor((2, 3), label_offset=-1, ignore_label=ignore_label)

    result = run(preprocessor, make_example(RAMP[:2, :3], label))

    assert result["problem"] == 0
    np.testing.assert_array_equal(result["label"], expected)


def test_ignored_value_need_not_be_a_class_after_the_offset():
    label = np.array([[0, 1], [2, 3]], np.uint8)
    preprocessor = make_preprocessor((2, 2), label_offset=-1, ignore_label=0)

    result = run(preprocessor, make_example(RAMP[:2, :2], label))

    assert result["problem"] == 0
    np.testing.assert_array_equal(result["label"], [[255, 0], [1, 2]])


@pytest.mark.parametrize(
    "value, offset", [(3, 0), (0, -1), (4, -1), (254, 0), (255, 1)]
)
def test_value_that_is_no_class_is_a_problem(value, offset):
    """0 - 1 and 254 + 1 would both look like the ignored label in uint8."""
    label = np.array([[1, 1], [1, value]], np.uint8)
    preprocessor = make_preprocessor((2, 2), label_offset=offset, ignore_label=77)

    result = run(preprocessor, make_example(RAMP[:2, :2], label))

    assert result["problem"] != 0


def test_bad_value_is_found_even_where_resizing_drops_it():
    label = np.ones((4, 4), np.uint8)
    label[0, 0] = 9  # Nearest-neighbour to 1x1 takes pixel (2, 2).

    result = run(make_preprocessor((1, 1)), make_example(RAMP[:, :4], label))

    assert result["problem"] != 0


def test_bad_values_are_explained_with_flags_and_where_the_remedy_is():
    """Not with a remedy: the values of one mask do not tell what suits the others."""
    reason = make_preprocessor().explain(make_example())

    assert (reason.kind, str(reason)) == (
        "values_out_of_range",
        "the mask holds the values 1, 2, 3; with --label_offset=0 and "
        "--ignore_label=255 they must give classes 0 to 2 (--num_classes=3); "
        "--mode=doctor looks at all masks, and says what mends them",
    )


def test_suggested_offset_does_not_count_the_ignored_value():
    preprocessor = make_preprocessor((2, 2), ignore_label=0)

    diagnosis = preprocessor.diagnose({0: 1, 5: 1, 6: 1, 7: 1})

    assert diagnosis.remedy == "did you mean --label_offset=-5 (0 stays ignored)?"


def test_no_offset_is_suggested_where_none_would_do():
    diagnosis = make_preprocessor((2, 2)).diagnose({0: 3, 7: 1})

    assert "did you mean" not in diagnosis.remedy
    assert diagnosis.remedy.endswith("a row `value,name` for each")


def test_long_lists_of_bad_values_are_cut():
    label = np.arange(400, dtype=np.uint16).reshape(20, 20)
    image = np.zeros((20, 20, 3), np.uint8)

    reason = make_preprocessor().explain(make_example(image, label))

    assert "the values 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 388 more up to 399;" in (
        str(reason)
    )


def test_nothing_is_said_of_a_good_example():
    assert make_preprocessor(label_offset=-1).explain(make_example()) is None


def test_label_map_replaces_the_offset_and_goes_before_the_ignored_value():
    label = np.array([[0, 1], [700, 255]], np.uint16)
    preprocessor = make_preprocessor(
        (2, 2), 2, label_offset=9, ignore_label=1, label_map=((0, 1), (255, 0), (1, 0))
    )

    result = run(
        dataclasses.replace(preprocessor, label_map=((0, 1), (255, 0), (700, 255))),
        make_example(RAMP[:2, :2], label),
    )

    assert result["problem"] == 0
    np.testing.assert_array_equal(result["label"], [[1, 255], [255, 0]])
    assert str(preprocessor.explain(make_example(RAMP[:2, :2], label))).startswith(
        "the mask holds the values 0, 1, 255, 700, of which --label_map does not list "
        "700; "
    )


def test_mask_file_of_another_size_is_a_problem_too():
    preprocessor = make_preprocessor(label_offset=-1)
    example = make_example(write_png(TRIMAP, "L"), write_png(TRIMAP[:3], "L"))

    assert run(preprocessor, example)["problem"] != 0
    assert "the image has 4x6 pixels, its mask 3x6" in str(
        preprocessor.explain(example)
    )


def test_image_and_mask_of_different_sizes_are_explained():
    preprocessor = make_preprocessor(label_offset=-1)
    example = make_example(RAMP, TRIMAP[:3])

    assert run(preprocessor, example)["problem"] != 0
    assert str(preprocessor.explain(example)) == (
        "the image has 4x6 pixels, its mask 3x6; the two must agree"
    )


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "LA"])
def test_mask_png_of_any_kind_keeps_its_values(mode):
    example = make_example(label=write_png(TRIMAP, mode))

    result = run(make_preprocessor(label_offset=-1), example)

    assert result["problem"] == 0
    np.testing.assert_array_equal(result["label"], TRIMAP - 1)


def test_image_png_with_a_palette_is_taken():
    """Only masks hold numbers; an image may come in any kind of file."""
    example = make_example(write_png(TRIMAP, "P"))

    assert run(make_preprocessor(label_offset=-1), example)["problem"] == 0


def test_mask_takes_the_nearest_pixel():
    """New pixel i covers old pixels 2i and 2i + 1; of the two, the later is taken."""
    label = np.array([[0, 1, 1, 0], [2, 0, 1, 2], [0, 0, 1, 1], [2, 1, 0, 2]], np.uint8)

    result = run(make_preprocessor((2, 2)), make_example(RAMP[:, :4], label))

    np.testing.assert_array_equal(result["label"], [[0, 2], [1, 2]])


@pytest.mark.parametrize("image_size", [(3, 5), (7, 11), (2, 13)])
def test_resizing_invents_no_label(image_size):
    """Between 0 and 2, or 2 and 255, there is a lot to invent."""
    label = np.array([0, 2, 255], np.uint8)[TRIMAP - 1]

    result = run(make_preprocessor(image_size), make_example(label=label))

    assert result["label"].shape == image_size
    assert set(np.unique(result["label"])) <= {0, 2, 255}


def test_halving_an_image_weighs_four_pixels():
    """A triangle of twice the width: 1/8, 3/8, 3/8, 1/8; at the rim 3/7, 3/7, 1/7.

    (3 * 0 + 3 * 8 + 16) / 7 = 5.7; (8 + 3 * 16 + 3 * 24 + 160) / 8 = 36;
    (24 + 3 * 160 + 3 * 160 + 160) / 8 = 143. Without antialiasing: 4, 20, 160, 160.
    """
    row = np.array([0, 8, 16, 24, 160, 160, 160, 160], np.uint8)
    image = np.tile(row[:, None], (2, 1, 3))  # [2, 8, 3]
    example = make_example(image, np.zeros((2, 8), np.uint8))

    result = run(make_preprocessor((2, 4)), example)

    expected = np.tile(np.array([6, 36, 143, 160])[:, None], (2, 1, 3))
    np.testing.assert_array_equal(result["image"], expected)


@pytest.mark.parametrize("image_size", [(5, 8), (20, 30), (13, 8), (24, 6)])
def test_resized_image_is_the_rounded_triangle_mean(image_size):
    image = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    down = make_triangle_weights(13, image_size[0])
    across = make_triangle_weights(17, image_size[1])
    expected = np.einsum("ah,hwc,bw->abc", down, image, across)

    example = make_example(image, np.zeros((13, 17), np.uint8))
    result = run(make_preprocessor(image_size), example)

    assert np.abs(result["image"] - expected).max() < 0.501
