"""Which examples are named when a batch cannot be trained on."""

import types

import pytest
import tensorflow as tf

from data import schema
from trainer import errors
from trainer.loop import feed


class _Setup:
    """Trains on batches of the examples 2k and 2k + 1 at step k."""

    def __init__(self):
        self.examples = types.SimpleNamespace(names=[f"{i}.jpg" for i in range(20)])
        self.step = 0
        self.read = []

    def make_iterator(self, start_step, *, is_one_batch=False):
        return iter(())

    def step_ids(self, step):
        return [2 * step, 2 * step + 1]

    def read_again(self, first, stop):
        self.read.append((first, stop))
        if 3 in range(first, stop):
            raise schema.DataError("7.jpg is damaged.")


def _make_loop(setup, *, most=9, failing_at=None, diverging_at=None):
    def run(iterator, num_steps):
        for _ in range(min(int(num_steps), most)):
            if setup.step == failing_at:
                raise tf.errors.InvalidArgumentError(None, None, "damaged")
            if setup.step == diverging_at:
                break
            setup.step += 1
        norm = tf.constant(float("nan"))
        is_finite = tf.constant(setup.step != diverging_at)
        return types.SimpleNamespace(is_finite=is_finite, gradient_norm=norm)

    return types.SimpleNamespace(run=run)


def test_an_error_is_looked_for_in_the_batches_that_were_due():
    setup = _Setup()
    batches = feed.Feed(setup, 0)
    batches.train(_make_loop(setup, most=2), 5)  # To the end of a phase.
    with pytest.raises(schema.DataError, match="^7.jpg is damaged"):
        batches.train(_make_loop(setup, failing_at=3), 4)
    assert setup.read == [(2, 6)]


def test_an_error_that_no_example_is_to_blame_for_stays_what_it_is():
    setup = _Setup()
    batches = feed.Feed(setup, 4)

    def fail(iterator, num_steps):
        raise tf.errors.UnavailableError(None, None, "gone")

    assert batches.take(lambda iterator, num_steps: int(num_steps), 2) == 2
    with pytest.raises(tf.errors.UnavailableError):
        batches.take(fail, 3)
    assert setup.read == [(6, 9)]


def test_the_examples_of_a_step_that_diverges_are_those_of_its_batch():
    setup = _Setup()
    setup.step = 100  # The variables have been trained by another feed.
    batches = feed.Feed(setup, 0)
    message = r"step 103 are not finite \(gradient norm nan\).*: 6.jpg, 7.jpg\.$"
    with pytest.raises(errors.NonFiniteError, match=message):
        batches.train(_make_loop(setup, diverging_at=103), 9)


def test_one_batch_again_and_again_is_that_of_its_step():
    setup = _Setup()
    batches = feed.Feed(setup, 2, is_one_batch=True)
    batches.train(_make_loop(setup), 3)
    with pytest.raises(errors.NonFiniteError, match=r"step 4 .*: 4.jpg, 5.jpg\.$"):
        batches.train(_make_loop(setup, diverging_at=4), 5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches.train(_make_loop(setup, failing_at=4), 5)
    assert setup.read == [(2, 3)]
