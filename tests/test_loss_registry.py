"""Losses by their names, and what holds for each of them.

That they are what their papers say is in `test_loss_references`.
"""

import dataclasses
import importlib
import inspect
import re

import numpy as np
import pytest
import tensorflow as tf

from trainer import errors, flags
from trainer.losses import registry
from trainer.settings import loss as loss_settings

_IGNORED = 255


@pytest.mark.parametrize(
    ("text", "weights", "canonical"),
    [
        ("ce", {"ce": 1}, "ce"),
        ("1*ce", {"ce": 1}, "ce"),
        ("ce+0.5*dice", {"ce": 1, "dice": 0.5}, "ce+0.5*dice"),
        (" 2.5 * dice + ce ", {"dice": 2.5, "ce": 1}, "2.5*dice+ce"),
        ("1e20*ce", {"ce": 1e20}, "1e20*ce"),
    ],
)
def test_a_weighted_sum_is_read_and_written(text, weights, canonical):
    assert registry.parse(text) == weights
    assert registry.format_sum(weights) == canonical
    assert registry.parse(canonical) == weights


def _draw(num_classes=3):
    random = np.random.default_rng(0)
    labels = random.integers(0, num_classes, (4, 5, 6)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.3] = _IGNORED
    labels[0] = _IGNORED
    logits = random.normal(size=(4, 5, 6, num_classes)).astype(np.float32)
    return logits, labels


@pytest.fixture(name="loss", params=registry.TERMS)
def _loss(request):
    return registry.make(request.param, 3, (0.5, 1.0, 2.0))


@pytest.mark.parametrize("num_parts", [2, 4])
def test_sums_of_parts_add_up(loss, num_parts):
    logits, labels = _draw()
    whole = loss.sums(logits, labels)
    assert (whole.dtype, whole.shape) == (tf.float32, [loss.num_sums])
    parts = [
        loss.sums(*part)
        for part in zip(
            np.split(logits, num_parts), np.split(labels, num_parts), strict=True
        )
    ]
    np.testing.assert_allclose(tf.add_n(parts), whole, rtol=1e-5)


def test_the_gradient_is_that_of_the_number(loss):
    logits, labels = _draw()
    logits = 2 * logits.astype(np.float64)

    def compute(logits):
        return loss.number(loss.sums(tf.constant(logits), labels)).numpy()

    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        sums = loss.sums(variable, labels)
    upstream = loss.derivative(sums) / loss.divisor(sums)
    gradient = tape.gradient(sums, variable, output_gradients=upstream).numpy()
    random = np.random.default_rng(1)
    for _ in range(3):
        # Along a direction in which every logit changes.
        direction = random.normal(size=logits.shape)
        ends = [compute(logits + side * direction) for side in (1e-6, -1e-6)]
        expected = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1e4, 100.0])
def test_extreme_logits_give_a_finite_loss_and_gradient(loss, size):
    logits, labels = _draw()
    logits = tf.Variable(np.sign(logits) * np.float32(size))
    with tf.GradientTape() as tape:
        sums = loss.sums(logits, labels)
    assert np.isfinite(loss.number(sums))
    upstream = loss.derivative(sums) / loss.divisor(sums)
    gradient = tape.gradient(sums, logits, output_gradients=upstream)
    assert np.isfinite(gradient).all()


def test_a_loss_is_traced_for_any_size(loss):
    logits, labels = _draw()
    sums = tf.function(
        loss.sums,
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32),
            tf.TensorSpec([None, None, None], tf.uint8),
        ],
    )
    np.testing.assert_allclose(
        sums(logits, labels), loss.sums(logits, labels), rtol=1e-6
    )


