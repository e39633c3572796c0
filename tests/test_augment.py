"""Tests of the random changes to training examples."""

import dataclasses
import functools
import importlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from data import schema
from data.augmentation import augment, color, kinds, maps, registry, resampling
from trainer import errors
from trainer.assembly import augmenting
from trainer.settings import config

ROWS = 8
GEOMETRY = {
    "random_rotation": 40.0,
    "random_scale": (0.5, 2.0),
    "random_shear": 45.0,
    "random_quarter_turn": True,
    "vertical_flip": True,
    "horizontal_flip": True,
}
COLORS = {
    "random_brightness": 0.4,
    "random_contrast": 0.3,
    "random_saturation": 0.6,
    "random_hue": 90.0,
    "random_grey": 0.5,
}
PIXELS = {
    "random_gamma": 0.5,
    "random_blur": 2.0,
    "random_noise": 0.1,
    "random_classmix": 0.5,
    "random_cutmix": 0.5,
    "random_cutout": 0.3,
}
ALL = {**GEOMETRY, **COLORS, **PIXELS}
"""A strength for each change of the registry, in the order of the changes."""

AXES = {name: ALL[name] for name in ("random_scale", "horizontal_flip")}
FLIPS = {name: ALL[name] for name in ("vertical_flip", "horizontal_flip")}
ON_LABELS = {*GEOMETRY, "random_classmix", "random_cutmix", "random_cutout"}


def make_batch(num_rows=ROWS):
    """Makes images [rows, 3, 5, 3] and labels [rows, 3, 5] that rise to the right."""
    images = np.arange(num_rows * 45, dtype=np.int64).reshape(num_rows, 3, 5, 3) % 256
    labels = np.arange(num_rows * 15, dtype=np.int64).reshape(num_rows, 3, 5) % 256
    return images.astype(np.uint8), labels.astype(np.uint8)


def count(step, rows=slice(None), global_batch_size=ROWS):
    """Returns the counters of some rows of a step."""
    return tf.range(global_batch_size, dtype=tf.int64)[rows] + step * global_batch_size


def apply(images, labels, counters, *, seed=0, global_batch_size=ROWS, **strengths):
    """Augments some rows as a training step does."""
    change = augment.RandomAugment(
        strengths, global_batch_size=global_batch_size, seed=seed
    )
    images, labels = tf.function(change)(images, labels, counters)
    return images.numpy(), labels.numpy()


def draw(counters, num_draws, *, seed=0, global_batch_size=ROWS):
    """Returns what is drawn, by the names of the changes."""
    drawn = augment.random_uniform(
        counters, num_draws, global_batch_size=global_batch_size, seed=seed
    )
    return {name: values.numpy() for name, values in drawn.items()}


def record_draws(monkeypatch, *, num_rows=ROWS, step=0, **strengths):
    """Returns what each change is given for one step, by its name."""
    drawn = {}
    random_uniform = augment.random_uniform

    def record(*args, **kwargs):
        drawn.update(random_uniform(*args, **kwargs))
        return drawn

    monkeypatch.setattr(augment, "random_uniform", record)
    change = augment.RandomAugment(strengths, global_batch_size=num_rows, seed=0)
    change(*make_batch(num_rows), count(step, global_batch_size=num_rows))
    monkeypatch.undo()
    return {name: values.numpy() for name, values in drawn.items()}


def find_flipped(step, *, seed=0, num_rows=ROWS):
    """Tells of each row of a step whether its label is mirrored."""
    images, labels = make_batch(num_rows)
    _, flipped = apply(
        images,
        labels,
        count(step, global_batch_size=num_rows),
        seed=seed,
        global_batch_size=num_rows,
        horizontal_flip=True,
    )
    return (flipped != labels).any((1, 2))


def test_chosen_examples_are_mirrored_and_the_others_kept():
    images, labels = make_batch()
    chosen = find_flipped(step=3)

    new_images, new_labels = apply(images, labels, count(step=3), horizontal_flip=True)

    expected = np.where(chosen[:, None, None, None], np.flip(images, 2), images)
    np.testing.assert_array_equal(new_images, expected)
    expected = np.where(chosen[:, None, None], np.flip(labels, 2), labels)
    np.testing.assert_array_equal(new_labels, expected)
    assert 0 < chosen.sum() < ROWS


def test_the_chosen_are_those_with_a_draw_below_a_half():
    draws = draw(count(5), {"horizontal_flip": 1}, seed=4)["horizontal_flip"]

    np.testing.assert_array_equal(find_flipped(step=5, seed=4), draws[:, 0] < 0.5)


