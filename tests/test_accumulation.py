"""A batch in parts trains as the whole of it, on every number of replicas."""

import numpy as np
import pytest

from models.fast import normalization
from tests import helpers, test_steps


def _train(num_parts, **kwargs):
    """Trains on unevenly ignored pixels; returns losses, weights and counts."""
    examples = helpers.make_store(ignored=0.3)
    examples = helpers.relabel(examples, np.s_[::3, :20], 255)
    rig = helpers.Rig(examples, num_parts=num_parts, flip=True, **kwargs)
    return rig.train(3), rig.weights(), rig.confusion.counts()


def _assert_equal(actual, expected):
    np.testing.assert_allclose(actual[0], expected[0], rtol=2e-5)
    for value, other in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(actual[2], expected[2])


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("loss", ["ce", "ce+0.5*dice"])
def test_parts_train_as_the_whole_batch(loss, replicas):
    """Dropout, too, which is drawn by row."""
    kwargs = {"loss": loss, "build": test_steps._build_dropping}

    whole = _train(1, **kwargs)

    _assert_equal(_train(4, replicas=replicas, **kwargs), whole)


def test_parts_are_the_same_on_two_replicas():
    """Batch norm, which sees a part, tells what is in it."""
    one = _train(2)

    _assert_equal(_train(2, replicas=2), one)

    assert not np.allclose(one[0], _train(1)[0], rtol=1e-4)


def test_statistics_move_once_for_each_part():
    """And not when the sums of the loss are taken ahead, as for Dice."""
    moved = []
    for loss in ("ce", "dice"):
        rig = helpers.Rig(helpers.make_store(), num_parts=2, loss=loss)
        rig.train(1)
        (norm,) = normalization._find_norms(rig.model)
        moved.append([norm.moving_mean.numpy(), norm.moving_variance.numpy()])
    np.testing.assert_array_equal(*moved)
    assert np.abs(moved[0][0]).max() > 1e-4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_parts_in_reduced_precision(policy):
    kwargs = {"policy": policy, "build": test_steps._build_dropping}

    losses = [_train(num_parts, **kwargs)[0] for num_parts in (1, 4)]

    np.testing.assert_allclose(*losses, rtol=1e-2)
