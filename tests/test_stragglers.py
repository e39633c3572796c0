"""Times of steps: what waits for input, and which worker keeps the others waiting."""

import types

import pytest
import tensorflow as tf

from tests import helpers
from trainer.distributing import cluster, pauses, step_clock, stragglers


def _times(*rows):
    return [step_clock.Times(*row) for row in rows]


def test_own_time_leaves_the_wait_for_others_out():
    # The slowest waits 60 ms for its input and stands still for 20 ms: the computation
    # takes the rest of the shortest step, 100 - 80 = 20 ms.
    times = _times((0.1, 0.0, 0.0), (0.1, 0.06, 0.02), (0.13, 0.01, 0.0))
    assert stragglers.own_secs(times) == pytest.approx([0.02, 0.1, 0.03])


def test_delays_that_count_twice_leave_no_negative_computation():
    assert stragglers.own_secs(_times((0.1, 0.1, 0.1), (0.1, 0.0, 0.0))) == (
        pytest.approx([0.2, 0.0])
    )


@pytest.mark.parametrize(
    ("delays", "slow"),
    [
        # Steps of 90 ms; with 30 ms of delay the others need 60: 1.5 times as much.
        ([0.03, 0.0], {0}),
        ([0.029, 0.0], set()),
        ([0.0, 0.03, 0.0], {1}),
        # Of own times 60, 80, 90 ms, the median is 80.
        ([0.0, 0.02, 0.03], set()),
        # Of 90, 90, 60, 60 ms, the faster of the two in the middle: 60.
        ([0.03, 0.03, 0.0, 0.0], {0, 1}),
        ([0.0, 0.0], set()),
    ],
)
def test_half_as_slow_again_as_the_median_is_slow(delays, slow):
    assert stragglers.find_slow(_times(*((0.09, d, 0.0) for d in delays))) == slow
    assert stragglers.find_slow(_times(*((0.09, 0.0, d) for d in delays))) == slow


def test_input_that_is_not_measured_counts_as_no_delay():
    nan = float("nan")
    times = _times((0.09, nan, 0.03), (0.09, nan, 0.0))
    assert stragglers.own_secs(times) == pytest.approx([0.09, 0.06])


def test_no_time_at_all_is_not_slow():
    assert stragglers.find_slow(_times((0, 0, 0), (0, 0, 0))) == set()


def test_a_late_look_at_the_clock_is_a_pause():
    now = 10.0
    meter = pauses.PauseMeter(lambda: now)
    for seconds in (0.05, 0.09, 0.1):  # Late by 0, 40, 50 ms: as on a busy machine.
        now += seconds
        meter.look()
    assert meter.secs == pytest.approx(0, abs=1e-9)
    now += 1.05
    assert meter.secs == pytest.approx(1.0)  # Known before the thread looks.
    meter.look()
    now += 0.05
    meter.look()
    assert meter.secs == pytest.approx(1.0)


def test_the_first_call_of_each_phase_does_not_count(monkeypatch):
    now, paused = 0.0, 0.0
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: now)
    clock = step_clock.StepClock(lambda: paused)
    for phase, secs in (("a", 60.0), ("a", 1.0), ("a", 2.0), ("b", 50.0)):
        clock.start()
        now += secs
        paused += secs / 4
        clock.stop(3, phase, secs / 2)
    # 3 s of 6 steps.
    assert clock.times == step_clock.Times(0.5, 0.25, 0.125)
    clock.reset()
    assert clock.times is None


class _Batches:
    """An iterator whose batches take as long as it is told, by a clock of the test."""

    def __init__(self, iterator, clock):
        self._iterator, self._clock, self.secs = iterator, clock, 0.0

    def __next__(self):
        with tf.control_dependencies([tf.py_function(self._wait, [], [])]):
            return next(self._iterator)

    def _wait(self):
        self._clock.now += self.secs


def test_input_share_is_high_where_the_input_is_slow(monkeypatch):
    now = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: now.now)

    def timestamp():
        return tf.ensure_shape(tf.py_function(lambda: now.now, [], tf.float64), [])

    monkeypatch.setattr(tf, "timestamp", timestamp)
    rig = helpers.Rig(helpers.make_store(), measures_input=True)
    batches = _Batches(rig.batches(), now)
    clock, shares = step_clock.StepClock(), []
    for input_secs in (1.0, 6.0, 0.0):
        batches.secs = input_secs
        clock.reset()
        clock.start()
        result = rig.loop.run(batches, tf.constant(3))
        now.now += 3 * 2.0  # For the computation of three steps.
        clock.stop(3, "", float(result.input_secs))
        shares.append(clock.times and clock.times.input_share)
    # Nothing of the first call; 6 s of the 8 s of a step; none of 2 s.
    assert shares == [None, 0.75, 0.0]


def test_input_share_of_several_workers_is_that_of_the_one_that_waits_longest(
    monkeypatch,
):
    strategy = types.SimpleNamespace()
    others = [[0.0] * 3, [4.0, 3.0, 0.0], [4.0, 2.0, 0.0]]
    monkeypatch.setattr(cluster, "Sum", lambda strategy: lambda table: table + others)
    monkeypatch.setattr(cluster, "num_workers", lambda strategy: 3)
    monkeypatch.setattr(cluster, "worker_index", lambda strategy: 0)
    monkeypatch.setattr(cluster, "gather", lambda strategy, own: ["a", "b", "c"])
    monkeypatch.setattr(pauses.PauseMeter, "start", lambda self: None)
    comparison = stragglers.Comparison(strategy)
    scores = comparison.report(step_clock.Times(4.0, 1.0, 0.0))
    assert scores["input_share"] == 0.75
    assert scores["workers/1-b/input_ms"] == 3000
