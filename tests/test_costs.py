"""What a run takes, by hand: durations, costs of parts, the longest run that fits."""

import pytest

from trainer.planning import costs
from trainer.settings import durations


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


@pytest.mark.parametrize(
    ("text", "secs"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h30m5s", 5405),
        ("2h5s", 7205),
    ],
)
def test_duration_in_seconds(text, secs):
    assert durations.parse(text) == secs
    assert durations.parse(durations.describe(secs)) == secs


@pytest.mark.parametrize("text", ["", "x", "30", "1.5h", "m", "30m1h", "-3m", "3 m"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="give hours, minutes or seconds"):
        durations.parse(text)


@pytest.mark.parametrize("text", ["0s", "721h"])
def test_duration_out_of_range_is_refused(text):
    with pytest.raises(ValueError, match="between 1s and 720h"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("secs", "text"), [(0.2, "1s"), (59.1, "1m"), (61, "1m1s"), (3661, "1h1m1s")]
)
def test_duration_is_rounded_up(secs, text):
    assert durations.describe(secs) == text


# 10 examples in batches of 4: epochs end at the steps 3 (2.5), 5, 8 (7.5) and 10.
_RHYTHM = costs.Rhythm(num_examples=10, batch_size=4)


@pytest.mark.parametrize(
    ("num_steps", "evaluations"), [(1, 1), (3, 1), (4, 2), (5, 2), (6, 3), (10, 4)]
)
def test_evaluations_come_with_the_epochs_and_at_the_end(num_steps, evaluations):
    assert _RHYTHM.num_evaluations(num_steps) == evaluations


def test_evaluations_every_two_epochs():
    rhythm = costs.Rhythm(num_examples=10, batch_size=4, epochs_between_evals=2)
    # At the steps 5, 10 and the last one.
    assert [rhythm.num_evaluations(n) for n in (5, 6, 10, 12)] == [1, 2, 2, 3]


def test_batches_of_several_epochs_have_one_evaluation_each():
    rhythm = costs.Rhythm(num_examples=3, batch_size=8)
    assert [rhythm.num_evaluations(n) for n in (1, 2, 5)] == [1, 2, 5]


def test_saves_come_with_the_evaluations_and_at_an_interval():
    rhythm = costs.Rhythm(num_examples=10, batch_size=4, checkpoint_interval=4)
    # The evaluations at 3, 5, 8, 9; the interval's are at 4 and 8.
    assert rhythm.num_saves(9) == 4 + 2


_COSTS = costs.Costs(start=20, step=2, evaluation=5, save=1, end=3)


@pytest.mark.parametrize(
    ("num_steps", "secs"),
    [
        # 20 + 2 + 5 + 1 + 3
        (1, 31),
        # 20 + 8 + 2 (5 + 1) + 3
        (4, 43),
        # 20 + 20 + 4 (5 + 1) + 3
        (10, 67),
    ],
)
def test_duration_is_the_sum_of_the_parts(num_steps, secs):
    assert costs.duration(_COSTS, _RHYTHM, num_steps) == secs


@pytest.mark.parametrize(
    ("secs", "num_steps"), [(30.9, 0), (31, 1), (42.9, 3), (43, 4), (67, 10)]
)
def test_the_longest_run_that_fits(secs, num_steps):
    assert costs.most_steps(_COSTS, _RHYTHM, secs, limit=100) == num_steps


def test_the_longest_run_has_a_limit():
    assert costs.most_steps(_COSTS, _RHYTHM, 1e9, limit=100) == 100
