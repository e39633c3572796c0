"""The rules of a plan, by hand: from facts and costs to settings."""

import dataclasses
import pathlib
import re

import pytest

from trainer import flags
from trainer.planning import costs, notes, rules, sizes

_GIB = 2**30
_ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _facts(**others) -> notes.Facts:
    facts = notes.Facts(
        num_train=400,
        num_eval=100,
        height=300,
        width=300,
        class_names=("sky", "tree"),
        class_pixels=(600, 400),
        class_examples=(400, 400),
        memory_bytes=8 * _GIB,
        has_weights=True,
    )
    return dataclasses.replace(facts, **others)


def _sides(facts: notes.Facts) -> list[int]:
    return [shape.image_size[0] for shape in sizes.find_shapes(facts)]


def test_files_are_made_smaller_and_never_larger():
    assert _sides(_facts()) == [96, 128, 160, 192, 224, 256]
    assert _sides(_facts(height=128, width=200)) == [96, 128, 160]
    assert _sides(_facts(height=40, width=40)) == [96]  # The least there is.


def test_enough_is_left_of_the_smallest_class():
    # Trees have 1% of the pixels of a fourth of the examples, 4% where they are: a side
    # of 0.2 of the image's, which are 8 pixels of 40. With 0.04%, 0.02 and 400.
    facts = _facts(class_pixels=(9900, 100), class_examples=(400, 100))
    assert sizes.least_side(facts) == pytest.approx(40)
    assert _sides(facts)[0] == 96
    facts = _facts(class_pixels=(999900, 100), class_examples=(400, 100), height=900)
    assert sizes.least_side(facts) == pytest.approx(400)
    assert _sides(facts) == [448, 512]
    # Where the files themselves are smaller, the largest that there is.
    assert _sides(dataclasses.replace(facts, height=300)) == [256]


@pytest.mark.parametrize(
    ("aspects", "expected"),
    [
        ((1.0, 1.0, 1.0), (256, 256)),
        ((0.75, 0.8, 0.9), (256, 256)),
        # 256 sqrt(0.5) = 181 and 362, in steps of 32.
        ((0.5, 0.5, 0.5), (192, 352)),
        ((2.0, 2.0, 2.0), (352, 192)),
        # Upright and lying ones.
        ((0.7, 0.75, 1.3), (256, 256)),
    ],
)
def test_images_have_the_aspect_of_the_files(aspects, expected):
    facts = _facts(aspects=aspects)
    assert sizes.find_shapes(facts)[-1].image_size == expected


def test_large_files_are_seen_in_windows():
    shapes = sizes.find_shapes(_facts(height=1030, width=2000))
    assert {shape.image_size for shape in shapes} == {(1024, 1984)}
    assert [shape.crop_size for shape in shapes] == [
        (side, side) for side in (128, 192, 256, 320, 384, 512)
    ]
    assert shapes[0].pixels == 128 * 128
    # 4096 x 4096, shrunk to 2048 x 2048.
    shapes = sizes.find_shapes(_facts(height=4096, width=4096))
    assert shapes[0].image_size == (2048, 2048)


@pytest.mark.parametrize(
    ("num_train", "epochs"),
    [(20, 50), (200, 50), (201, 30), (1000, 30), (3000, 20), (50_000, 15)],
)
def test_fewer_examples_need_more_epochs(num_train, epochs):
    assert rules.needed_epochs(num_train) == epochs


_SHAPES = tuple(notes.Shape((side, side)) for side in (96, 128, 256))


@pytest.mark.parametrize(
    ("epochs", "place", "reason"),
    [
        ((90, 60, 20), 1, "time for the 40 epochs .*; of 256x256, 20 would fit"),
        ((90, 60, 40), 2, "the largest that makes sense"),
        ((30, 20, 10), 0, "30 epochs fit, and 40 would be good: give more time"),
        ((40, 39, 10), 0, "of 128x128, 39 would fit"),
    ],
)
def test_the_largest_shape_with_enough_epochs(epochs, place, reason):
    found, text = sizes.choose_shape(_SHAPES, epochs, 40)
    assert found == place
    assert re.search(reason, text)


@pytest.mark.parametrize(
    ("has_gpu", "alpha", "filters"),
    [(False, 0.125, (64, 32, 16, 8)), (True, 0.5, (256, 128, 64, 32))],
)
def test_without_weights_a_narrow_network_learns_from_scratch(has_gpu, alpha, filters):
    facts = _facts(has_weights=False, has_gpu=has_gpu)
    values = {n: c.value for n, c in rules.choose_model(facts, {}).items()}
    assert values == {
        "encoder": "plain",
        "encoder_weights": "none",
        "freeze_encoder": False,
        "encoder_alpha": alpha,
        "decoder_filters": filters,
    }
    assert rules.choose_model(_facts(), {}).keys() == {"encoder"}


