"""Updates of one weight by hand; no number of replicas changes them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.optimizing import optimization, rate_multiples, schedules
from trainer.settings import config


def _constant(rate: float) -> schedules.WarmupSchedule:
    return schedules.WarmupSchedule(rate, decay="constant", num_steps=10)


@pytest.mark.parametrize(
    ("name", "settings", "after_one", "after_two"),
    [
        # Learning rate 0.1, weight 1, gradients 1 and -1.
        # Adam, step 1: mean 0.1 / (1 - 0.9) = 1, variance 0.001 / (1 - 0.999) = 1,
        #   so 1 - 0.1 * 1 / 1 = 0.9.
        # Step 2: mean (0.9 * 0.1 - 0.1) / (1 - 0.81) = -0.01 / 0.19 = -0.0526316,
        #   variance (0.999 * 0.001 + 0.001) / (1 - 0.998001) = 1,
        #   so 0.9 + 0.1 * 0.0526316 = 0.9052632.
        ("adam", {}, 0.9, 0.9052632),
        # Decay takes 0.1 * 0.1 = 1% of the weight before the same move:
        #   0.99 - 0.1 = 0.89 and 0.89 * 0.99 + 0.0052632 = 0.8863632.
        ("adamw", {"weight_decay": 0.1}, 0.89, 0.8863632),
        ("adamw", {"weight_decay": 0.0}, 0.9, 0.9052632),
        # Velocity -0.1, then 0.5 * -0.1 + 0.1 = 0.05.
        ("sgd", {"momentum": 0.5}, 0.9, 0.95),
        # 0.9 * -0.1 + 0.1 = 0.01 with the default momentum.
        ("sgd", {}, 0.9, 0.91),
        ("sgd", {"momentum": 0.0}, 0.9, 1.0),
        # 0.89, then 0.89 * 0.99 + 0.05 = 0.9311.
        ("sgd", {"momentum": 0.5, "weight_decay": 0.1}, 0.89, 0.9311),
        # Steps of 0.1 against the sign of 0.9 * 0 + 0.1 * 1, and of 0.9 * 0.01 - 0.1.
        ("lion", {}, 0.9, 1.0),
        # 0.99 - 0.1, then 0.89 * 0.99 + 0.1 = 0.9811.
        ("lion", {"weight_decay": 0.1}, 0.89, 0.9811),
    ],
)
def test_two_steps_by_hand(name, settings, after_one, after_two):
    optimizer = optimization.build_optimizer(name, _constant(0.1), **settings)
    weight = keras.Variable([1.0], name="kernel")
    optimizer.build([weight])
    values = []
    for gradient in (1.0, -1.0):
        optimizer.apply([tf.constant([gradient])], [weight])
        values.append(float(weight.numpy()[0]))
    # Adam's epsilon of 1e-7 is left out of the arithmetic above.
    np.testing.assert_allclose(values, [after_one, after_two], rtol=3e-6)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("name", "settings", "moved", "slow"),
    [
        # As above, at a tenth of the learning rate: 0.01.
        # Adam: 1 - 0.01, then + 0.01 * 0.0526316.
        ("adam", {}, 0.9052632, (0.9905263, 0.9905263)),
        # Decay takes 0.01 * 0.1 = 0.1% of the kernel before each move, none of the
        #   bias: 0.999 - 0.01 = 0.989, and 0.989 * 0.999 + 0.000526316 = 0.9885373.
        ("adamw", {"weight_decay": 0.1}, 0.8863632, (0.9885373, 0.9905263)),
        # Velocity -0.01, then 0.5 * -0.01 + 0.01 = 0.005.
        ("sgd", {"momentum": 0.5}, 0.95, (0.995, 0.995)),
        # 0.999 - 0.01 = 0.989, then 0.989 * 0.999 + 0.005 = 0.993011.
        ("sgd", {"momentum": 0.5, "weight_decay": 0.1}, 0.9311, (0.993011, 0.995)),
        # 0.999 - 0.01 = 0.989, then 0.989 * 0.999 + 0.01 = 0.998011.
        ("lion", {"weight_decay": 0.1}, 0.9811, (0.998011, 1.0)),
    ],
)
def test_two_steps_at_a_tenth_of_the_learning_rate(
    name, settings, moved, slow, replicas
):
    strategy = helpers.make_strategy(replicas)
    with strategy.scope():
        weights = [
            keras.Variable([1.0], name=kind) for kind in ("kernel", "kernel", "bias")
        ]
        optimizer = optimization.build_optimizer(name, _constant(0.1), **settings)
        optimizer.slow_down(weights[1:], 0.1)
        optimizer.build(weights)

    @tf.function
    def step(gradient):
        strategy.run(lambda: optimizer.apply([gradient] * 3, weights))

    for gradient in (1.0, -1.0):
        step(tf.constant([gradient]))
    values = [float(weight.numpy()[0]) for weight in weights]
    np.testing.assert_allclose(values, [moved, *slow], rtol=3e-6)


def test_every_optimizer_can_slow_variables_down():
    field = config.fields_by_name()["optimizer"]
    for name in field.metadata["choices"]:
        optimizer = optimization.build_optimizer(name, _constant(0.1))
        assert isinstance(optimizer, rate_multiples.RateMultiple)


@pytest.mark.cross_section
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_one_op_updates_as_keras_does(name):
    keras.config.set_floatx("float64")
    decay = {"weight_decay": 0.03} if name == "adamw" else {}
    kind = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name]
    random = np.random.default_rng(0)
    start, *gradients = random.normal(size=(6, 3, 2))
    results = []
    for optimizer in (
        optimization.build_optimizer(name, _constant(0.1), **decay),
        kind(_constant(0.1), **decay),
    ):
        weight = keras.Variable(start, name="kernel")
        optimizer.build([weight])
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [weight])
        variables = [weight, *optimizer.variables]
        results.append({v.path.rpartition("/")[2]: v.numpy() for v in variables})
    ours, theirs = results
    assert list(ours) == list(theirs)
    assert len(ours) == 4  # The weight, two slots and the count of steps.
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-9)


def test_learning_rate_follows_the_schedule():
    schedule = schedules.WarmupSchedule(
        0.4, decay="constant", num_steps=10, warmup_steps=4
    )
    optimizer = optimization.build_optimizer("sgd", schedule, momentum=0.0)
    weight = keras.Variable([1.0], name="kernel")
    optimizer.build([weight])
    for _ in range(2):
        optimizer.apply([tf.constant([1.0])], [weight])
    # 1 - 0.1 - 0.2
    np.testing.assert_allclose(weight.numpy(), [0.7], rtol=1e-6)


def _decayed_names(name: str) -> set[str]:
    """Returns the variables that a step without gradient shrinks by 5%."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 1),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2DTranspose(2, 1),
        ]
    )
    optimizer = optimization.build_optimizer(name, _constant(0.1), weight_decay=0.5)
    variables = model.trainable_variables
    optimizer.build(variables)
    for variable in variables:
        ramp = np.arange(1, np.prod(variable.shape) + 1, dtype=np.float32)
        variable.assign(ramp.reshape(variable.shape))
    before = [variable.numpy() for variable in variables]
    optimizer.apply([tf.zeros(variable.shape) for variable in variables], variables)
    changed = set()
    for variable, value in zip(variables, before, strict=True):
        if not np.array_equal(variable.numpy(), value):
            np.testing.assert_allclose(variable.numpy(), 0.95 * value, rtol=1e-6)
            changed.add("/".join(variable.path.split("/")[-2:]))
    return changed


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
def test_weight_decay_shrinks_kernels_only(name):
    names = _decayed_names(name)
    assert {path.split("/")[-1] for path in names} == {"kernel"}
    # Both of the convolutions.
    assert len(names) == 2


