"""Tests of the random changes to training examples."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from data import schema
from data.augmentation import augment, color, resampling
from trainer import errors
from trainer.assembly import augmenting
from trainer.settings import config

ROWS = 8
ALL = {
    "flip": True,
    "scale": (0.5, 2.0),
    "brightness": 0.4,
    "contrast": 0.3,
    "saturation": 0.6,
}


def make_batch(num_rows=ROWS):
    """Makes images [rows, 3, 5, 3] and labels [rows, 3, 5] that rise to the right."""
    images = np.arange(num_rows * 45, dtype=np.int64).reshape(num_rows, 3, 5, 3) % 256
    labels = np.arange(num_rows * 15, dtype=np.int64).reshape(num_rows, 3, 5) % 256
    return images.astype(np.uint8), labels.astype(np.uint8)


def count(step, rows=slice(None), global_batch_size=ROWS):
    """Returns the counters of some rows of a step."""
    return tf.range(global_batch_size, dtype=tf.int64)[rows] + step * global_batch_size


def apply(images, labels, counters, *, seed=0, global_batch_size=ROWS, **changes):
    """Augments some rows as a training step does."""
    change = augment.RandomAugment(
        global_batch_size=global_batch_size, seed=seed, **changes
    )
    images, labels = tf.function(change)(images, labels, counters)
    return images.numpy(), labels.numpy()


def record_draws(monkeypatch, *, num_rows=1000, step=0, **changes):
    """Returns what is drawn for one step, by the names of the arguments."""
    drawn = {}
    scale_and_crop, adjust = resampling.scale_and_crop, color.adjust

    def record_scale(images, labels, **arguments):
        drawn.update(arguments)
        return scale_and_crop(images, labels, **arguments)

    def record_color(images, **arguments):
        drawn.update(arguments)
        return adjust(images, **arguments)

    monkeypatch.setattr(resampling, "scale_and_crop", record_scale)
    monkeypatch.setattr(color, "adjust", record_color)
    change = augment.RandomAugment(global_batch_size=num_rows, seed=0, **changes)
    change(*make_batch(num_rows), count(step, global_batch_size=num_rows))
    monkeypatch.undo()
    drawn.pop("fill_value", None)  # Nothing that is drawn.
    return {name: value.numpy() for name, value in drawn.items()}


def find_flipped(step, *, seed=0, num_rows=ROWS):
    """Tells of each row of a step whether its label is mirrored."""
    images, labels = make_batch(num_rows)
    _, flipped = apply(
        images,
        labels,
        count(step, global_batch_size=num_rows),
        seed=seed,
        global_batch_size=num_rows,
        flip=True,
    )
    return (flipped != labels).any((1, 2))


def test_chosen_examples_are_mirrored_and_the_others_kept():
    images, labels = make_batch()
    chosen = find_flipped(step=3)

    new_images, new_labels = apply(images, labels, count(step=3), flip=True)

    expected = np.where(chosen[:, None, None, None], np.flip(images, 2), images)
    np.testing.assert_array_equal(new_images, expected)
    expected = np.where(chosen[:, None, None], np.flip(labels, 2), labels)
    np.testing.assert_array_equal(new_labels, expected)
    assert 0 < chosen.sum() < ROWS


def test_the_chosen_are_those_with_a_draw_below_a_half():
    draws = augment.random_uniform(count(5), 1, global_batch_size=ROWS, seed=4)

    np.testing.assert_array_equal(
        find_flipped(step=5, seed=4), draws.numpy()[:, 0] < 0.5
    )


def test_the_chosen_stay_the_same_from_version_to_version():
    """Or an older run would not go on as it began."""
    np.testing.assert_array_equal(
        find_flipped(step=5, seed=3), [1, 1, 1, 1, 0, 0, 0, 0]
    )
    np.testing.assert_array_equal(
        find_flipped(step=1000, seed=2**31 - 1, num_rows=13),
        [0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
    )


@pytest.mark.parametrize("num_draws", [1, 3, 7])
def test_draws_stay_the_same_however_many_there_are(num_draws):
    draws = augment.random_uniform(
        count(5, slice(2, 3)), num_draws, global_batch_size=ROWS, seed=3
    )

    expected = [0.370370, 0.090384, 0.753965, 0.993500, 0.358772, 0.463489, 0.376174]
    np.testing.assert_allclose(draws, [expected[:num_draws]], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"flip": True}, np.uint8),
        ({"scale": (1.0, 2.0)}, np.float32),
        ({"brightness": 0.1}, np.float32),
        ({"contrast": 0.1}, np.float32),
        ({"saturation": 0.1}, np.float32),
        (ALL, np.float32),
    ],
)
def test_images_become_float_where_they_need_to(changes, dtype):
    images, labels = apply(*make_batch(), count(0), **changes)

    assert (images.dtype, labels.dtype) == (dtype, np.uint8)
    assert (images.shape, labels.shape) == ((ROWS, 3, 5, 3), (ROWS, 3, 5))


@pytest.mark.parametrize("num_replicas", [1, 2, 4, 8])
def test_a_row_is_changed_alike_whichever_replica_has_it(num_replicas):
    images, labels = make_batch()
    all_images, all_labels = apply(images, labels, count(2), **ALL)

    for part in np.split(np.arange(ROWS), num_replicas):
        rows = slice(part[0], part[-1] + 1)
        new_images, new_labels = apply(
            images[rows], labels[rows], count(2, rows), **ALL
        )
        np.testing.assert_allclose(new_images, all_images[rows], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(new_labels, all_labels[rows])


def test_a_step_is_changed_alike_whatever_came_before():
    """A resumed run begins with any step; one object serves all steps."""
    change = tf.function(augment.RandomAugment(global_batch_size=ROWS, seed=0, **ALL))
    in_turn = [change(*make_batch(), count(step)) for step in range(4)]

    alone = apply(*make_batch(), count(3), **ALL)

    np.testing.assert_array_equal(in_turn[3][0], alone[0])
    np.testing.assert_array_equal(in_turn[3][1], alone[1])
    assert np.abs(in_turn[2][0] - alone[0]).max() > 1


def test_xla_gives_the_same_for_the_same_draws(monkeypatch):
    images, labels = make_batch()
    plain_images, plain_labels = apply(images, labels, count(1), **ALL)
    draws = augment.random_uniform(count(1), 7, global_batch_size=ROWS, seed=0)
    monkeypatch.setattr(augment, "random_uniform", lambda *_, **__: draws)
    change = augment.RandomAugment(global_batch_size=ROWS, seed=0, **ALL)

    xla_images, xla_labels = tf.function(change, jit_compile=True)(
        images, labels, count(1)
    )

    np.testing.assert_allclose(xla_images, plain_images, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(xla_labels, plain_labels)


def find_gpu_kernels(op):
    """Returns the kernels on GPUs, built in or not used here, for an operation."""
    return [
        kernel
        for kernel in kernels.get_registered_kernels_for_op(op.type).kernel
        if kernel.device_type in ("GPU", "DEFAULT")
        and all(
            op.get_attr(constraint.name).as_datatype_enum
            in constraint.allowed_values.list.type
            for constraint in kernel.constraint
        )
    ]


@pytest.mark.parametrize("changes", [{"flip": True}, ALL], ids=["flip", "all"])
def test_every_operation_has_a_kernel_on_gpus(changes):
    """Else TensorFlow moves it to the host, and the batch with it, without a word."""
    if not any(
        k.device_type == "GPU" for k in kernels.get_all_registered_kernels().kernel
    ):
        pytest.skip("needs a TensorFlow that was built for GPUs")
    change = augment.RandomAugment(global_batch_size=ROWS, seed=0, **changes)
    graph = tf.function(change).get_concrete_function(*make_batch(), count(0)).graph

    missing = [op.type for op in graph.get_operations() if not find_gpu_kernels(op)]

    assert missing == []


def test_factors_and_places_are_uniform_in_their_ranges(monkeypatch):
    """Of 1000 draws some lie in the first and in the last hundredth of the range.

    Their mean is off by less than 0.03 of the range, three standard deviations.
    """
    drawn = record_draws(monkeypatch, **ALL)
    ranges = {
        "factors": (0.5, 2.0),
        "places": (0.0, 1.0),
        "brightness": (0.6, 1.4),
        "contrast": (0.7, 1.3),
        "saturation": (0.4, 1.6),
    }

    assert drawn.keys() == {*ranges, "is_mirrored"}
    for name, (low, high) in ranges.items():
        shares = (drawn[name].astype(np.float64) - low) / (high - low)
        assert -1e-6 <= shares.min() < 0.01, name
        assert 0.99 < shares.max() <= 1 + 1e-6, name
        assert abs(shares.mean() - 0.5) < 0.03, name


def test_no_draw_follows_from_another(monkeypatch):
    """Of 1000 independent pairs the correlation is below 0.1, three deviations."""
    drawn = record_draws(monkeypatch, **ALL)
    places = drawn.pop("places")
    columns = [*drawn.values(), places[:, 0], places[:, 1]]

    correlations = np.corrcoef(np.stack(columns).astype(np.float64))

    assert len(columns) == 7
    assert np.abs(correlations - np.eye(7)).max() < 0.1


def test_a_draw_does_not_depend_on_what_else_is_drawn(monkeypatch):
    together = record_draws(monkeypatch, num_rows=ROWS, step=4, **ALL)
    scale = record_draws(monkeypatch, num_rows=ROWS, step=4, scale=(0.5, 2.0))
    contrast = record_draws(monkeypatch, num_rows=ROWS, step=4, contrast=0.3)

    np.testing.assert_array_equal(together["is_mirrored"], find_flipped(step=4))
    np.testing.assert_array_equal(scale["factors"], together["factors"])
    np.testing.assert_array_equal(scale["places"], together["places"])
    np.testing.assert_array_equal(contrast["contrast"], together["contrast"])


def test_what_is_not_asked_for_is_not_done(monkeypatch):
    scale = record_draws(monkeypatch, scale=(0.5, 2.0))
    assert scale.keys() == {"factors", "places", "is_mirrored"}
    assert not scale["is_mirrored"].any()

    contrast = record_draws(monkeypatch, contrast=0.3)
    np.testing.assert_array_equal(contrast["brightness"], 1)
    np.testing.assert_array_equal(contrast["saturation"], 1)
    assert "factors" not in contrast


def test_colour_comes_after_geometry_and_spares_the_labels(monkeypatch):
    drawn = {
        name: tf.constant(value)
        for name, value in record_draws(monkeypatch, num_rows=ROWS, **ALL).items()
    }
    images, labels = make_batch()
    geometry = {name: drawn.pop(name) for name in ("factors", "places", "is_mirrored")}
    expected_images, expected_labels = resampling.scale_and_crop(
        images, labels, **geometry
    )
    expected_images = color.adjust(expected_images, **drawn)

    new_images, new_labels = apply(images, labels, count(0), **ALL)

    np.testing.assert_allclose(new_images, expected_images, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(new_labels, expected_labels)


def test_draws_of_no_change_change_nothing():
    images, labels = make_batch()

    new_images, new_labels = apply(
        images, labels, count(0), scale=(1.0, 1.0), saturation=1e-30
    )

    np.testing.assert_array_equal(new_images, images)
    np.testing.assert_array_equal(new_labels, labels)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {"flip": True}),
        ({"random_scale": (0.5, 2.0)}, {"flip": True, "scale": (0.5, 2.0)}),
        ({"horizontal_flip": False, "random_brightness": 0.2}, {"brightness": 0.2}),
        ({"horizontal_flip": False, "random_contrast": 0.2}, {"contrast": 0.2}),
        ({"horizontal_flip": False, "random_saturation": 0.2}, {"saturation": 0.2}),
    ],
)
def test_settings_ask_for_the_change_of_their_name(settings, changes):
    settings = {"model_dir": "runs/a", "seed": 6, "batch_size": ROWS, **settings}
    made = augmenting.make_augment(config.from_dict(settings), schema.RGB)

    new_images, new_labels = tf.function(made)(*make_batch(), count(1))

    expected = apply(*make_batch(), count(1), seed=6, **changes)
    np.testing.assert_array_equal(new_images, expected[0])
    np.testing.assert_array_equal(new_labels, expected[1])
    assert not np.array_equal(new_images, make_batch()[0])


def test_without_a_change_examples_are_kept():
    settings = config.from_dict({"model_dir": "runs/a", "horizontal_flip": False})

    assert augmenting.make_augment(settings, schema.RGB) is augment.keep


def test_steps_differ():
    choices = {find_flipped(step, num_rows=64).tobytes() for step in range(10)}

    assert len(choices) == 10


def test_seeds_differ():
    choices = {find_flipped(0, seed=seed, num_rows=64).tobytes() for seed in range(10)}

    assert len(choices) == 10


def test_same_step_and_seed_choose_the_same():
    np.testing.assert_array_equal(find_flipped(7, seed=1), find_flipped(7, seed=1))


def test_about_half_are_mirrored():
    """Of 1000 fair draws, 450 to 550 is three standard deviations of 16."""
    assert 450 < find_flipped(0, num_rows=1000).sum() < 550


def test_each_example_has_draws_of_its_own():
    draws = augment.random_uniform(count(1), 2, global_batch_size=ROWS, seed=0).numpy()

    assert draws.shape == (ROWS, 2)
    assert len(np.unique(draws)) == 2 * ROWS


def test_keep_changes_nothing():
    images, labels = make_batch()

    new_images, new_labels = augment.keep(images, labels, count(0))

    np.testing.assert_array_equal(new_images, images)
    np.testing.assert_array_equal(new_labels, labels)


def test_images_of_16_bits_keep_their_values_and_are_filled_with_their_middle():
    images, labels = make_batch()
    wide = images.astype(np.uint16) * 257
    change = augment.RandomAugment(
        global_batch_size=ROWS, seed=0, flip=True, scale=(0.5, 2.0), fill_value=32896
    )
    narrow = augment.RandomAugment(
        global_batch_size=ROWS, seed=0, flip=True, scale=(0.5, 2.0), fill_value=128
    )

    changed, _ = change(tf.constant(wide), tf.constant(labels), count(0))
    expected, _ = narrow(tf.constant(images), tf.constant(labels), count(0))

    np.testing.assert_allclose(changed / 257, expected, atol=1e-3)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_of_what_is_not_rgb_are_not_changed(name):
    settings = config.from_dict({"model_dir": "runs/a", f"random_{name}": 0.5})
    with pytest.raises(errors.ConfigError, match=f"--random_{name}=0.5: it is for RGB"):
        augmenting.make_augment(settings, schema.ImageFormat(4, (0, 255)))
