"""Wherever examples are kept, the batches are the same."""

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.preparing import preprocessing
from data.stores import device_store, store, streaming
from tests import helpers

KINDS = ("memory", "disk", "device", "none")
PREPROCESSOR = preprocessing.Preprocessor((8, 16), num_classes=3)
SEED = 3


@pytest.fixture(scope="module", name="source")
def _source(tmp_path_factory):
    return helpers.FileSource(tmp_path_factory.mktemp("files"), num_examples=10)


@pytest.fixture(name="open_examples")
def _open_examples(source, tmp_path):
    """Returns a function that opens the ten examples for a strategy."""

    def open_examples(kind, strategy):
        if kind == "none":
            return streaming.StreamingStore(source, PREPROCESSOR)
        cache = "disk" if kind == "disk" else "memory"
        examples = store.open_store(
            source, PREPROCESSOR, cache=cache, cache_dir=str(tmp_path)
        )
        return device_store.place(examples, strategy) if kind == "device" else examples

    return open_examples


@pytest.fixture(scope="module", name="arrays")
def _arrays(source):
    """Returns images [10, 8, 16, 3] and labels [10, 8, 16]."""
    decoded = list(source.examples().map(PREPROCESSOR).as_numpy_iterator())
    return tuple(np.stack([e[key] for e in decoded]) for key in ("image", "label"))


def _fetch_batches(examples, strategy, make_dataset, num_batches, **kwargs):
    """Returns the global batches that replicas see, in loops like those of training."""

    def make_pipeline(context):
        shard = pipeline.Shard.from_context(context)
        return make_dataset(examples, global_batch_size=8, shard=shard, **kwargs)

    iterator = iter(strategy.distribute_datasets_from_function(make_pipeline))

    @tf.function
    def step(iterator):
        return strategy.run(examples.fetch, (next(iterator),))

    for _ in range(num_batches):
        values = step(iterator)
        yield {
            key: np.concatenate(strategy.experimental_local_results(value))
            for key, value in values.items()
        }


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
def test_blank_batches_are_of_the_same_kind(open_examples, kind):
    examples = open_examples(kind, helpers.make_strategy(1))
    expected = pipeline.make_train_dataset(examples, global_batch_size=4, seed=SEED)

    blank = pipeline.make_blank_dataset(4, (8, 16))

    assert blank.element_spec == expected.element_spec
    assert blank.cardinality() == expected.cardinality() == tf.data.INFINITE_CARDINALITY


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("start_step", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_train_batches(open_examples, arrays, kind, replicas, start_step):
    strategy = helpers.make_strategy(replicas)
    images, labels = arrays

    batches = _fetch_batches(
        open_examples(kind, strategy),
        strategy,
        pipeline.make_train_dataset,
        4,
        seed=SEED,
        start_step=start_step,
    )

    for step, batch in enumerate(batches, start_step):
        counters = step * 8 + np.arange(8)
        ids = pipeline.shuffled_ids(tf.constant(counters), num_examples=10, seed=SEED)
        assert batch.keys() == {"image", "label", "counter"}
        np.testing.assert_array_equal(batch["counter"], counters)
        np.testing.assert_array_equal(batch["image"], images[ids])
        np.testing.assert_array_equal(batch["label"], labels[ids])


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_eval_batches(open_examples, arrays, kind, replicas):
    """Of ten examples in batches of eight, the second is filled up with six rows."""
    strategy = helpers.make_strategy(replicas)
    images, labels = arrays
    last = np.full(6, 9)
    ignored = np.full((6, 8, 16), 255, np.uint8)

    batches = list(
        _fetch_batches(
            open_examples(kind, strategy), strategy, pipeline.make_eval_dataset, 2
        )
    )

    rows = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    assert rows.keys() == {"image", "label", "counter"}
    np.testing.assert_array_equal(rows["counter"], np.arange(16))
    np.testing.assert_array_equal(rows["image"], np.concatenate([images, images[last]]))
    np.testing.assert_array_equal(rows["label"], np.concatenate([labels, ignored]))


@pytest.mark.parametrize("kind", KINDS)
def test_people_see_the_same_examples(open_examples, arrays, kind):
    examples = open_examples(kind, helpers.make_strategy(2))

    images, labels = examples.read(np.array([7, 0, 9]))

    np.testing.assert_array_equal(images, arrays[0][[7, 0, 9]])
    np.testing.assert_array_equal(labels, arrays[1][[7, 0, 9]])
    assert (len(examples), len(examples.names)) == (10, 10)
    assert [examples.names[i] for i in (7, 0)] == ["7.jpg", "0.jpg"]


def test_fingerprint_does_not_tell_the_kinds_apart(open_examples):
    """Else a run could not go on with another --cache."""
    strategy = helpers.make_strategy(1)

    assert len({open_examples(kind, strategy).fingerprint for kind in KINDS}) == 1


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
def test_host_sends_uint8_of_static_shape(open_examples, kind):
    examples = open_examples(kind, helpers.make_strategy(1))

    dataset = pipeline.make_train_dataset(examples, global_batch_size=4, seed=0)

    assert dataset.element_spec == {
        "image": tf.TensorSpec([4, 8, 16, 3], tf.uint8),
        "label": tf.TensorSpec([4, 8, 16], tf.uint8),
        "counter": tf.TensorSpec([4], tf.int64),
    }


def test_host_of_a_device_store_sends_numbers_only(open_examples):
    examples = open_examples("device", helpers.make_strategy(1))

    dataset = pipeline.make_train_dataset(examples, global_batch_size=4, seed=0)

    assert dataset.element_spec == {
        "id": tf.TensorSpec([4], tf.int64),
        "counter": tf.TensorSpec([4], tf.int64),
    }
