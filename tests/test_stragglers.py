"""Times of workers: who keeps the others waiting."""

import pytest

from trainer.distributing import pauses, step_clock, stragglers


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
