"""Pictures: the right pixels, in the right colours, in the right place."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.drawing import pictures, strips

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
        # 192 / 96 = 2. Rows: 6 + 192 + 6 + 192 + 6; columns: 6 + 4 * (256 + 6).
        (96, 128, (402, 1054, 3)),
        # 192 / 64 = 3, by the shorter side.
        (128, 64, (6 + 2 * (384 + 6), 6 + 4 * (192 + 6), 3)),
        # 192 / 100 is rounded up to 2.
        (100, 100, (6 + 2 * (200 + 6), 6 + 4 * (200 + 6), 3)),
        # Nothing is made smaller.
        (200, 250, (6 + 2 * (200 + 6), 6 + 4 * (250 + 6), 3)),
    ],
)
def test_small_examples_are_enlarged_by_a_whole_factor(height, width, expected):
    drawn = _compare(*_examples(height, width))
    # A line of titles above, 24 pixels high, and one of the legend below, with 6 more.
    assert drawn.shape == (24 + expected[0] + 30, *expected[1:])


def _compare(images, labels, predictions):
    return pictures.compare(
        images, labels, predictions, class_names=("a", "b", "c"), palette=_PALETTE
    )


# 96x128 enlarged twice: below 24 pixels of titles, rows start at 30 and
# 30 + 192 + 6 = 228, columns at 6, 6 + 256 + 6 = 268, 530 and 792.
@pytest.mark.parametrize(("example", "top"), [(0, 30), (1, 228)])
@pytest.mark.parametrize(("column", "left"), [(0, 6), (1, 268), (2, 530), (3, 792)])
def test_photo_truth_prediction_and_errors_stand_side_by_side(
    example, top, column, left
):
    images, labels, predictions = _examples(96, 128)
    predictions[:, ::2] = labels[:, ::2]
    drawn = _compare(images, labels, predictions)
    palette = np.array(_PALETTE)
    errors = pictures.draw_errors(images, labels, predictions, num_classes=3)
    columns = (images, palette[labels], palette[predictions], errors)
    expected = columns[column][example]
    cell = drawn[top : top + 192, left : left + 256]
    # Each pixel of the example is a square of 2x2.
    for i, j in np.ndindex(2, 2):
        np.testing.assert_array_equal(cell[i::2, j::2], expected)


def test_errors_are_red_on_a_pale_photo():
    """(10 + 20 + 30) / 3 = 20, half the way to white: (20 + 255) / 2 = 137."""
    images = np.full([1, 1, 4, 3], (10, 20, 30), np.uint8)
    labels = np.array([[[0, 1, 255, 255]]], np.uint8)
    predictions = np.array([[[0, 0, 0, 1]]], np.uint8)
    drawn = pictures.draw_errors(images, labels, predictions, num_classes=2)
    expected = [[[(137,) * 3, (214, 39, 40), _GRAY, _GRAY]]]
    np.testing.assert_array_equal(drawn, expected)


def test_each_column_has_a_title_and_each_colour_a_name():
    drawn = _compare(*_examples(96, 128))
    for left in (6, 268, 530, 792):
        title = drawn[:24, left : left + 256]
        assert (title == 0).all(-1).sum() > 20
        assert (title[:, 100:] == 255).all()
    for color in (*_PALETTE, _GRAY, (214, 39, 40)):
        assert (drawn[426:] == color).all(-1).sum() > 200, color


def test_gutters_are_white():
    drawn = _compare(*_examples(96, 128))[24:426]
    is_gutter = np.ones(drawn.shape[:2], bool)
    for top in (6, 204):
        for left in (6, 268, 530, 792):
            is_gutter[top : top + 192, left : left + 256] = False
    assert (drawn[is_gutter] == _WHITE).all()


def test_blend_is_half_image_half_colour():
    """(10 + 128 + 1) // 2 = 69; (255 + 0 + 1) // 2 = 128; and so on."""
    images = np.array([[[[10, 20, 30], [255, 7, 0]]]], np.uint8)
    labels = np.array([[[1, 2]]], np.uint8)

    blended = pictures.blend(images, labels, _PALETTE)

    expected = [[[[69, 10, 15], [128, 68, 0]]]]
    np.testing.assert_array_equal(blended, expected)


def test_blend_hatches_ignored_pixels():
    """Stripes of four pixels run up to the right: gray, image, gray, ..."""
    images, labels, _ = _examples(12, 16, 1)
    labels[:, :, 4:] = 255

    blended = pictures.blend(images, labels, _PALETTE)[0]

    for row in range(12):
        for column in range(4, 16):
            is_gray = (row + column) // 4 % 2 == 0
            expected = _GRAY if is_gray else images[0, row, column]
            np.testing.assert_array_equal(blended[row, column], expected)