def test_a_pretrained_encoder_is_frozen_or_learns_slowly():
    assert rules.choose_freezing(True).keys() == {"freeze_encoder"}
    trained = rules.choose_freezing(False)
    assert not trained["freeze_encoder"].value
    assert trained["encoder_lr_multiplier"].value == 0.3


@pytest.mark.parametrize(
    ("num_train", "num_replicas", "size"),
    [(400, 1, 16), (159, 1, 8), (160, 1, 16), (400, 3, 18), (20, 3, 9)],
)
def test_batch_size_follows_examples_and_devices(num_train, num_replicas, size):
    facts = _facts(num_train=num_train, num_replicas=num_replicas)
    assert rules.choose_batch_size(facts).value == size


@pytest.mark.parametrize(
    ("needed", "fixed", "most", "parts"),
    [
        # 0.8 of 10 GiB are free.
        (8, 2, 16, 1),
        (9, 2, 16, 2),  # 2 + 7 / 2
        (18, 2, 16, 4),  # 2 + 16 / 2 are too many, 2 + 16 / 4 not.
        (18, 2, 2, 2),  # There are no more rows.
        (18, 2, 18, 2),  # 18 rows are not to be had in four parts.
    ],
)
def test_a_batch_is_split_for_the_memory(needed, fixed, most, parts):
    choice = rules.choose_parts(needed * _GIB, fixed * _GIB, 10 * _GIB, most)
    assert choice.value == parts


@pytest.mark.parametrize(
    ("needed", "most", "measured", "parts", "reason"),
    [
        (8, 16, 1, 1, "a whole batch fits: 8.0 GiB of 10.0 GiB that are free"),
        (8, 16, 4, 4, "a batch in 4 parts fits: 8.0 GiB of 10.0 GiB that are free"),
        (9, 16, 1, 2, "a whole batch takes 9.0 GiB, and 10.0 GiB are free"),
        # In 4 parts 15, and in 8 parts 7.5.
        (30, 16, 2, 8, "a batch in 2 parts takes 30.0 GiB, and 10.0 GiB are free"),
        (9, 16, 4, 8, "a batch in 4 parts takes 9.0 GiB, and 10.0 GiB are free"),
        (
            12,
            1,
            1,
            1,
            "a whole batch takes 12.0 GiB, and 10.0 GiB are free; it may be too "
            "little, and the batch cannot be split further",
        ),
    ],
)
def test_a_batch_is_said_to_fit_where_it_does(needed, most, measured, parts, reason):
    choice = rules.choose_parts(needed * _GIB, 0, 10 * _GIB, most, parts=measured)
    assert choice == (parts, reason)


def test_examples_are_kept_in_memory_where_they_fit():
    # 500 examples of 1024 x 1024 pixels of 4 bytes: 1.95 GiB, a fourth of 7.81 GiB.
    shape = notes.Shape((1024, 1024), (256, 256))
    for memory, cache in ((7.8, "disk"), (7.9, "memory")):
        facts = _facts(memory_bytes=int(memory * _GIB))
        assert rules.choose_cache(facts, shape).value == cache


@pytest.mark.parametrize(
    ("secs", "value"), [(0.89, "bfloat16"), (0.9, "float32"), (1.3, "float32")]
)
def test_bfloat16_only_where_it_is_measured_faster(secs, value):
    assert rules.choose_precision(1.0, secs).value == value


def test_rare_classes_are_weighed():
    # An even share is a half, a tenth of it 5%.
    for rare, weights in ((51, ()), (49, ("inverse_sqrt",))):
        facts = _facts(class_pixels=(1000 - rare, rare))
        assert rules.choose_class_weights(facts).value == weights
    # A class without a pixel is not rare: nothing is learned of it.
    assert rules.choose_class_weights(_facts(class_pixels=(9, 0))).value == ()


@pytest.mark.parametrize(("channels", "value"), [(3, "light"), (4, "flip")])
def test_pretrained_weights_see_light_changes_however_few_the_examples(channels, value):
    changes = rules.choose_changes(_facts(num_train=20, num_channels=channels), 300)
    assert changes["augment"].value == value
    assert changes["random_scale"].value == (0.75, 2.0)


@pytest.mark.parametrize(("epochs", "value"), [(49, "flip"), (50, "light")])
def test_random_weights_see_changed_examples_where_there_is_time(epochs, value):
    changes = rules.choose_changes(_facts(num_train=900, has_weights=False), epochs)
    assert changes["augment"].value == value
    assert ("random_scale" in changes) == (value == "light")


def test_a_narrow_network_has_the_loss_that_is_cheap():
    assert rules.choose_loss(_facts(has_weights=False)).value == "ce+dice"
    assert rules.choose_loss(_facts()).value == "ce+lovasz"