def test_the_chosen_stay_the_same_from_version_to_version():
    """Or an older run would not go on as it began."""
    np.testing.assert_array_equal(
        find_flipped(step=5, seed=3), [0, 0, 1, 1, 0, 0, 0, 0]
    )
    np.testing.assert_array_equal(
        find_flipped(step=1000, seed=2**31 - 1, num_rows=13),
        [0, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1],
    )


@pytest.mark.parametrize("num_draws", [1, 3])
def test_draws_stay_the_same_however_many_there_are(num_draws):
    draws = draw(count(5, slice(2, 3)), {"a": num_draws, "b": 1}, seed=3)

    expected = [0.908422, 0.962186, 0.511473][:num_draws]
    np.testing.assert_allclose(draws["a"], [expected], atol=1e-6)


@pytest.mark.parametrize(
    ("strengths", "dtype"),
    [
        ({"horizontal_flip": True}, np.uint8),
        ({"random_scale": (1.0, 2.0)}, np.float32),
        (FLIPS, np.uint8),
        ({"random_rotation": 10.0}, np.float32),
        ({"random_cutout": 0.1, "random_cutmix": 0.5}, np.uint8),
        ({"random_brightness": 0.1}, np.float32),
        (ALL, np.float32),
    ],
)
def test_images_become_float_where_they_need_to(strengths, dtype):
    images, labels = apply(*make_batch(), count(0), **strengths)

    assert (images.dtype, labels.dtype) == (dtype, np.uint8)
    assert (images.shape, labels.shape) == ((ROWS, 3, 5, 3), (ROWS, 3, 5))


def test_a_row_is_changed_alike_whichever_replica_has_it():
    images, labels = make_batch()
    change = tf.function(augment.RandomAugment(ALL, global_batch_size=ROWS, seed=0))
    all_images, all_labels = change(images, labels, count(2))

    for num_replicas in (2, 4):
        for part in np.split(np.arange(ROWS), num_replicas):
            rows = slice(part[0], part[-1] + 1)
            new_images, new_labels = change(images[rows], labels[rows], count(2, rows))
            np.testing.assert_allclose(new_images, all_images[rows], atol=1e-3)
            np.testing.assert_array_equal(new_labels, all_labels[rows])


def test_a_step_is_changed_alike_whatever_came_before():
    """A resumed run begins with any step; one object serves all steps."""
    change = tf.function(augment.RandomAugment(ALL, global_batch_size=ROWS, seed=0))
    in_turn = [change(*make_batch(), count(step)) for step in range(4)]

    alone = apply(*make_batch(), count(3), **ALL)

    np.testing.assert_array_equal(in_turn[3][0], alone[0])
    np.testing.assert_array_equal(in_turn[3][1], alone[1])
    assert np.abs(in_turn[2][0] - alone[0]).max() > 1


def test_xla_gives_the_same_for_the_same_draws(monkeypatch):
    images, labels = make_batch()
    # XLA makes other noise, as it makes other draws.
    strengths = {name: ALL[name] for name in ALL if name != "random_noise"}
    plain_images, plain_labels = apply(images, labels, count(1), **strengths)
    drawn = record_draws(monkeypatch, step=1, **strengths)
    draws = {name: tf.constant(values) for name, values in drawn.items()}
    monkeypatch.setattr(augment, "random_uniform", lambda *_, **__: draws)
    change = augment.RandomAugment(strengths, global_batch_size=ROWS, seed=0)

    xla_images, xla_labels = tf.function(change, jit_compile=True)(
        images, labels, count(1)
    )

    np.testing.assert_allclose(xla_images, plain_images, rtol=1e-4, atol=1e-2)
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


def require_gpu_kernels(graph):
    """Fails where an operation of a graph has no kernel on GPUs."""
    if not any(
        k.device_type == "GPU" for k in kernels.get_all_registered_kernels().kernel
    ):
        pytest.skip("needs a TensorFlow that was built for GPUs")

    missing = [op.type for op in graph.get_operations() if not find_gpu_kernels(op)]

    assert missing == []


@pytest.mark.parametrize(
    "strengths", [{"horizontal_flip": True}, AXES, ALL], ids=["flip", "axes", "all"]
)
def test_every_operation_has_a_kernel_on_gpus(strengths):
    """Else TensorFlow moves it to the host, and the batch with it, without a word."""
    change = augment.RandomAugment(strengths, global_batch_size=ROWS, seed=0)
    graph = tf.function(change).get_concrete_function(*make_batch(), count(0)).graph

    require_gpu_kernels(graph)


