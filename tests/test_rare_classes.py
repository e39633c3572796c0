"""Windows that are placed by a class of the example."""

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.augmentation import augment
from tests import test_augment
from trainer.assembly import augmenting
from trainer.settings import config

ROWS = 32
SIZE = (12, 17)
WINDOW = (4, 5)
GEOMETRY = {
    "random_rotation": 40.0,
    "random_scale": (0.5, 2.0),
    "random_shear": 30.0,
    "random_quarter_turn": True,
    "vertical_flip": True,
    "horizontal_flip": True,
}
AXES = {name: GEOMETRY[name] for name in ("random_scale", "horizontal_flip")}


def make_batch(num_rows=ROWS):
    """Makes images that are ramps, and labels with one pixel of a second class.

    It has another place in each example. A third of the pixels are ignored.
    """
    pixels = SIZE[0] * SIZE[1]
    images = np.arange(num_rows * pixels * 3).reshape(num_rows, *SIZE, 3) % 251
    labels = np.zeros((num_rows, pixels), np.uint8)
    labels[:, ::3] = schema.IGNORE_LABEL
    labels[np.arange(num_rows), np.arange(num_rows) * 7 % pixels] = 1
    return images.astype(np.uint8), labels.reshape(num_rows, *SIZE)


def count(step, rows=slice(None), num_rows=ROWS):
    return tf.range(num_rows, dtype=tf.int64)[rows] + step * num_rows


def make(share, strengths=None, *, num_rows=ROWS, **kwargs):
    return augment.RandomAugment(
        strengths or {},
        global_batch_size=num_rows,
        seed=0,
        crop_size=WINDOW,
        crop_rare_classes=share,
        num_classes=3,
        **kwargs,
    )


def draw(counters, name, num_draws, *, num_rows=ROWS):
    drawn = augment.random_uniform(
        counters, {name: num_draws}, global_batch_size=num_rows, seed=0
    )
    return drawn[name].numpy().astype(np.float64)


def find_pixel(label, draws):
    """Returns class, row and column that three draws stand for; slowly."""
    classes = [c for c in np.unique(label) if c != schema.IGNORE_LABEL]
    chosen = classes[int(draws[0] * len(classes))]
    rows, columns = np.nonzero(label == chosen)
    row = rows[int(draws[1] * len(rows))]
    columns = columns[rows == row]
    return chosen, row, columns[int(draws[2] * len(columns))]


