"""Loops on the device."""

from collections.abc import Callable

import tensorflow as tf


def repeat(count: int | tf.Tensor, run: Callable[[tf.Tensor], None]) -> None:
    """Calls a function of the numbers from 0 on, one after the other, on the device.

    Args:
      count: how many numbers.
      run: of an int32 scalar; it has effects only.
    """

    def step(index: tf.Tensor) -> tuple[tf.Tensor]:
        run(index)
        return (index + 1,)

    tf.while_loop(lambda index: index < count, step, (0,))