def test_learning_rate_follows_batch_and_initial_weights():
    # That of adamw is 1e-3 sqrt(16 / 64) = 5e-4.
    assert rules.choose_learning_rate(16, has_weights=True).value == 1e-3
    assert rules.choose_learning_rate(16, has_weights=False).value == 3e-3
    assert rules.choose_learning_rate(64, has_weights=True).value == 2e-3


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    # 1e-4 sqrt(16 / 64), 1e-2 16 / 16; adamw has twice its own.
    [("lion", 5e-5), ("sgd", 1e-2), ("adamw", 1e-3)],
)
def test_another_optimizer_has_its_own_learning_rate(optimizer, rate):
    choice = rules.choose_learning_rate(16, True, optimizer)
    assert choice.value == rate
    reason = f"the default of {optimizer} for batches of 16"
    assert (choice.reason == reason) == (optimizer != "adamw")


@pytest.mark.parametrize(
    ("num_steps", "warmup", "decay"),
    [
        (1, 0, 0.0),
        (5, 2, 0.0),
        (39, 10, 0.0),
        (40, 10, 0.9),
        (399, 20, 0.9),
        (400, 20, 0.99),
        (20_000, 500, 0.999),
    ],
)
def test_warm_up_and_averages_follow_the_length(num_steps, warmup, decay):
    assert rules.choose_warmup(num_steps).value == warmup
    assert rules.choose_ema(num_steps).value == decay


def test_evaluations_take_a_tenth_of_the_time():
    measured = costs.Costs(start=10, step=0.1, evaluation=4, save=1)
    rhythm = costs.Rhythm(num_examples=100, batch_size=10)
    # 97 of 100 s: 5 s each, so two of them; 770 steps would be 77 epochs, so one each
    # 39 epochs, and 10 + 77 + 2 x 5 = 97.
    assert rules.choose_rhythm(measured, rhythm, 100, most=10**6) == (770, 39)
    # 20 at most, however cheap they are.
    cheap = dataclasses.replace(measured, evaluation=0.0, save=0.0)
    steps, between = rules.choose_rhythm(cheap, rhythm, 100, most=10**6)
    assert (steps, between) == (870, 5)
    assert rules.choose_rhythm(cheap, rhythm, 100, most=50) == (50, 1)


def test_saves_and_evaluations_that_are_asked_for_take_their_time():
    measured = costs.Costs(start=10, step=0.1, evaluation=4, save=1)
    rhythm = costs.Rhythm(num_examples=100, batch_size=10, checkpoint_interval=10)
    # A step with its tenth of a save takes 0.2 s: of 97 s 10 go into the start, and 10
    # into two evaluations. 385 steps are 38.5 epochs. The last of them needs no save
    # besides, and the first evaluation comes after 20 epochs.
    steps, between = rules.choose_rhythm(measured, rhythm, 100, most=10**6)
    assert between == 20
    # 390 steps, 38 saves and 2 evaluations with theirs: 10 + 39 + 38 + 10 = 97.
    assert steps == 390
    # 12 epochs of 10 steps, 11 saves, 12 evaluations with theirs: 10 + 12 + 11 + 60 =
    # 93. Another step would ask for 6 s more.
    found = rules.choose_rhythm(measured, rhythm, 100, most=10**6, between=1)
    assert found == (120, 1)


def test_more_than_six_times_the_epochs_is_of_no_use():
    # 6 x 30 epochs of 25 steps.
    assert rules.most_steps(_facts(), 16) == 4500


def test_costs_between_two_shapes():
    low = notes.Measured(
        costs=costs.Costs(start=10, step=1, evaluation=3, save=2), memory_bytes=100
    )
    high = notes.Measured(
        costs=costs.Costs(start=12, step=5, evaluation=3, save=2), memory_bytes=300
    )
    found = notes.interpolate(low, high, 0.25)
    assert found.costs == costs.Costs(start=10.5, step=2, evaluation=3, save=2)
    assert found.memory_bytes == 150
    assert notes.interpolate(low, high, -0.5).memory_bytes == 0


def test_the_recipe_is_that_of_the_recommended_flags():
    (given,) = flags.parse(
        [f"--flagfile={_ROOT / 'launch/flagfiles/recommended.flags'}"]
    ).from_files
    assert rules.RECIPE.items() <= given.items()
    assert given["loss"] == rules.choose_loss(_facts()).value
    changes = rules.choose_changes(_facts(num_train=5000), 40)
    assert {n: c.value for n, c in changes.items()}.items() <= given.items()
    assert given["encoder_lr_multiplier"] == rules.ENCODER_LR_MULTIPLIER
    # Nothing that depends on the data or the machine.
    assert not given.keys() & {"dataset", "image_size", "batch_size", "encoder"}