def find_corner(label, draws, places):
    """Returns where the window of an example begins."""
    if draws[0] >= 0.6:
        return np.floor(
            places * [size - new + 1 for size, new in zip(SIZE, WINDOW, strict=True)]
        ).astype(int)
    pixel = find_pixel(label, draws[1:])[1:]
    return [
        min(max(place - new // 2, 0), size - new)
        for place, new, size in zip(pixel, WINDOW, SIZE, strict=True)
    ]


def test_windows_are_where_the_draws_say():
    random = np.random.default_rng(3)
    images, labels = make_batch()
    labels = np.where(random.random(labels.shape) < 0.2, 2, labels).astype(np.uint8)

    new_images, new_labels = tf.function(make(0.6))(images, labels, count(2))

    draws = draw(count(2), "crop_rare_classes", 4)
    places = draw(count(2), "crop_size", 2)
    assert 0 < (draws[:, 0] < 0.6).sum() < ROWS
    for row in range(ROWS):
        top, left = find_corner(labels[row], draws[row], places[row])
        window = row, slice(top, top + WINDOW[0]), slice(left, left + WINDOW[1])
        np.testing.assert_array_equal(new_images[row], images[window])
        np.testing.assert_array_equal(new_labels[row], labels[window])


@pytest.mark.parametrize("strengths", [{}, AXES, GEOMETRY], ids=["none", "axes", "any"])
def test_each_window_holds_a_pixel_of_the_class_that_was_drawn(strengths):
    """Of one pixel, too, which may be skipped where an example is made smaller."""
    images, labels = make_batch(200)

    _, windows = make(1.0, strengths, num_rows=200)(
        images, labels, count(5, num_rows=200)
    )

    draws = draw(count(5, num_rows=200), "crop_rare_classes", 4, num_rows=200)[:, 1:]
    classes = [find_pixel(*pair)[0] for pair in zip(labels, draws, strict=True)]
    held = [
        (window == c).any() for window, c in zip(windows.numpy(), classes, strict=True)
    ]
    assert all(held)
    # Each class as likely, though one has a single pixel; 4 deviations are 0.14.
    assert abs(np.mean(classes) - 0.5) < 0.14


@pytest.mark.parametrize("factor", [0.5, 2.0, 1.3])
def test_windows_stay_within_the_example_as_it_became(factor):
    images, _ = make_batch(200)
    labels = np.zeros((200, *SIZE), np.uint8)
    strengths = {"random_scale": (factor, factor), "vertical_flip": True}

    _, windows = make(1.0, strengths, num_rows=200)(
        images, labels, count(1, num_rows=200)
    )

    assert (windows.numpy() == 0).all()


def test_an_option_that_is_off_moves_no_window_and_no_draw():
    images, labels = make_batch()
    before = make(0.0, AXES)(images, labels, count(3))[1].numpy()

    after = make(0.5, AXES)(images, labels, count(3))[1].numpy()

    is_moved = draw(count(3), "crop_rare_classes", 4)[:, 0] < 0.5
    np.testing.assert_array_equal(after[~is_moved], before[~is_moved])
    assert (after[is_moved] != before[is_moved]).any((1, 2)).mean() > 0.8


def test_examples_without_a_class_keep_their_windows():
    images, labels = make_batch()
    labels[:] = schema.IGNORE_LABEL
    before, _ = make(0.0)(images, labels, count(3))

    after, windows = make(1.0)(images, labels, count(3))

    np.testing.assert_array_equal(after, before)
    assert (windows.numpy() == schema.IGNORE_LABEL).all()


def test_a_row_has_the_same_window_whichever_replica_has_it():
    images, labels = make_batch()
    change = make(0.5, GEOMETRY)
    whole = change(images, labels, count(4))

    for rows in (slice(0, 16), slice(16, 32), slice(24, 32)):
        parts = change(images[rows], labels[rows], count(4, rows))
        np.testing.assert_allclose(parts[0], whole[0][rows], atol=1e-3)
        np.testing.assert_array_equal(parts[1], whole[1][rows])


def test_xla_gives_the_same_for_the_same_draws(monkeypatch):
    images, labels = make_batch()
    plain = make(0.5, AXES)(images, labels, count(1))
    drawn = {
        name: tf.constant(draw(count(1), name, number), tf.float32)
        for name, number in (
            ("random_scale", 3),
            ("horizontal_flip", 1),
            ("crop_size", 2),
            ("crop_rare_classes", 4),
        )
    }
    monkeypatch.setattr(augment, "random_uniform", lambda *_, **__: drawn)

    compiled = tf.function(make(0.5, AXES), jit_compile=True)(images, labels, count(1))

    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(compiled[1], plain[1])


def test_every_operation_has_a_kernel_on_gpus():
    function = tf.function(make(0.5)).get_concrete_function(*make_batch(), count(0))

    test_augment.require_gpu_kernels(function.graph)


def test_settings_ask_for_the_share_of_their_name():
    values = {"model_dir": "a", "image_size": (12, 17), "batch_size": ROWS}
    windows = {"crop_size": (8, 8), "crop_rare_classes": 0.4, "augment": "none"}
    made = augmenting.make_augment(
        config.from_dict({**values, **windows}),
        schema.RGB,
        num_classes=3,
        num_replicas=1,
    )
    images, labels = make_batch()

    new_images, new_labels = made(images, labels, count(1))

    expected = augment.RandomAugment(
        {},
        global_batch_size=ROWS,
        seed=0,
        crop_size=(8, 8),
        crop_rare_classes=0.4,
    )(images, labels, count(1))
    np.testing.assert_array_equal(new_images, expected[0])
    np.testing.assert_array_equal(new_labels, expected[1])
