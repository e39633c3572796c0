"""Learning rates by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.optimizing import schedules

# Peak 0.8 in each row.
_TABLE = [
    # decay, num_steps, warmup_steps, power, step, expected
    ("constant", 8, 0, 1.0, 0, 0.8),
    ("constant", 8, 0, 1.0, 7, 0.8),
    ("constant", 8, 0, 1.0, 100, 0.8),
    # Warm-up over 4 steps: 0.8 * (k + 1) / 4.
    ("constant", 12, 4, 1.0, 0, 0.2),
    ("constant", 12, 4, 1.0, 2, 0.6),
    ("constant", 12, 4, 1.0, 3, 0.8),
    ("constant", 12, 4, 1.0, 4, 0.8),
    # (1 + cos(pi k / 8)) / 2: at 2 of 8, cos(pi / 4) = 0.7071068.
    ("cosine", 8, 0, 1.0, 0, 0.8),
    ("cosine", 8, 0, 1.0, 2, 0.6828427),
    ("cosine", 8, 0, 1.0, 4, 0.4),
    ("cosine", 8, 0, 1.0, 8, 0.0),
    # Not up again: (1 + cos(15 pi / 8)) / 2 would be 0.96.
    ("cosine", 8, 0, 1.0, 15, 0.0),
    # The same course, begun at step 4.
    ("cosine", 12, 4, 1.0, 1, 0.4),
    ("cosine", 12, 4, 1.0, 4, 0.8),
    ("cosine", 12, 4, 1.0, 6, 0.6828427),
    ("cosine", 12, 4, 1.0, 12, 0.0),
    # (1 - k / 8)^power: 0.75 * 0.8, 0.75^2 * 0.8, 0.25^0.5 * 0.8.
    ("polynomial", 8, 0, 1.0, 2, 0.6),
    ("polynomial", 8, 0, 2.0, 2, 0.45),
    ("polynomial", 8, 0, 0.5, 6, 0.4),
    ("polynomial", 8, 0, 0.5, 8, 0.0),
    ("polynomial", 8, 0, 0.5, 100, 0.0),
    ("polynomial", 12, 4, 2.0, 0, 0.2),
    ("polynomial", 12, 4, 2.0, 6, 0.45),
    # A warm-up that fills the run but for one step.
    ("cosine", 5, 4, 1.0, 3, 0.8),
    ("cosine", 5, 4, 1.0, 4, 0.8),
]


@pytest.mark.parametrize(
    ("decay", "num_steps", "warmup_steps", "power", "step", "expected"), _TABLE
)
def test_rate_at_step(decay, num_steps, warmup_steps, power, step, expected):
    schedule = schedules.WarmupSchedule(
        0.8,
        decay=decay,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        power=power,
    )
    rate = schedule(tf.constant(step, tf.int64))
    np.testing.assert_allclose(rate, expected, rtol=1e-6, atol=1e-7)


def test_rate_is_the_same_inside_a_tf_function():
    schedule = schedules.WarmupSchedule(
        0.8, decay="cosine", num_steps=12, warmup_steps=4
    )
    rates = tf.function(schedule)
    steps = [tf.constant(step) for step in (1, 6)]
    np.testing.assert_allclose(
        [rates(step) for step in steps], [0.4, 0.6828427], rtol=1e-6
    )


def test_a_traced_rate_follows_a_length_that_is_set_later():
    length = tf.Variable(10**8, dtype=tf.int64)
    schedule = schedules.WarmupSchedule(
        0.8, decay="cosine", num_steps=length, warmup_steps=4
    )
    rate = tf.function(schedule)
    # The course has hardly begun: 0.8 but for 0.2 pi^2 (2 / 10^8)^2.
    np.testing.assert_allclose(rate(tf.constant(6)), 0.8, rtol=1e-6)
    length.assign(12)
    np.testing.assert_allclose(rate(tf.constant(6)), 0.6828427, rtol=1e-6)
    assert schedule.get_config()["num_steps"] == 12


def test_config_makes_the_same_schedule():
    original = schedules.WarmupSchedule(
        0.8, decay="polynomial", num_steps=12, warmup_steps=4, power=2.0
    )
    copy = schedules.WarmupSchedule.from_config(original.get_config())
    assert [float(copy(k)) for k in range(14)] == [
        float(original(k)) for k in range(14)
    ]


def test_optimizer_reports_the_rate_of_its_next_step():
    schedule = schedules.WarmupSchedule(
        0.8, decay="constant", num_steps=12, warmup_steps=4
    )
    optimizer = keras.optimizers.SGD(schedule)
    weight = keras.Variable([1.0])
    optimizer.build([weight])
    reported = [float(optimizer.learning_rate)]
    for _ in range(2):
        optimizer.apply([tf.constant([1.0])])
        reported.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(reported, [0.2, 0.4, 0.6], rtol=1e-6)


def test_rate_is_not_a_variable_of_the_optimizer():
    schedule = schedules.WarmupSchedule(0.8, decay="constant", num_steps=12)
    optimizer = keras.optimizers.SGD(schedule)
    optimizer.build([keras.Variable([1.0])])
    assert [variable.name for variable in optimizer.variables] == ["iteration"]