def test_xla_compiles_a_loss_and_its_gradient(loss):
    def compute(logits, labels):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            sums = loss.sums(logits, labels)
        upstream = loss.derivative(sums)
        return sums, tape.gradient(sums, logits, output_gradients=upstream)

    logits, labels = (tf.constant(x) for x in _draw())
    compiled = tf.function(compute, jit_compile=True)(logits, labels)
    for a, b in zip(compiled, compute(logits, labels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_logits_of_ignored_pixels_change_no_sum_and_have_no_gradient(loss):
    logits, labels = _draw()
    is_ignored = (labels == _IGNORED)[..., np.newaxis]
    changed = tf.Variable(np.where(is_ignored, 9 - 50 * logits, logits))
    with tf.GradientTape() as tape:
        sums = loss.sums(changed, labels)
    np.testing.assert_array_equal(sums, loss.sums(logits, labels))
    upstream = loss.derivative(sums)
    gradient = tape.gradient(sums, changed, output_gradients=upstream).numpy()
    assert (gradient[labels == _IGNORED] == 0).all() and gradient.any()


def test_a_batch_without_a_valid_pixel_costs_nothing(loss):
    logits, labels = _draw()
    sums = loss.sums(logits, np.full_like(labels, _IGNORED))
    assert loss.number(sums) == 0
    assert np.isfinite(loss.derivative(sums)).all()
    assert loss.divisor(sums) == 1


@pytest.mark.parametrize("what", ["all are ignored", "no class has a weight"])
@pytest.mark.parametrize("name", registry.TERMS)
def test_the_score_of_pixels_that_do_not_count_is_no_number(name, what):
    """A loss of 0 would be the best that there is."""
    logits, labels = _draw()
    labels[labels != 0 if what == "no class has a weight" else ...] = _IGNORED
    loss = registry.make("ce" if name == "ce" else f"ce+{name}", 3, (0.0, 1.0, 2.0))
    scores = loss.scores(loss.sums(logits, labels).numpy())
    assert set(scores) == {"loss", "loss/ce", f"loss/{name}"}
    assert np.isnan(list(scores.values())).all()


def test_class_weights_count(loss):
    logits, labels = _draw()
    plain = registry.make(next(iter(loss.by_term(np.zeros(loss.num_sums)))), 3)
    logits[..., 2] -= 3  # The class of the greatest weight is missed.
    values = [float(each.number(each.sums(logits, labels))) for each in (loss, plain)]
    assert values[0] > 1.05 * values[1]


def test_a_better_prediction_costs_less(loss):
    _, labels = _draw()
    one_hot = np.eye(256, dtype=np.float32)[labels][..., :3]
    costs = [loss.number(loss.sums(c * one_hot, labels)) for c in (-2, 0, 2, 4)]
    assert (np.diff(costs) < 0).all()


def test_sums_go_through_json_by_the_names_of_terms():
    loss = registry.make("ce+0.5*dice", 2)
    sums = np.arange(8) / 3
    named = loss.by_term(sums)
    assert {name: len(part) for name, part in named.items()} == {"ce": 2, "dice": 6}
    np.testing.assert_array_equal(loss.from_terms(named), sums)


_OTHER = {
    "label_smoothing": 0.3,
    "loss_top_k": 0.4,
    "focal_gamma": 1.0,
    "boundary_weight": 9.0,
    "boundary_width": 1,
    "tversky_alpha": 0.9,
    "tversky_beta": 0.2,
}
"""Values of the options away from the defaults, so that an ignored one shows."""

_OPTIONS = [(name, key) for name, row in registry.TERMS.items() for key in row.options]


def _setting(option):
    (found,) = (
        f for f in dataclasses.fields(loss_settings.LossConfig) if f.name == option
    )
    return found


@pytest.mark.parametrize(("name", "option"), _OPTIONS)
def test_an_option_is_a_setting_with_the_default_of_the_term(name, option):
    make = importlib.import_module(registry.TERMS[name].module).make
    parameter = inspect.signature(make).parameters[option]
    assert parameter.kind is parameter.KEYWORD_ONLY
    setting = _setting(option)
    assert setting.default == parameter.default
    assert name in setting.metadata["only_with"]["loss"]


def test_a_term_takes_what_its_row_says_and_no_more():
    for row in registry.TERMS.values():
        signature = inspect.signature(importlib.import_module(row.module).make)
        expected = ("num_classes", "class_weights", *row.options)
        assert tuple(signature.parameters) == expected


@pytest.mark.parametrize(("name", "option"), _OPTIONS)
def test_an_option_counts_where_its_term_is_in_the_sum(name, option):
    text, value = f"dice+2*{name}", _OTHER[option]
    config = flags.read_config(
        ["--model_dir=a", f"--loss={text}", f"--{option}={value}"]
    ).config
    assert config.loss.options()[option] == value
    assert config.saved()[option] == value
    logits = np.random.default_rng(0).normal(size=(2, 8, 20, 3)).astype(np.float32)
    labels = np.tile(np.arange(20) // 8, [2, 8, 1]).astype(np.uint8)
    plain, other = (
        registry.make(text, 3, options=options)
        for options in (None, config.loss.options())
    )
    values = [float(each.number(each.sums(logits, labels))) for each in (plain, other)]
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize("option", dict.fromkeys(key for _, key in _OPTIONS))
def test_an_option_without_its_term_is_refused(option):
    text = "0.5*dice"
    names = " or ".join(registry.terms_with(option))
    message = (
        f"--{option}={_OTHER[option]}: it has a meaning only with {names} in --loss, "
        f"and here is --loss={text}; leave it out."
    )
    with pytest.raises(errors.ConfigError, match=f"^{re.escape(message)}$"):
        flags.read_config(
            ["--model_dir=a", f"--loss={text}", f"--{option}={_OTHER[option]}"]
        )


def test_a_loss_that_cannot_be_read_is_refused_before_its_options():
    with pytest.raises(errors.ConfigError, match="^--loss=fokal: 'fokal' is no loss"):
        flags.read_config(["--model_dir=a", "--loss=fokal", "--focal_gamma=3"])


def test_an_option_that_no_term_takes_is_an_error():
    with pytest.raises(ValueError, match="^ce does not take focal_gamma$"):
        registry.make("ce", 3, options={"focal_gamma": 1.0})
