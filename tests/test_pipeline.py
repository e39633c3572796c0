"""Tests of which examples are in which batch."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.stores import store
from tests import helpers

GOLDEN_IDS = [[2, 0, 1, 4, 8, 5, 6, 3, 7, 9], [5, 3, 7, 8, 2, 6, 4, 1, 9, 0]]
"""Two epochs of 10 examples with seed 3, as TensorFlow 2.21 shuffles them."""

SHARDS = {
    "2 replicas": [pipeline.Shard(2, 2, 0)],
    "4 replicas": [pipeline.Shard(4, 4, 0)],
    "2 pipelines of 2": [pipeline.Shard(4, 2, 0), pipeline.Shard(4, 2, 2)],
    "4 pipelines of 1": [pipeline.Shard(4, 1, first) for first in range(4)],
}
"""Different ways to share out the rows of a step."""


def number_examples(num_examples):
    """Makes a store whose labels [2, 3] and images [2, 3, 3] tell the example's id."""
    ids = np.arange(num_examples, dtype=np.uint8)
    labels = np.tile(ids[:, None, None], (1, 2, 3))
    images = labels[..., None] + np.array([0, 50, 100], np.uint8)
    names = tuple(f"example {i}" for i in range(num_examples))
    return store.Store("numbered", images, labels, names, "fingerprint")


def shuffle(counters, num_examples, seed):
    ids = pipeline.shuffled_ids(
        tf.constant(counters, tf.int64), num_examples=num_examples, seed=seed
    )
    return ids.numpy().tolist()


def train_batches(num_batches, num_examples=10, global_batch_size=4, seed=3, **kwargs):
    dataset = pipeline.make_train_dataset(
        number_examples(num_examples),
        global_batch_size=global_batch_size,
        seed=seed,
        **kwargs,
    )
    return list(dataset.take(num_batches).as_numpy_iterator())


def eval_batches(num_examples, global_batch_size, **kwargs):
    dataset = pipeline.make_eval_dataset(
        number_examples(num_examples), global_batch_size=global_batch_size, **kwargs
    )
    return list(dataset.as_numpy_iterator())


def join(batches):
    """Joins the rows of batches."""
    return {
        key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
    }


def join_shards(batches_of_shards, shards):
    """Joins, step by step, what all pipelines yield of it."""
    num_steps = len(batches_of_shards[0]) // shards[0].num_local_replicas
    parts = []
    for step in range(num_steps):
        for batches, shard in zip(batches_of_shards, shards, strict=True):
            local = shard.num_local_replicas
            parts += batches[step * local : (step + 1) * local]
    return join(parts)


def assert_batches_equal(batches, expected):
    assert batches.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(batches[key], expected[key])


def test_order_of_a_seed_never_changes():
    """Else a resumed run would meet examples twice after an update of TensorFlow."""
    assert shuffle(range(20), 10, seed=3) == sum(GOLDEN_IDS, [])


@pytest.mark.parametrize("num_examples", [1, 2, 7, 16, 100])
def test_each_epoch_is_a_permutation(num_examples):
    for epoch in (0, 1, 5000):
        counters = np.arange(num_examples) + epoch * num_examples

        assert sorted(shuffle(counters, num_examples, 0)) == list(range(num_examples))


def test_epochs_differ():
    """The op heeds 8 bits of a key word only; epochs 256 apart are the ones to fear."""
    orders = np.reshape(shuffle(range(600 * 20), 20, 0), (600, 20))

    assert len(np.unique(orders, axis=0)) == 600


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_order_has_nothing_to_do_with_that_of_the_records(seed):
    """Correlations of fair orders are 1 / sqrt(300) in the root mean square."""
    orders = np.reshape(shuffle(range(100 * 300), 300, seed), (100, 300))

    records = np.arange(300)
    to_records = [np.corrcoef(records, order)[0, 1] for order in orders]
    to_next = [
        np.corrcoef(order, other)[0, 1]
        for order, other in zip(orders, orders[1:], strict=False)
    ]
    for correlations in (to_records, to_next):
        assert np.sqrt(np.mean(np.square(correlations))) < 1.3 / np.sqrt(300)


def test_seeds_differ():
    orders = {tuple(shuffle(range(20), 20, seed)) for seed in (*range(50), 255)}

    assert len(orders) == 51


def test_seed_is_not_interchangeable_with_epoch():
    assert shuffle(range(20, 40), 20, seed=0) != shuffle(range(20), 20, seed=1)


