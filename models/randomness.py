"""Random numbers that belong to the rows of the global batch.

A training step draws the same numbers for a row whichever replica has it, on one host
or several, and again after a resume: they are a function of the seed, the step, the
place in the model and the row, and of nothing else.
"""

import contextlib
import contextvars
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

_PHILOX = 1
"""The number of the algorithm in TensorFlow's ops (Salmon et al., "Parallel Random
Numbers: As Easy as 1, 2, 3", SC 2011)."""

_BLOCK_SIZE = 4
"""Numbers that Philox makes of one value of its counter."""

_NUM_BITS = 23
"""Of a number: as many as a float32 has behind its leading one."""


class _Rows(NamedTuple):
    """The rows of a step that a model is called on; tensors are int64 scalars."""

    seed: int
    step: tf.Tensor
    first_row: tf.Tensor
    stride: int


_rows: contextvars.ContextVar[_Rows] = contextvars.ContextVar("rows")


@contextlib.contextmanager
def keyed_by_row(
    counters: tf.Tensor, *, global_batch_size: int, seed: int, stride: int = 1
) -> Iterator[None]:
    """Tells the layers of a model, while it is called, which rows it is called on.

    Enter it in replica context: each replica has rows of its own.

    Args:
      counters: int64 [rows], the example counters of rows of one step: step *
        global_batch_size + row.
      global_batch_size: rows of a step, over all replicas.
      seed: of the run.
      stride: from one row to the next.
    """
    first = counters[0]
    rows = _Rows(seed, first // global_batch_size, first % global_batch_size, stride)
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


def uniform(
    num_rows: int | tf.Tensor, row_shape: Sequence[int | tf.Tensor], *, stream: str
) -> tf.Tensor:
    """Draws numbers for the rows that `keyed_by_row` tells of.

    Philox makes its numbers of a counter that may begin anywhere. That of a row begins
    where the numbers of the rows before it end, so a replica's numbers are a part of
    those of the global batch, and are made without the others.

    Args:
      num_rows: how many rows there are; a number unless they are consecutive.
      row_shape: shape of the numbers of a row.
      stream: another name gives other numbers: each place in a model has its own.

    Returns:
      float32 [num_rows, *row_shape], uniform in [0, 1).

    Raises:
      RuntimeError: outside of `keyed_by_row`.
    """
    rows = _rows.get(None)
    if rows is None:
        raise RuntimeError(
            "a layer that draws random numbers is called in training, and does not "
            "know for which rows; call the model within randomness.keyed_by_row"
        )
    digest = hashlib.sha256(f"{rows.seed}/{stream}".encode()).digest()
    key = int.from_bytes(digest[:8], "little")
    size = 1
    for length in row_shape:
        size = size * length
    num_blocks = -(-size // _BLOCK_SIZE)

    def draw(first_row: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """Returns the numbers of consecutive rows, [count, numbers]."""
        first_block = first_row * tf.cast(num_blocks, tf.int64)
        bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[count, num_blocks * _BLOCK_SIZE],
            key=tf.constant([key], tf.uint64),
            counter=tf.cast(tf.stack([first_block, rows.step]), tf.uint64),
            alg=_PHILOX,
            dtype=tf.uint32,
        )
        # Of the same bits TensorFlow takes the low ones for a float, and XLA the high
        # ones: left to them, a step that XLA compiles would draw other numbers.
        low = tf.bitwise.bitwise_and(bits, tf.constant(2**_NUM_BITS - 1, tf.uint32))
        return tf.cast(low, tf.float32) * 2.0**-_NUM_BITS

    if rows.stride == 1:
        draws = draw(rows.first_row, num_rows)
    else:
        starts = [rows.first_row + index * rows.stride for index in range(num_rows)]
        draws = tf.concat([draw(start, 1) for start in starts], axis=0)
    if not isinstance(size, int) or size % _BLOCK_SIZE:
        draws = draws[:, :size]
    return tf.reshape(draws, [num_rows, *row_shape])
