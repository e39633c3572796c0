"""Tests of the examples on the devices."""

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.stores import device_store
from tests import helpers


def _place(replicas, num_examples=12):
    examples = helpers.make_store(num_examples)
    return device_store.place(examples, helpers.make_strategy(replicas))


def _trace_fetch(examples, replicas):
    """Returns the graph in which the replicas gather a batch of four rows each."""
    strategy = helpers.make_strategy(replicas)
    batch = {"id": tf.range(4, dtype=tf.int64)}

    @tf.function
    def fetch():
        return strategy.run(examples.fetch, (batch,))

    return fetch.get_concrete_function().graph.as_graph_def()


def test_each_device_holds_a_copy():
    examples = helpers.make_store(12)
    placed = device_store.place(examples, helpers.make_strategy(4))

    devices = [[array.device[-5:] for array in copy] for copy in placed.copies]
    assert devices == [[f"CPU:{i}"] * 2 for i in range(4)]
    for images, labels in placed.copies:
        np.testing.assert_array_equal(images.numpy(), examples.images)
        np.testing.assert_array_equal(labels.numpy(), examples.labels)


def test_each_replica_gathers_on_its_own_device():
    """With the one op that has a uint8 kernel for GPUs, from its own copy."""
    graph = _trace_fetch(_place(2), 2)

    gathers = [node for node in graph.node if "Gather" in node.op]
    assert {node.op for node in gathers} == {"ResourceGather"}
    assert [node.device[-5:] for node in gathers] == 2 * ["CPU:0"] + 2 * ["CPU:1"]
    assert len({node.input[0] for node in gathers}) == 4


def test_the_graph_does_not_hold_the_examples():
    few, many = (_trace_fetch(_place(1, num_examples=n), 1) for n in (12, 1000))

    assert abs(many.ByteSize() - few.ByteSize()) < 100


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_epoch_in_one_call_of_the_device_trains_as_from_memory(replicas):
    in_memory = helpers.Rig(helpers.make_store(), replicas=replicas, flip=True)
    on_device = helpers.Rig(_place(replicas), replicas=replicas, flip=True)

    losses = in_memory.train(6, steps_per_loop=6)

    assert on_device.train(6, steps_per_loop=6) == losses
    for a, b in zip(on_device.weights(), in_memory.weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore"),
        tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
    ],
)
def test_a_split_that_does_not_fit_is_refused_with_the_bytes(monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(device_store, "_copy_to", fail)
    # 12 examples * 32 * 32 pixels * (3 channels + 1 label) = 49,152 bytes.
    reason = error.message.splitlines()[0]
    message = (
        "^--cache=device: test does not fit into the memory of /.*CPU:0: its 12 "
        rf"examples need 49,152 bytes \({reason}\); use --cache=memory\.$"
    )
    with pytest.raises(schema.DataError, match=message):
        _place(1)
