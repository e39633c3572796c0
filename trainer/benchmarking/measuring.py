"""Measures a machine and a computation: its own peak, FLOPs, memory, time in turn."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from trainer.distributing import cluster

_MIN_CALL_SECS = 0.05
_NUM_LAUNCHES = 256
_FORWARD_OPS = ("Conv2D", "DepthwiseConv2dNative")
_TO_INPUT_OPS = ("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput")
_TO_KERNEL_OPS = ("Conv2DBackpropFilter", "DepthwiseConv2dNativeBackpropFilter")
_PRODUCT_OPS = {
    "MatMul": "transpose_a",
    "BatchMatMul": "adj_x",
    "BatchMatMulV2": "adj_x",
    "BatchMatMulV3": "adj_x",
}
"""Products of matrices, and the attribute that says whether the first is transposed."""


class Timing(NamedTuple):
    """Seconds for one step: the fastest round, and the median of all."""

    best: float
    median: float


class Work(NamedTuple):
    """What a graph computes: its FLOPs, and how many ops it executes."""

    flops: int
    num_ops: int


def time_in_turn(
    contenders: Mapping[str, Callable[[int], None]],
    *,
    rounds: int,
    secs: float,
    agree: Callable[[float], float],
) -> dict[str, Timing]:
    """Times computations in turn, so that a slow phase of the machine hits all alike.

    Args:
      contenders: by name, a function that runs so many steps and waits for their end.
      rounds: how often each has its turn; a first turn, for tracing, does not count.
      secs: how long a turn is, about; at least one step.
      agree: makes one time of those that several workers have measured, so that all
        take the same number of steps: a worker that takes more would wait for the
        others in its next sum for ever.

    Returns:
      The time of a step of each.
    """
    steps = {name: _steps_in(run, secs, agree) for name, run in contenders.items()}
    turns = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            turns[name].append(_time(run, steps[name]) / steps[name])
    return {
        name: Timing(min(times), statistics.median(times))
        for name, times in turns.items()
    }


def _steps_in(
    run: Callable[[int], None], secs: float, agree: Callable[[float], float]
) -> int:
    run(1)  # Traces and compiles.
    steps, spent = 1, agree(_time(run, 1))
    while spent < min(_MIN_CALL_SECS, secs):
        steps *= 4
        spent = agree(_time(run, steps))
    return max(1, round(steps * secs / spent))


def _time(run: Callable[[int], None], steps: int) -> float:
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started


def make_calibrations(dtype: tf.DType) -> dict[str, tuple[Callable[[int], None], int]]:
    """Makes what the machine computes at its best: a convolution, a matrix product.

    Args:
      dtype: of both.

    Returns:
      By name, a contender for `time_in_turn` and the FLOPs of one of its steps.
    """
    images = tf.random.normal([64, 32, 32, 128], dtype=tf.float32)
    kernel = tf.random.normal([3, 3, 128, 128], dtype=tf.float32)
    matrix = tf.random.normal([2048, 2048], dtype=tf.float32)
    images, kernel, matrix = (tf.cast(x, dtype) for x in (images, kernel, matrix))
    return {
        "convolution": (
            _repeat(lambda: tf.nn.conv2d(images, kernel, 1, "SAME")),
            2 * 64 * 32 * 32 * kernel.shape.num_elements(),
        ),
        "matrix product": (_repeat(lambda: tf.matmul(matrix, matrix)), 2 * 2048**3),
    }


def make_launches() -> tuple[Callable[[int], None], int]:
    """Makes what is nothing but starting ops, one after the other.

    Returns:
      A contender for `time_in_turn`, and how many ops one of its steps starts.
    """
    number = tf.Variable(tf.zeros([16]))

    def launch() -> tf.Tensor:
        value = tf.identity(number)
        for _ in range(_NUM_LAUNCHES):
            value = tf.sin(value)  # Which no optimizer of graphs joins.
        return value

    return _repeat(launch), _NUM_LAUNCHES


def _repeat(compute: Callable[[], tf.Tensor]) -> Callable[[int], None]:
    compute = tf.function(compute)

    def run(steps: int) -> None:
        for _ in range(steps):
            result = compute()
        result[:1].numpy()  # Waits for the device.

    return run


def count_devices(strategy: tf.distribute.Strategy) -> int:
    """Returns how many physical devices the replicas of a strategy are on.

    The replicas on the CPU of a worker share it, and so do those on parts of one GPU.
    """
    devices = strategy.extended.worker_devices
    kind = tf.DeviceSpec.from_string(devices[0]).device_type
    there = tf.config.get_visible_devices(kind)
    return min(len(devices), len(there)) * cluster.num_workers(strategy)


def count_work(function: Callable, *specs: tf.TensorSpec) -> Work:
    """Counts what a function computes, without that of which nothing comes.

    Args:
      function: of tensors; traced here.
      *specs: shapes and dtypes of its arguments, all known.

    Returns:
      A multiplication with its addition is two FLOPs; convolutions and products of
      matrices alone are counted.
    """
    ops = executed_ops(function, *specs)
    free = ("Const", "Placeholder", "ReadVariableOp", "Identity", "NoOp", "Shape")
    return Work(sum(map(_flops, ops)), sum(op.type not in free for op in ops))


def executed_ops(function: Callable, *specs: tf.TensorSpec) -> list[tf.Operation]:
    """Lists the ops of a function but for those of which no result comes.

    Args:
      function: of tensors; traced here.
      *specs: shapes and dtypes of its arguments.
    """
    traced = tf.function(function).get_concrete_function(*specs)
    needed, todo = {}, [tensor.op for tensor in traced.outputs]
    while todo:
        op = todo.pop()
        if op.name not in needed:
            needed[op.name] = op
            todo += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return list(needed.values())


def _flops(op: tf.Operation) -> int:
    """Returns the FLOPs of an op.

    Each element of a kernel meets each pixel on the smaller side once. Each element of
    a product of matrices is a sum over the dimension that the two share.
    """
    if op.type in _PRODUCT_OPS:
        is_transposed = op.get_attr(_PRODUCT_OPS[op.type])
        summed = op.inputs[0].shape[-2 if is_transposed else -1]
        return 2 * op.outputs[0].shape.num_elements() * summed
    if op.type in _FORWARD_OPS:
        pixels, kernel = op.outputs[0], op.inputs[1]
    elif op.type in _TO_INPUT_OPS:
        pixels, kernel = op.inputs[2], op.inputs[1]
    elif op.type in _TO_KERNEL_OPS:
        pixels, kernel = op.inputs[2], op.outputs[0]
    else:
        return 0
    return 2 * pixels.shape[:-1].num_elements() * kernel.shape.num_elements()


def peak_memory_bytes(device: str) -> int:
    """Returns the most memory that was in use at once.

    Args:
      device: as `GPU:0`; on a CPU it is that of the whole process.
    """
    if "CPU" in device:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return tf.config.experimental.get_memory_info(device)["peak"]
