"""The sums that a checkpoint keeps, of this version's runs and of older ones."""

import json
import types

import numpy as np
import pytest

from trainer.loop import window
from trainer.losses import registry
from trainer.metrics import confusion as confusion_lib

_CONFUSION = [[3, 1], [0, 2]]
_SUMS = np.array([1.0, 6.0, 2.5, 1.0, 3.25, 2.75, 4.0, 2.0]) / 3


@pytest.fixture(name="confusion")
def _confusion():
    return confusion_lib.ConfusionMatrix(("a", "b"))


@pytest.fixture(name="loss")
def _loss():
    return registry.make("ce+0.5*dice", 2)


def _is_state(value, loss):
    return window.is_state(value, loss=loss, num_classes=2)


def test_a_window_goes_on_with_the_same_bits(loss, confusion):
    result = types.SimpleNamespace(sums=types.SimpleNamespace(numpy=lambda: _SUMS))
    first = window.Window(loss, confusion)
    first.add(result)
    confusion._counts.assign(_CONFUSION)
    state = json.loads(json.dumps(first.state()))
    assert _is_state(state, loss)
    confusion.reset()
    second = window.Window(loss, confusion, state)
    assert second.scores() == first.scores() | second.scores()
    for each in (first, second):
        each.add(result)
    np.testing.assert_equal(second.state()["sums"], first.state()["sums"])
    assert second.counts().tolist() == _CONFUSION
    second.close()
    assert np.isnan(second.scores()["loss"])
    assert second.recent_counts().tolist() == _CONFUSION


def test_a_window_of_an_older_run_is_one_of_cross_entropy(confusion):
    state = {"total": 3.5, "count": 7.0, "confusion": _CONFUSION}
    loss = registry.make("ce", 2)
    assert _is_state(state, loss)
    scores = window.Window(loss, confusion, state).scores()
    assert (scores["loss"], scores["loss/ce"]) == (0.5, 0.5)
    assert scores["pixel_accuracy"] == 5 / 6


@pytest.mark.parametrize(
    "change",
    [
        {"sums": {"ce": [1.0, 2.0]}},
        {"sums": {"ce": [1.0, 2.0], "dice": [1.0] * 5}},
        {"sums": {"ce": [1.0, "2"], "dice": [1.0] * 6}},
        {"sums": {"ce": [1.0, None], "dice": [1.0] * 6}},
        {"sums": {"ce": [1.0, 2.0], "dice": [1.0] * 6, "focal": [1.0]}},
        {"sums": {"ce": [1.0, 2.0], "dice": 3}},
        {"sums": [1.0] * 8},
        {"sums": None},
        {"confusion": [[1.0, 0.0], [0.0, 1.0]]},
        {"confusion": [[1, 0]]},
        {"confusion": [[1, 0], [1]]},
        {"confusion": None},
    ],
    ids=repr,
)
def test_what_is_no_window_of_this_run_is_seen(loss, change):
    state = {"sums": loss.by_term(_SUMS), "confusion": _CONFUSION}
    assert _is_state(state, loss)
    assert not _is_state({**state, **change}, loss)


@pytest.mark.parametrize("value", [{}, [], 3, None, {"total": 1.0, "count": 2.0}])
def test_what_is_no_window_at_all_is_seen(loss, value):
    assert not _is_state(value, loss)