@pytest.mark.cross_section
@pytest.mark.parametrize("replicas", [1, 2])
def test_summed_gradient_moves_a_weight_once(replicas):
    strategy = helpers.make_strategy(replicas)
    with strategy.scope():
        weight = keras.Variable([5.0], name="kernel")
        optimizer = optimization.build_optimizer("sgd", _constant(1.0), momentum=0.0)
        optimizer.build([weight])

    @tf.function
    def step():
        strategy.run(lambda: optimizer.apply([tf.constant([1.0])], [weight]))

    step()
    # 5 - 1 * 1; added up once more, it would be 5 - replicas.
    assert weight.numpy() == [4.0]


def _scales(loss_scale: optimization.LossScale, finite: str) -> list[float]:
    """Returns the scale after each step; "f" is a finite one, "o" an overflow."""
    scales = []
    for letter in finite:
        loss_scale.update(tf.constant(letter == "f"))
        scales.append(float(loss_scale.scale.numpy()))
    return scales


@pytest.mark.parametrize(
    ("start", "finite", "expected"),
    [
        (8.0, "o", [4]),
        (8.0, "oo", [4, 2]),
        # The third finite step in a row doubles it, and the count begins anew.
        (8.0, "ffffff", [8, 8, 16, 16, 16, 32]),
        # An overflow begins the count anew, too.
        (8.0, "ffofff", [8, 8, 4, 4, 4, 8]),
        # Never below 1.
        (2.0, "ooo", [1, 1, 1]),
        # Never above 2^127, twice which is no float32.
        (2.0**126, "ffffff", [2.0**126] * 2 + [2.0**127] * 4),
    ],
)
def test_scale_halves_at_overflows_and_doubles_after_three_steps(
    start, finite, expected
):
    loss_scale = optimization.LossScale(is_dynamic=True, growth_interval=3)
    loss_scale.scale.assign(start)
    assert _scales(loss_scale, finite) == expected