def test_contact_sheet_has_four_columns_with_titles_and_a_legend():
    images, labels, changed = _examples(96, 128)
    names = ("sky", "bird", "sea")
    sheet = pictures.draw_contact_sheet(
        images, labels, images[::-1], changed, class_names=names, palette=_PALETTE
    )

    columns = (
        images,
        pictures.blend(images, labels, _PALETTE),
        images[::-1],
        pictures.blend(images[::-1], changed, _PALETTE),
    )
    line = sheet.shape[0] - pictures.draw_legend(1054, names, _PALETTE).shape[0] - 402
    titles, sheet = sheet[:line], sheet[line:]
    for left in (6, 268, 530, 792):
        assert (titles[:, left : left + 256] < 128).any()
    for example, top in enumerate((6, 204)):
        for column, left in zip(columns, (6, 268, 530, 792), strict=True):
            cell = sheet[top : top + 192, left : left + 256]
            np.testing.assert_array_equal(cell[::2, ::2], column[example])
    legend = sheet[402:]  # 6 + 2 * (192 + 6).
    assert sheet.shape[1] == 6 + 4 * (256 + 6)
    for color in (*_PALETTE, _GRAY):
        assert (legend == color).all(-1).sum() > 200, color


def test_legend_takes_as_many_lines_as_it_needs():
    images, labels, _ = _examples(200, 200, 1)
    palette = [(i, 0, 99) for i in range(100)]

    def draw(num_classes):
        names = [f"class number {i}" for i in range(num_classes)]
        return pictures.draw_contact_sheet(
            images, labels, images, labels,
            class_names=names, palette=palette[:num_classes],
        )  # fmt: skip

    few, many = draw(3), draw(100)

    assert few.shape[1] == many.shape[1]
    assert many.shape[0] > few.shape[0] + 200
    assert all((many == color).all(-1).any() for color in palette)


def test_png_holds_the_picture(tmp_path):
    image = (np.arange(4 * 5 * 3).reshape(4, 5, 3) * 4).astype(np.uint8)
    pictures.write_png(tmp_path / "a.png", image)
    decoded = tf.io.decode_png((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(decoded, image)


def test_cells_of_a_confusion_matrix_are_the_darker_the_more_they_have():
    counts = np.array([[0, 8], [1, 3]])
    picture = pictures.draw_confusion(counts, ("sky", "tree"))
    side = picture.shape[0]
    assert picture.shape == (side, side, 3)
    # Two cells of 40 pixels at the end; their lower right corners have no text.
    corners = picture[[side - 42, side - 2]][:, [side - 42, side - 2]]
    shares = np.array([[0, 1], [0.25, 0.75]])[..., np.newaxis]
    expected = 255 + shares * (np.array([24, 84, 168]) - 255)
    np.testing.assert_allclose(corners, expected, atol=0.5)
    # The names stand at the left and, turned, at the top.
    margin = side - 80
    left, top = picture[margin:, :margin], picture[:margin, margin:]
    assert left.min() == 0
    np.testing.assert_array_equal(top[::-1], left.transpose(1, 0, 2))


def test_a_class_without_a_pixel_has_an_empty_row():
    counts = np.array([[0, 0], [1, 3]])
    picture = pictures.draw_confusion(counts, ("sky", "tree"))
    assert (picture[-80:-40, -80:] == 255).all()


def test_confusions_of_many_classes_are_small_cells_without_text():
    picture = pictures.draw_confusion(np.eye(21), tuple(map(str, range(21))))
    expected = np.full((21, 21, 3), 255)
    expected[np.diag_indices(21)] = (24, 84, 168)
    np.testing.assert_array_equal(picture, np.kron(expected, np.ones((4, 4, 1))))


def test_a_strip_has_photo_truth_prediction_and_errors_side_by_side():
    image = np.full((2, 3, 3), 101, np.uint8)
    label = np.array([[0, 1, 255], [0, 0, 1]], np.uint8)
    prediction = np.array([[0, 0, 0], [0, 0, 1]], np.uint8)
    strip = strips.draw(image, label, prediction, _PALETTE)
    parts = [strip[:, left : left + 3] for left in range(0, 4 * 3 + 18, 3 + 6)]
    errors = pictures.draw_errors(
        image[None], label[None], prediction[None], num_classes=len(_PALETTE)
    )
    expected = [
        image,
        pictures.colorize(label, _PALETTE),
        pictures.colorize(prediction, _PALETTE),
        errors[0],
    ]
    for part, other in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(part, other)


def test_what_is_kept_of_a_large_photo_is_small_and_has_no_mixed_classes():
    label = np.zeros((300, 600), np.uint8)
    label[:, ::2] = 1
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, ::2] = 200
    strip = strips.draw(image, label, label, _PALETTE)
    assert strip.shape == (96, 4 * 192 + 18, 3)
    # Of the photo the mean of what was there, of the truth a class.
    assert 50 < strip[:, 3:189].mean() < 150 and strip[:, 3:189].std() < 40
    colors = {tuple(color) for color in strip[:, 198:390].reshape(-1, 3)}
    assert colors <= set(map(tuple, _PALETTE[:2]))
