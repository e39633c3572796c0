"""What the trainer uses of TensorFlow that TensorFlow does not promise to keep."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.framework import config

from data import pipeline

_MAKER = "_create_device_dataset"
_lock = threading.Lock()


def distribute(
    strategy: tf.distribute.Strategy,
    make_dataset: Callable[[tf.distribute.InputContext], tf.data.Dataset],
) -> Iterator:
    """Returns an iterator of a strategy that ends at once.

    What brings batches to the devices is a dataset of each device, with an autotuner of
    its own, for which the options of `make_dataset`'s do not count; see
    `pipeline.end_at_once`. Where TensorFlow makes them otherwise some day, iterators
    end late again, and nothing else changes.

    Args:
      strategy: on whose devices the batches are to be.
      make_dataset: makes the dataset of a host.
    """
    with _lock, _device_datasets_that_end_at_once():
        return iter(strategy.distribute_datasets_from_function(make_dataset))


def is_deterministic() -> bool:
    """Whether ops must be deterministic: once that was asked for, in all the process.

    Where TensorFlow does not tell, they may have to be.
    """
    is_enabled = getattr(config, "is_op_determinism_enabled", lambda: True)
    return is_enabled()


@contextlib.contextmanager
def _device_datasets_that_end_at_once() -> Iterator[None]:
    make = getattr(multi_device_iterator_ops, _MAKER, None)
    if make is None:
        yield
        return

    def make_and_end_at_once(*args, **kwargs) -> tf.data.Dataset:
        return pipeline.end_at_once(make(*args, **kwargs))

    setattr(multi_device_iterator_ops, _MAKER, make_and_end_at_once)
    try:
        yield
    finally:
        setattr(multi_device_iterator_ops, _MAKER, make)