def test_strengths_are_of_all_changes():
    """Else the tests above and below leave one out."""
    assert [*ALL] == [*registry.CHANGES]


def test_draws_are_uniform(monkeypatch):
    """Of 1000 draws some lie in the first and in the last hundredth of the range.

    Their mean is off by less than 0.03 of the range, three standard deviations.
    """
    drawn = record_draws(monkeypatch, num_rows=1000, **ALL)
    drawn = np.concatenate([values[:, :4] for values in drawn.values()], 1)

    assert (drawn.min(0) < 0.01).all() and (drawn.max(0) > 0.99).all()
    assert (np.abs(drawn.mean(0) - 0.5) < 0.03).all()


def test_no_draw_follows_from_another(monkeypatch):
    """Of 1000 independent pairs the correlation is below 0.12, almost 4 deviations."""
    drawn = record_draws(monkeypatch, num_rows=1000, **ALL)
    drawn = np.concatenate([values[:, :4] for values in drawn.values()], 1)

    correlations = np.corrcoef(drawn.astype(np.float64), rowvar=False)

    assert np.abs(correlations - np.eye(len(correlations))).max() < 0.12


@pytest.mark.parametrize("name", registry.CHANGES)
def test_no_draw_depends_on_what_else_is_drawn(name):
    """A change that is added, this one among them, moves none of the others."""
    made = registry.make(ALL, schema.RGB)
    together = draw(count(4), {n: change.num_draws for n, change in made.items()})

    alone = draw(count(4), {name: made[name].num_draws})
    backwards = draw(count(4), {n: made[n].num_draws for n in reversed(made)})
    more = draw(count(4), {name: made[name].num_draws + 1})

    np.testing.assert_array_equal(alone[name], together[name])
    np.testing.assert_array_equal(backwards[name], together[name])
    np.testing.assert_array_equal(more[name][:, :-1], together[name])


def test_draws_of_other_names_seeds_and_steps_are_others():
    drawn = [
        draw(count(4), {"a": 2})["a"],
        draw(count(4), {"b": 2})["b"],
        draw(count(5), {"a": 2})["a"],
        draw(count(4), {"a": 2}, seed=1)["a"],
        # The greatest seed fits, too.
        draw(count(4), {"a": 2}, seed=2**31 - 1)["a"],
    ]

    assert len({values.tobytes() for values in drawn}) == len(drawn)


@pytest.mark.parametrize("name", registry.CHANGES)
def test_a_change_that_is_off_is_not_made(name):
    off = registry.CHANGES[name].off

    assert registry.make({name: off}, schema.RGB) == {}
    assert [*registry.make({name: ALL[name]}, schema.RGB)] == [name]


@pytest.mark.parametrize("name", registry.CHANGES)
def test_a_change_is_of_a_known_kind_and_changes_images(name):
    (change,) = registry.make({name: ALL[name]}, schema.RGB).values()
    images, labels = make_batch()

    new_images, new_labels = apply(images, labels, count(0), **{name: ALL[name]})

    assert isinstance(change, kinds.Geometry | kinds.Color | kinds.Pixels)
    assert (new_images != images).any()
    assert (new_labels != labels).any() == (name in ON_LABELS)


def test_an_unknown_change_is_named():
    with pytest.raises(ValueError, match="^no random change: flip; use one of random_"):
        registry.make({"flip": True}, schema.RGB)


def test_all_geometry_is_one_map_and_comes_before_all_colour():
    images, labels = make_batch()
    strengths = {**GEOMETRY, **COLORS}
    made = registry.make(strengths, schema.RGB)
    drawn = augment.random_uniform(
        count(2),
        {name: change.num_draws for name, change in made.items()},
        global_batch_size=ROWS,
        seed=0,
    )
    # What is done last to the example is what a new point goes back through first.
    composed = maps.identity(ROWS)
    for name in reversed(GEOMETRY):
        composed = maps.compose(made[name].map_back(drawn[name], (3, 5)), composed)
    expected_images, expected_labels = resampling.resample(images, labels, composed)
    for name in COLORS:
        means = color.channel_means(expected_images)
        step = made[name].map_colors(drawn[name], means)
        expected_images = color.apply(expected_images, step, (-9999, 9999))

    new_images, new_labels = apply(images, labels, count(2), **strengths)

    np.testing.assert_allclose(
        new_images, np.clip(expected_images, 0, 255), rtol=1e-4, atol=1e-2
    )
    np.testing.assert_array_equal(new_labels, expected_labels)


