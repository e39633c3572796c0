"""Counts of work by hand, times of a clock that stands until somebody works."""

import re
import types

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.benchmarking import measuring, report
from trainer.losses import cross_entropy
from trainer.modes import benchmark


def _spec(*shape):
    return tf.TensorSpec(shape, tf.float32)


def test_a_convolution_multiplies_each_output_pixel_with_the_whole_kernel():
    kernel = tf.ones([3, 3, 4, 5])
    work = measuring.count_work(
        lambda x: tf.nn.conv2d(x, kernel, 2, "SAME"), _spec(2, 8, 6, 4)
    )
    assert work.flops == 2 * (2 * 4 * 3) * (3 * 3 * 4 * 5)


def test_a_depthwise_convolution_has_one_kernel_for_each_channel():
    kernel = tf.ones([3, 3, 4, 1])
    work = measuring.count_work(
        lambda x: tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"),
        _spec(2, 8, 6, 4),
    )
    assert work.flops == 2 * (2 * 8 * 6) * (3 * 3 * 4)


def test_a_transposed_convolution_multiplies_each_input_pixel():
    kernel = tf.ones([3, 3, 5, 4])
    work = measuring.count_work(
        lambda x: tf.nn.conv2d_transpose(x, kernel, [2, 16, 12, 5], 2),
        _spec(2, 8, 6, 4),
    )
    assert work.flops == 2 * (2 * 8 * 6) * (3 * 3 * 4 * 5)


def test_gradients_to_kernel_and_input_cost_a_convolution_each():
    kernel = tf.Variable(tf.ones([3, 3, 4, 5]))

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.square(tf.nn.conv2d(x, kernel, 1, "SAME")))
        return tape.gradient(total, [x, kernel])

    once = 2 * (2 * 8 * 6) * (3 * 3 * 4 * 5)
    assert measuring.count_work(gradients, _spec(2, 8, 6, 4)).flops == 3 * once


def test_a_product_of_matrices_counts_as_one():
    def multiply(x):
        return tf.matmul(x, tf.ones([4, 7]), transpose_a=True)

    # [6, 4] times [4, 7].
    assert measuring.count_work(multiply, _spec(4, 6)).flops == 2 * 6 * 4 * 7


@pytest.mark.parametrize("adjoint", [False, True])
def test_products_of_many_matrices_count_as_so_many(adjoint):
    shape = (2, 3, 6, 4) if adjoint else (2, 3, 4, 6)

    def attend(x):
        return tf.matmul(x, tf.ones([2, 3, 6, 7]), adjoint_a=adjoint)

    # Six times [4, 6] times [6, 7].
    work = measuring.count_work(attend, _spec(*shape))
    assert work.flops == 2 * 6 * 4 * 6 * 7


def test_what_leads_to_nothing_is_not_counted():
    def compute(x):
        tf.nn.conv2d(x, tf.ones([3, 3, 4, 5]), 1, "SAME")
        return x + 1

    assert measuring.count_work(compute, _spec(2, 8, 6, 4)) == (0, 1)


def test_the_tutorials_model_needs_no_gradient_to_its_frozen_skips():
    model = helpers.build_unet(
        size=128,
        encoder_alpha=1.0,
        freeze_encoder=True,
        decoder_filters=(512, 256, 128, 64),
    )

    def backpropagate(images):
        with tf.GradientTape() as tape:
            labels = tf.zeros([1, 128, 128], tf.uint8)
            logits = model(images, training=True)
            total, _ = tf.unstack(cross_entropy.CrossEntropy(3).sums(logits, labels))
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    # In millions of multiplications: encoder, decoder forward, the zeros of the logits'
    # kernel, to the decoder's kernels, and to those of its inputs that are not skips.
    millions = 91.3 + 494.3 + 13.8 + 494.3 + 233.6
    work = measuring.count_work(backpropagate, _spec(1, 128, 128, 3))
    assert work.flops / 2e6 == pytest.approx(millions, abs=0.2)