def test_dynamic_scale_starts_at_two_to_the_15th():
    assert optimization.LossScale(is_dynamic=True).scale.numpy() == 32768.0


def test_static_scale_stays_at_one():
    loss_scale = optimization.LossScale(is_dynamic=False, growth_interval=2)
    assert _scales(loss_scale, "ffoff") == [1.0] * 5


@pytest.mark.parametrize(("scale", "expected"), [(2.0, True), (1.0, False)])
def test_scale_can_shrink_down_to_one(scale, expected):
    loss_scale = optimization.LossScale(is_dynamic=True)
    loss_scale.scale.assign(scale)
    loss_scale.finite_steps.assign(1)
    assert bool(loss_scale.can_shrink()) is expected


def _move(loss_scale, *, to_dynamic: bool) -> optimization.LossScale:
    """Returns the scale that goes on in another precision from the same checkpoint."""
    other = optimization.LossScale(is_dynamic=to_dynamic, growth_interval=3)
    other.scale.assign(loss_scale.scale)
    other.finite_steps.assign(loss_scale.finite_steps)
    return other


def test_float16_after_another_precision_starts_with_the_first_scale():
    static = optimization.LossScale(is_dynamic=False)
    _scales(static, "ff")
    dynamic = _move(static, to_dynamic=True)
    assert float(dynamic.value()) == 2.0**15
    assert bool(dynamic.can_shrink())
    assert _scales(dynamic, "ofo") == [2.0**14, 2.0**14, 2.0**13]


def test_another_precision_after_float16_does_not_scale():
    dynamic = optimization.LossScale(is_dynamic=True)
    _scales(dynamic, "of")
    static = _move(dynamic, to_dynamic=False)
    _scales(static, "of")
    assert float(static.value()) == 1.0
    assert not bool(static.can_shrink())
    # And float16 finds its scale again.
    assert float(_move(static, to_dynamic=True).value()) == 2.0**14


def test_float16_goes_on_with_a_scale_that_has_just_shrunk_to_one():
    dynamic = optimization.LossScale(is_dynamic=True, growth_interval=3)
    dynamic.scale.assign(2.0)
    _scales(dynamic, "o")
    resumed = _move(dynamic, to_dynamic=True)
    assert float(resumed.value()) == 1.0
    assert not bool(resumed.can_shrink())
    assert _scales(resumed, "fff") == _scales(dynamic, "fff")