@pytest.mark.parametrize(
    ("strengths", "height"),
    [
        (AXES, 4),
        (FLIPS, 4),
        ({"random_quarter_turn": True, **FLIPS}, 6),
        ({"random_quarter_turn": True, **FLIPS}, 4),
        ({"random_quarter_turn": True, **AXES}, 6),
    ],
)
def test_the_fast_ways_give_what_the_general_one_gives(monkeypatch, strengths, height):
    random = np.random.default_rng(2)
    images = random.integers(0, 256, (ROWS, height, 6, 3)).astype(np.uint8)
    labels = random.integers(0, 21, (ROWS, height, 6)).astype(np.uint8)
    new_images, new_labels = apply(images, labels, count(2), **strengths)

    for name in strengths:  # None of them is known to keep anything.
        general = functools.partial(make_general, registry.CHANGES[name].module)
        monkeypatch.setitem(
            sys.modules, f"general_{name}", types.SimpleNamespace(make=general)
        )
        entry = registry.CHANGES[name]._replace(module=f"general_{name}")
        monkeypatch.setitem(registry.CHANGES, name, entry)
    expected_images, expected_labels = apply(images, labels, count(2), **strengths)

    assert expected_images.dtype == np.float32
    np.testing.assert_allclose(new_images, expected_images, atol=1e-2)
    np.testing.assert_array_equal(new_labels, expected_labels)


def crop(images, labels, counters, strengths, crop_size):
    """Augments some rows and takes windows of them."""
    change = augment.RandomAugment(
        strengths, global_batch_size=ROWS, seed=0, crop_size=crop_size
    )
    images, labels = tf.function(change)(images, labels, counters)
    return images.numpy(), labels.numpy()


@pytest.mark.parametrize("strengths", [{}, AXES, GEOMETRY], ids=["none", "axes", "any"])
def test_windows_are_parts_of_the_changed_examples(strengths):
    images, labels = make_batch()
    whole = apply(images, labels, count(1), **strengths) if strengths else None
    whole_images, whole_labels = whole or (images, labels)

    new_images, new_labels = crop(images, labels, count(1), strengths, (2, 3))

    # Of rows 0 and 1 as corners, and of columns 0 to 2.
    places = draw(count(1), {"crop_size": 2})["crop_size"]
    for row, (top, left) in enumerate(np.floor(places * [2, 3]).astype(int)):
        window = row, slice(top, top + 2), slice(left, left + 3)
        np.testing.assert_allclose(new_images[row], whole_images[window], atol=1e-3)
        np.testing.assert_array_equal(new_labels[row], whole_labels[window])
    assert len(np.unique(np.floor(places * [2, 3]), axis=0)) > 3


def test_windows_are_of_the_size_of_the_settings():
    values = {"model_dir": "a", "image_size": (12, 16), "batch_size": 2}
    for settings, size in (({}, (12, 16)), ({"crop_size": (8, 9)}, (8, 9))):
        made = augmenting.make_augment(
            config.from_dict({**values, "augment": "none", **settings}),
            schema.RGB,
            num_replicas=1,
        )
        images, labels = made(
            tf.zeros([2, 12, 16, 3], tf.uint8),
            tf.zeros([2, 12, 16], tf.uint8),
            count(0)[:2],
        )
        assert (images.shape, labels.shape) == ((2, *size, 3), (2, *size))


def make_general(module, *arguments):
    """Makes a change of geometry that does not say what it keeps."""
    change = importlib.import_module(module).make(*arguments)
    return dataclasses.replace(change, keeps_axes=False, rearranges=())


def test_draws_of_no_change_change_nothing():
    images, labels = make_batch()

    new_images, new_labels = apply(
        images, labels, count(0), random_scale=(1.0, 1.0), random_saturation=1e-30
    )

    np.testing.assert_array_equal(new_images, images)
    np.testing.assert_array_equal(new_labels, labels)