def test_id_depends_on_its_own_counter_alone():
    """A replica may ask for any rows, from two epochs at once."""
    assert shuffle([12, 3, 10], 10, seed=3) == [
        GOLDEN_IDS[1][2],
        GOLDEN_IDS[0][3],
        GOLDEN_IDS[1][0],
    ]


def test_train_batches_are_the_shuffled_ids_cut_in_fours():
    """The third batch ends the first epoch and begins the second."""
    batches = train_batches(3)

    ids = [batch["label"][:, 0, 0].tolist() for batch in batches]
    assert ids == [[2, 0, 1, 4], [8, 5, 6, 3], [7, 9, 5, 3]]


def test_image_and_label_are_of_the_same_example():
    rows = join(train_batches(5))

    examples = number_examples(10)
    ids = rows["label"][:, 0, 0]
    np.testing.assert_array_equal(rows["image"], examples.images[ids])
    np.testing.assert_array_equal(rows["label"], examples.labels[ids])


def test_counters_go_on_and_on():
    batches = train_batches(3, start_step=2)

    counters = [batch["counter"].tolist() for batch in batches]
    assert counters == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]


@pytest.mark.parametrize("global_batch_size", [1, 3, 4, 10, 12])
def test_each_example_comes_once_per_epoch(global_batch_size):
    batches = train_batches(
        -(-30 // global_batch_size), global_batch_size=global_batch_size
    )

    ids = join(batches)["label"][:30, 0, 0].reshape(3, 10)  # [epochs, examples]
    np.testing.assert_array_equal(np.sort(ids), np.tile(np.arange(10), (3, 1)))


def test_batch_may_hold_several_epochs():
    (batch,) = train_batches(1, num_examples=2, global_batch_size=6)

    ids = batch["label"][:, 0, 0].reshape(3, 2)
    np.testing.assert_array_equal(np.sort(ids), [[0, 1], [0, 1], [0, 1]])


@pytest.mark.parametrize("start_step", [1, 2, 3, 1000])
def test_starting_late_is_skipping(start_step):
    started = train_batches(3, start_step=start_step)
    dataset = pipeline.make_train_dataset(
        number_examples(10), global_batch_size=4, seed=3
    )
    skipped = list(dataset.skip(start_step).take(3).as_numpy_iterator())

    assert_batches_equal(join(started), join(skipped))


@pytest.mark.parametrize("shards", SHARDS.values(), ids=SHARDS.keys())
@pytest.mark.parametrize("start_step", [0, 2])
def test_train_rows_do_not_depend_on_replicas(shards, start_step):
    expected = train_batches(4, start_step=start_step)

    batches_of_shards = [
        train_batches(4 * shard.num_local_replicas, start_step=start_step, shard=shard)
        for shard in shards
    ]

    assert_batches_equal(join_shards(batches_of_shards, shards), join(expected))


@pytest.mark.parametrize("num_local_replicas", [1, 2])
def test_each_pass_of_the_evaluation_is_the_first_again(num_local_replicas):
    shard = pipeline.Shard(num_local_replicas, num_local_replicas, 0)
    once = eval_batches(10, 4, shard=shard)
    twice = eval_batches(10, 4, shard=shard, num_passes=2)
    assert len(twice) == 2 * len(once) == 6 * num_local_replicas
    for batch, expected in zip(twice, [*once, *once], strict=True):
        assert_batches_equal(batch, expected)


@pytest.mark.parametrize("shards", SHARDS.values(), ids=SHARDS.keys())
def test_eval_rows_do_not_depend_on_replicas(shards):
    expected = eval_batches(10, 4)

    batches_of_shards = [eval_batches(10, 4, shard=shard) for shard in shards]

    assert_batches_equal(join_shards(batches_of_shards, shards), join(expected))


def test_shard_of_an_input_pipeline_starts_after_those_before_it():
    context = tf.distribute.InputContext(
        num_input_pipelines=2, input_pipeline_id=1, num_replicas_in_sync=8
    )

    assert pipeline.Shard.from_context(context) == pipeline.Shard(8, 4, 4)


def test_mapped_examples_give_the_same_batches(tmp_path):
    examples = number_examples(10)
    np.save(tmp_path / "images.npy", examples.images)
    np.save(tmp_path / "labels.npy", examples.labels)
    mapped = dataclasses.replace(
        examples,
        images=np.load(tmp_path / "images.npy", mmap_mode="r"),
        labels=np.load(tmp_path / "labels.npy", mmap_mode="r"),
    )

    datasets = [
        pipeline.make_train_dataset(store, global_batch_size=4, seed=3)
        for store in (examples, mapped)
    ]

    assert datasets[0].element_spec == datasets[1].element_spec
    batches, expected = (join(list(d.take(5).as_numpy_iterator())) for d in datasets)
    assert_batches_equal(batches, expected)


def test_train_batches_have_static_shapes():
    spec = pipeline.make_train_dataset(
        number_examples(10), global_batch_size=4, seed=0, shard=pipeline.Shard(2, 2, 0)
    ).element_spec

    assert spec == {
        "image": tf.TensorSpec([2, 2, 3, 3], tf.uint8),
        "label": tf.TensorSpec([2, 2, 3], tf.uint8),
        "counter": tf.TensorSpec([2], tf.int64),
    }


def test_last_eval_batch_is_filled_up_with_ignored_pixels():
    batches = eval_batches(num_examples=5, global_batch_size=4)

    ids = [batch["label"][:, 0, 0].tolist() for batch in batches]
    assert ids == [[0, 1, 2, 3], [4, 255, 255, 255]]
    assert (batches[1]["label"][1:] == 255).all()


@pytest.mark.parametrize("global_batch_size", [1, 3, 5, 10, 16, 32])
def test_eval_covers_each_example_once_in_order(global_batch_size):
    rows = join(eval_batches(10, global_batch_size))

    is_real = rows["label"][:, 0, 0] != 255
    examples = number_examples(10)
    np.testing.assert_array_equal(rows["label"][is_real], examples.labels)
    np.testing.assert_array_equal(rows["image"][is_real], examples.images)


@pytest.mark.parametrize(
    "global_batch_size, expected", [(1, 10), (4, 3), (5, 2), (16, 1)]
)
def test_number_of_eval_batches_is_rounded_up(global_batch_size, expected):
    assert pipeline.num_eval_batches(10, global_batch_size) == expected
    assert len(eval_batches(10, global_batch_size)) == expected


@pytest.mark.parametrize(
    "num_examples, num_replicas, expected",
    [(298, 1, 60), (298, 8, 64), (3, 1, 3), (3, 2, 4), (64, 1, 64), (65, 1, 33)],
)
def test_eval_batches_fill_up_few_rows(num_examples, num_replicas, expected):
    actual = pipeline.eval_batch_size(
        num_examples, max_batch_size=64, num_replicas=num_replicas
    )
    assert actual == expected


@pytest.mark.parametrize("num_replicas", [1, 3, 8])
def test_eval_batches_are_no_more_and_no_larger_than_asked_for(num_replicas):
    for num_examples in range(1, 200):
        size = pipeline.eval_batch_size(
            num_examples, max_batch_size=24, num_replicas=num_replicas
        )
        assert size <= 24 and size % num_replicas == 0
        num_batches = pipeline.num_eval_batches(num_examples, 24)
        assert pipeline.num_eval_batches(num_examples, size) == num_batches
        # One row less on each replica would be too few.
        assert num_batches * (size - num_replicas) < num_examples


@pytest.mark.parametrize(
    "epoch, expected",
    [
        (0, 0),
        (1, 3),  # 10 examples are 2.5 batches of 4.
        (2, 5),
        (3, 8),  # 7.5
    ],
)
def test_epoch_ends_with_the_batch_of_its_last_example(epoch, expected):
    end = pipeline.epoch_end(epoch, num_examples=10, global_batch_size=4)

    assert end == expected


def test_batch_of_several_epochs_ends_them_all():
    ends = [
        pipeline.epoch_end(epoch, num_examples=2, global_batch_size=5)
        for epoch in range(6)
    ]

    assert ends == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 4), (2, 5), (8, 8)])
def test_epochs_done_counts_the_ends_of_epochs(num_examples, batch_size):
    sizes = {"num_examples": num_examples, "global_batch_size": batch_size}
    ends = [pipeline.epoch_end(epoch, **sizes) for epoch in range(1, 60)]
    for step in range(20):
        expected = sum(end <= step for end in ends)
        assert pipeline.epochs_done(step, **sizes) == expected


@pytest.mark.parametrize(
    "make", [pipeline.make_train_dataset, pipeline.make_eval_dataset]
)
def test_nobody_waits_for_the_autotuner_at_the_end(make):
    seed = {"seed": 0} if make is pipeline.make_train_dataset else {}
    dataset = make(helpers.make_store(), global_batch_size=4, **seed)
    assert dataset.options().autotune.enabled is False
