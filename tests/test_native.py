"""Tests of scores at each image's own size."""

import functools
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.preparing import bad_examples, preprocessing, resizing
from data.stores import native, store
from tests import helpers
from trainer.losses import cross_entropy
from trainer.metrics import confusion as confusion_lib


@pytest.fixture
def source(tmp_path):
    """Makes ten examples of different sizes."""
    return helpers.FileSource(tmp_path)


def open_native(source, resize="stretch", policy=bad_examples.STOP):
    preprocessor = preprocessing.Preprocessor((32, 32), 3, resize=resize)
    examples = store.open_store(source, preprocessor, bad_examples=policy)
    return native.add_native_labels(examples, source, preprocessor, policy)


def read_labels(source):
    """Decodes the masks as they are on disk."""
    return [
        tf.io.decode_png(tf.io.read_file(mask))[..., 0].numpy() for mask in source.masks
    ]


def test_batches_hold_the_labels_at_both_sizes(source):
    examples = open_native(source)
    expected = read_labels(source)

    batches = pipeline.make_eval_dataset(examples, global_batch_size=4)
    rows = []
    for batch in map(examples.fetch, batches):
        rows += [{key: batch[key][i].numpy() for key in batch} for i in range(4)]

    assert len(rows) == 12
    for index, row in enumerate(rows[:10]):
        height, width = row["native_size"]
        label = row["native_label"]
        np.testing.assert_array_equal(label[:height, :width], expected[index])
        assert (label[height:] == 255).all()
        assert (label[:, width:] == 255).all()
        np.testing.assert_array_equal(row["image"], examples.examples.images[index])
    for row in rows[10:]:  # What fills the last batch up.
        assert (row["native_label"] == 255).all()


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_scores_are_those_of_interpolated_logits(source, resize, replicas):
    examples = open_native(source, resize)
    strategy = helpers.make_strategy(replicas)
    restore_size = functools.partial(resizing.restore_size, method=resize)
    model, loop, confusion = helpers.make_eval_loop(
        strategy, examples, resize=resize, scores_images=True
    )
    iterator = helpers.evaluation_batches(strategy, examples, 4)
    loop.score(iterator, 3)

    term = cross_entropy.CrossEntropy(3)
    expected, sums, of_images = np.zeros((3, 3), np.int64), 0.0, []
    for index, label in enumerate(read_labels(source)):
        logits = model(examples.examples.images[index : index + 1], training=False)
        logits = restore_size(logits[0], tf.constant(label.shape))[tf.newaxis]
        counts = confusion_lib.count_confusions(label[np.newaxis], logits, 3)
        expected += counts
        of_images.append(confusion_lib.scores(counts, ("a", "b", "c"))["mean_iou"])
        sums += term.sums(logits, label[np.newaxis])
    np.testing.assert_array_equal(confusion.counts(), expected)
    assert expected.numpy().sum() == sum(label.size for label in read_labels(source))
    np.testing.assert_allclose(loop.result()["loss"], term.number(sums), rtol=1e-5)
    np.testing.assert_allclose(loop.image_scores.result(), of_images, atol=1e-9)


def test_a_replaced_example_has_nothing_to_score(source):
    pathlib.Path(source.images[3]).write_bytes(b"no image")
    policy = bad_examples.BadExamples(replaces=True, maximum=1)

    examples = open_native(source, policy=policy)

    assert examples.sizes[3].tolist() == [1, 1]
    label = tf.io.decode_png(examples.encoded[3]).numpy()
    assert label.ravel().tolist() == [255]