class _Clock:
    """A clock that stands until somebody works."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_contenders_have_their_turns_one_after_the_other(monkeypatch):
    clock, calls = _Clock(), []
    monkeypatch.setattr(measuring, "time", clock)
    slowness = iter([1, 1, 1, 1, 3, 1, 2, 1])  # Two calls each to find the steps.

    def make(name, secs):
        def run(steps):
            calls.append((name, steps))
            clock.now += steps * secs * next(slowness)

        return run

    timings = measuring.time_in_turn(
        {"a": make("a", 1.0), "b": make("b", 2.0)}, rounds=2, secs=4, agree=float
    )
    assert calls[4:] == [("a", 4), ("b", 2), ("a", 4), ("b", 2)]
    assert timings["a"] == (2.0, 2.5)
    assert timings["b"] == (2.0, 2.0)


def test_short_steps_are_timed_in_many(monkeypatch):
    clock, calls = _Clock(), []
    monkeypatch.setattr(measuring, "time", clock)

    def run(steps):
        calls.append(steps)
        clock.now += steps * 0.001

    measuring.time_in_turn({"a": run}, rounds=1, secs=2, agree=float)
    assert calls == [1, 1, 4, 16, 64, 2000]


def test_workers_take_as_many_steps_as_the_chief(monkeypatch):
    clock, calls, said = _Clock(), {1.0: [], 6.0: []}, []
    monkeypatch.setattr(measuring, "time", clock)

    def make(slowness):
        def run(steps):
            calls[slowness].append(steps)
            clock.now += steps * 0.01 * slowness

        return run

    def say(secs):
        said.append(secs)
        return secs

    measuring.time_in_turn({"a": make(1.0)}, rounds=2, secs=1, agree=say)
    # A slower worker, which hears what the chief has said.
    heard = iter(said)
    measuring.time_in_turn(
        {"a": make(6.0)}, rounds=2, secs=1, agree=lambda secs: next(heard)
    )
    assert calls[6.0] == calls[1.0] == [1, 1, 4, 16, 100, 100]


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_calibrations_compute_what_they_say(dtype):
    for run, flops in measuring.make_calibrations(dtype).values():
        run(1)
        assert flops > 1e9


def test_launches_are_as_many_ops_as_they_say():
    launch, count = measuring.make_launches()
    run = launch.__closure__[0].cell_contents
    ops = run.get_concrete_function().graph.get_operations()
    assert sum(op.type == "Sin" for op in ops) == count


def test_memory_in_use_is_that_of_the_process():
    big = np.ones(2**24)  # 128 MiB, touched.
    assert measuring.peak_memory_bytes("CPU:0") > big.nbytes


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"input_secs": 0.95}, "Limited by the input"),
        ({"num_ops": 200_000}, "Limited by launching 200000 ops"),
        ({"launch_secs": 1e-3}, "Limited by launching 700 ops"),
        (
            {"share_of_peak": 0.2},
            r"Limited by memory traffic.*20%.*bfloat16.*--enable_xla.* or a larger --b",
        ),
        (
            {"share_of_peak": 0.2, "has_half_precision": True, "is_compiled": True},
            r"Limited by memory traffic.* try a larger --batch_size\.$",
        ),
        (
            {"launch_secs": 1e-3, "is_compiled": True},
            r".*: try a larger --batch_size or more --steps_per_loop\.$",
        ),
        ({}, "Limited by arithmetic, at 60%.* faster.$"),
        (
            {"augmentation_share": 0.04},
            ".* faster; random changes take 4% of the step.$",
        ),
        (
            {"augmentation_share": -0.01},
            ".* faster; random changes take 0% of the step",
        ),
        ({"augmentation_share": 0.3}, ".* 30% of the step, which a weaker --augment"),
    ],
)
def test_the_limiter_is_named_with_advice(figures, words):
    values = {
        "input_secs": 0.1,
        "step_secs": 1.0,
        "share_of_peak": 0.6,
        "num_ops": 700,
        "launch_secs": 5e-6,
    }
    assert re.match(words, report.find_limiter(**{**values, **figures}))


def test_random_changes_take_what_a_step_without_them_spares():
    timings = {
        "step only": measuring.Timing(4.0, 5.0),
        "step without augmentation": measuring.Timing(3.0, 4.0),
    }

    shares = benchmark.measure_augmentation(timings)

    assert shares == {"best_share": 0.25, "median_share": pytest.approx(0.2)}


def test_what_makes_no_random_change_has_no_share_of_it():
    shares = benchmark.measure_augmentation({"step only": measuring.Timing(4.0, 5.0)})

    assert shares == {"best_share": None, "median_share": None}


@pytest.mark.parametrize(
    ("names", "num_there", "count"),
    [
        (["CPU:0"], 1, 1),
        (["CPU:0", "CPU:1", "CPU:2"], 1, 1),
        (["GPU:0", "GPU:1"], 4, 2),
        (["GPU:0", "GPU:1"], 1, 1),  # Two parts of it.
    ],
)
def test_replicas_on_one_device_count_once(monkeypatch, names, num_there, count):
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind: [kind] * num_there
    )
    extended = types.SimpleNamespace(
        worker_devices=[f"/job:localhost/replica:0/task:0/device:{n}" for n in names]
    )
    strategy = types.SimpleNamespace(extended=extended)
    assert measuring.count_devices(strategy) == count


def test_the_peak_is_that_of_all_devices():
    timings = {name: measuring.Timing(0.5, 1.0) for name in ("a", "b")}
    calibrations = {"a": (None, 100), "b": (None, 300)}
    assert benchmark.find_peak(timings, calibrations, 1) == 600
    assert benchmark.find_peak(timings, calibrations, 4) == 2400