@pytest.mark.parametrize(
    "settings", [{}, *({name: ALL[name]} for name in registry.CHANGES)]
)
def test_settings_ask_for_the_change_of_their_name(settings):
    settings = settings or {"horizontal_flip": True}  # By default.
    chosen = {"horizontal_flip": False, **settings}
    values = {"model_dir": "runs/a", "seed": 6, "batch_size": ROWS, **chosen}
    made = augmenting.make_augment(config.from_dict(values), schema.RGB, num_replicas=1)

    new_images, new_labels = tf.function(made)(*make_batch(), count(1))

    expected = apply(*make_batch(), count(1), seed=6, **settings)
    np.testing.assert_array_equal(new_images, expected[0])
    np.testing.assert_array_equal(new_labels, expected[1])
    assert not np.array_equal(new_images, make_batch()[0])


def test_by_default_examples_are_mirrored():
    settings = config.from_dict({"model_dir": "runs/a", "batch_size": ROWS})
    made = augmenting.make_augment(settings, schema.RGB, num_replicas=1)

    new_images, _ = tf.function(made)(*make_batch(), count(1))

    expected = apply(*make_batch(), count(1), horizontal_flip=True)
    np.testing.assert_array_equal(new_images, expected[0])


@pytest.mark.parametrize("settings", [{"horizontal_flip": False}, {"augment": "none"}])
def test_without_a_change_examples_are_kept(settings):
    settings = config.from_dict({"model_dir": "runs/a", **settings})

    assert augmenting.make_augment(settings, schema.RGB, num_replicas=1) is augment.keep


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
    draws = draw(count(1), {"a": 2})["a"]

    assert draws.shape == (ROWS, 2)
    assert len(np.unique(draws)) == 2 * ROWS


def test_keep_changes_nothing():
    images, labels = make_batch()

    new_images, new_labels = augment.keep(images, labels, count(0))

    np.testing.assert_array_equal(new_images, images)
    np.testing.assert_array_equal(new_labels, labels)


WIDE = schema.ImageFormat(3, (0, 65535))


@pytest.mark.parametrize("strengths", [AXES, ALL], ids=["axes", "all"])
def test_images_of_16_bits_keep_their_values_and_are_filled_with_their_middle(
    strengths,
):
    images, labels = make_batch()
    change = augment.RandomAugment(
        strengths, global_batch_size=ROWS, seed=0, image_format=WIDE
    )

    changed, _ = change(
        tf.constant(images.astype(np.uint16) * 257), tf.constant(labels), count(0)
    )

    # 32768 is filled in, and 128 * 257 = 32896.
    expected, _ = apply(images, labels, count(0), **strengths)
    np.testing.assert_allclose(changed / 257, expected, atol=1.5)
    assert changed.numpy().max() > 40000


def test_colours_of_what_is_not_rgb_are_an_error_of_the_settings():
    settings = config.from_dict({"model_dir": "runs/a", "random_hue": 5.0})
    with pytest.raises(errors.ConfigError, match="--random_hue=5.0: .*give it 0.$"):
        augmenting.make_augment(
            settings, schema.ImageFormat(4, (0, 255)), num_replicas=1
        )


@pytest.mark.parametrize("policy", registry.POLICIES)
def test_a_policy_is_the_strengths_that_it_names(policy):
    named = config.from_dict({"model_dir": "a", "augment": policy}).augmentation
    off = {name: entry.off for name, entry in registry.CHANGES.items()}
    typed = {**off, **registry.POLICIES[policy]}

    spelled_out = config.from_dict({"model_dir": "a", **typed}).augmentation

    assert dataclasses.asdict(named) == {
        **dataclasses.asdict(spelled_out),
        "augment": policy,
    }


def test_strengths_beside_a_policy_count_before_it():
    values = {"augment": "strong", "random_hue": 3.0, "random_scale": ()}

    settings = config.from_dict({"model_dir": "a", **values}).augmentation

    assert (settings.random_hue, settings.random_scale) == (3.0, ())
    assert settings.random_grey == registry.POLICIES["strong"]["random_grey"]


@pytest.mark.parametrize("name", ["random_classmix", "random_cutmix"])
def test_pairs_of_examples_need_even_shares_of_the_batch(name):
    def make(batch_size, num_replicas):
        values = {"model_dir": "a", name: 0.5, "batch_size": batch_size}
        augmenting.make_augment(
            config.from_dict(values), schema.RGB, num_replicas=num_replicas
        )

    make(8, 4)
    message = (
        rf"^--batch_size=6: --{name}=0.5 mixes .* each replica has 3 of them; use a "
    )
    with pytest.raises(errors.ConfigError, match=message + "multiple of 4.$"):
        make(6, 2)
