"""Pictures: the right pixels, in the right colours, in the right place."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import pictures

_PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0))
_GRAY = (128, 128, 128)
_WHITE = (255, 255, 255)


def test_colorize_paints_each_class_in_its_colour():
    painted = pictures.colorize(np.array([[0, 1], [2, 1]], np.uint8), _PALETTE)
    expected = [[(0, 0, 0), (128, 0, 0)], [(0, 128, 0), (128, 0, 0)]]
    np.testing.assert_array_equal(painted, expected)


@pytest.mark.parametrize("label", [255, 3])
def test_colorize_paints_what_is_no_class_gray(label):
    painted = pictures.colorize(np.array([[label, 1]], np.uint8), _PALETTE)
    np.testing.assert_array_equal(painted, [[_GRAY, (128, 0, 0)]])


def test_colorize_keeps_the_ignored_label_gray_in_a_full_palette():
    palette = [(i, 0, 0) for i in range(256)]
    painted = pictures.colorize(np.array([254, 255], np.uint8), palette)
    np.testing.assert_array_equal(painted, [(254, 0, 0), _GRAY])


def _examples(height: int, width: int, num_examples: int = 2):
    """Draws ramps of photos, and maps of which no two are the same."""
    ramp = np.arange(num_examples * height * width * 3) % 251
    images = ramp.reshape(num_examples, height, width, 3).astype(np.uint8)
    labels = (np.arange(num_examples * height * width) // 3 % 3).astype(np.uint8)
    labels = labels.reshape(num_examples, height, width)
    return images, labels, (labels + 1) % 3


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        # 192 / 96 = 2. Rows: 6 + 192 + 6 + 192 + 6; columns: 6 + 3 * (256 + 6).
        (96, 128, (402, 792, 3)),
        # 192 / 64 = 3, by the shorter side.
        (128, 64, (6 + 2 * (384 + 6), 6 + 3 * (192 + 6), 3)),
        # 192 / 100 is rounded up to 2.
        (100, 100, (6 + 2 * (200 + 6), 6 + 3 * (200 + 6), 3)),
        # Nothing is made smaller.
        (200, 250, (6 + 2 * (200 + 6), 6 + 3 * (250 + 6), 3)),
    ],
)
def test_small_examples_are_enlarged_by_a_whole_factor(height, width, expected):
    assert pictures.compare(*_examples(height, width), _PALETTE).shape == expected


# 96x128 enlarged twice: rows start at 6 and 6 + 192 + 6 = 204, columns at 6,
# 6 + 256 + 6 = 268 and 268 + 256 + 6 = 530.
@pytest.mark.parametrize(("example", "top"), [(0, 6), (1, 204)])
@pytest.mark.parametrize(("column", "left"), [(0, 6), (1, 268), (2, 530)])
def test_photo_truth_and_prediction_stand_side_by_side(example, top, column, left):
    images, labels, predictions = _examples(96, 128)
    drawn = pictures.compare(images, labels, predictions, _PALETTE)
    palette = np.array(_PALETTE)
    expected = (images, palette[labels], palette[predictions])[column][example]
    cell = drawn[top : top + 192, left : left + 256]
    # Each pixel of the example is a square of 2x2.
    for i, j in np.ndindex(2, 2):
        np.testing.assert_array_equal(cell[i::2, j::2], expected)


def test_gutters_are_white():
    drawn = pictures.compare(*_examples(96, 128), _PALETTE)
    is_gutter = np.ones(drawn.shape[:2], bool)
    for top in (6, 204):
        for left in (6, 268, 530):
            is_gutter[top : top + 192, left : left + 256] = False
    assert (drawn[is_gutter] == _WHITE).all()


def test_png_holds_the_picture(tmp_path):
    image = (np.arange(4 * 5 * 3).reshape(4, 5, 3) * 4).astype(np.uint8)
    pictures.write_png(tmp_path / "a.png", image)
    decoded = tf.io.decode_png((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(decoded, image)
