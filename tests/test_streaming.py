"""Tests of examples that are read when they are due."""

import itertools
import os
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline, schema
from data.preparing import preprocessing
from data.stores import reading, streaming
from tests import helpers

PREPROCESSOR = preprocessing.Preprocessor((8, 8), num_classes=3)


class CountingSource(helpers.FileSource):
    """Counts the examples that it loads."""

    num_loads = 0

    def load(self, index):
        def count(index):
            self.num_loads += 1
            return index

        return super().load(tf.numpy_function(count, [index], tf.int64))


class UnevenSource(helpers.FileSource):
    """Takes longer for every eighth example."""

    def load(self, index):
        def wait(index):
            time.sleep(0.03 if index % 8 == 7 else 0.003)
            return index

        return super().load(tf.numpy_function(wait, [index], tf.int64, stateful=False))


@pytest.fixture(name="source")
def _source(tmp_path):
    return helpers.FileSource(tmp_path)


def _train_batches(source, **kwargs):
    return pipeline.make_train_dataset(
        streaming.StreamingStore(source, PREPROCESSOR),
        global_batch_size=4,
        seed=0,
        **kwargs,
    )


def _damage(path):
    path = pathlib.Path(path)
    path.write_bytes(path.read_bytes()[:-200])


def _step_with(index):
    """Returns the step of the first epoch whose batch has an example of ten."""
    ids = pipeline.shuffled_ids(tf.range(10, dtype=tf.int64), num_examples=10, seed=0)
    return ids.numpy().tolist().index(index) // 4


def test_source_without_random_access_is_refused_with_the_remedy(source, monkeypatch):
    monkeypatch.delattr(helpers.FileSource, "load")

    with pytest.raises(
        schema.DataError, match=r"^--cache=none: files/.* can .*; use --cache=disk\.$"
    ):
        streaming.StreamingStore(source, PREPROCESSOR)


def test_slow_files_do_not_change_the_order(tmp_path):
    source = UnevenSource(tmp_path, num_examples=64)
    examples = streaming.StreamingStore(source, PREPROCESSOR)

    batches = list(pipeline.make_eval_dataset(examples, global_batch_size=2))

    expected = list(source.examples().map(PREPROCESSOR).as_numpy_iterator())
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(images, [e["image"] for e in expected])


def test_nothing_is_kept_from_one_epoch_to_the_next(tmp_path):
    source = CountingSource(tmp_path)

    for num_epochs in (1, 2):
        dataset = pipeline.make_eval_dataset(
            streaming.StreamingStore(source, PREPROCESSOR), global_batch_size=5
        )
        assert len(list(dataset)) == 2
        assert source.num_loads == 10 * num_epochs


def test_autograph_rewrites_nothing_of_what_loads_an_example(tmp_path, caplog):
    class EncodingSource(helpers.FileSource):
        def load(self, index):
            os.fsencode("")  # Which AutoGraph warns of, as it cannot read its source.
            return super().load(index)

    examples = streaming.StreamingStore(EncodingSource(tmp_path), PREPROCESSOR)
    examples.read(np.arange(2))
    next(iter(pipeline.make_eval_dataset(examples, global_batch_size=2)))
    assert "AutoGraph" not in caplog.text


def test_no_more_is_read_ahead_than_a_few_batches(tmp_path):
    """Two are prefetched, one is being made; each core may hold a few rows besides."""
    source = CountingSource(tmp_path)
    batches = iter(_train_batches(source))
    next(batches)

    before = -1
    while before < source.num_loads < 400:
        before = source.num_loads
        time.sleep(0.3)

    assert 4 <= source.num_loads < 100
    del batches


@pytest.mark.parametrize("attribute", ["images", "masks"])
def test_a_damaged_file_fails_the_step_that_needs_it(source, attribute):
    _damage(getattr(source, attribute)[6])
    batches = iter(_train_batches(source))

    for _ in range(_step_with(6)):
        next(batches)
    with pytest.raises(reading.READ_ERRORS):
        next(batches)


def _put_folder_in_place(path):
    pathlib.Path(path).unlink()
    pathlib.Path(path).mkdir()


class FailingDiskSource(helpers.FileSource):
    """A source on a disk that cannot read example 6."""

    def load(self, index):
        def read(index):
            if index == 6:
                raise OSError(5, "Input/output error")
            return index

        return super().load(tf.numpy_function(read, [index], tf.int64))


def test_a_file_that_became_a_folder_is_named_by_reading_again(source):
    _put_folder_in_place(source.images[6])
    _check_that_the_sixth_is_named(source, "Is a directory|is a directory")


def test_a_failing_disk_is_told_by_reading_again(tmp_path):
    source = FailingDiskSource(tmp_path)
    _check_that_the_sixth_is_named(source, "Input/output error")


def _check_that_the_sixth_is_named(source, reason):
    batches = iter(_train_batches(source))
    for _ in range(_step_with(6)):
        next(batches)
    with pytest.raises(reading.READ_ERRORS):
        next(batches)

    examples = streaming.StreamingStore(source, PREPROCESSOR)
    with pytest.raises(
        schema.DataError, match=f"example 6: it cannot be read .*({reason})"
    ):
        examples.read(np.array([5, 6]))


def test_a_mask_out_of_range_fails_the_step_that_needs_it(source):
    tf.io.write_file(source.masks[6], tf.io.encode_png(np.full((9, 9, 1), 3, "u1")))
    batches = iter(_train_batches(source))

    for _ in range(_step_with(6)):
        next(batches)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Bad example.*\n?.*6"):
        next(batches)


def test_reading_again_names_the_first_bad_example(source):
    examples = streaming.StreamingStore(source, PREPROCESSOR)
    mask = tf.io.encode_png(np.full((20, 20, 1), 7, np.uint8))
    tf.io.write_file(source.masks[4], mask)
    tf.io.write_file(source.images[4], tf.io.encode_jpeg(np.zeros((20, 20, 3), "u1")))
    _damage(source.images[2])
    pathlib.Path(source.images[1]).unlink()

    for ids, message in {
        (
            5,
            4,
            2,
        ): r"example 4 \(4.jpg\): the mask holds the values 7; .*=3\); --mode=doctor",
        (5, 2, 4): r"example 2 \(2.jpg\): the image: it cannot be decoded \(.*\)\.$",
        (5, 1, 4): r"example 1: it cannot be read \(.*/1.jpg; No such file.*\)\.$",
    }.items():
        with pytest.raises(schema.DataError, match=rf"^{source.name}, {message}"):
            examples.read(np.array(ids))


def test_starting_late_reads_nothing_of_what_is_skipped(tmp_path):
    source = CountingSource(tmp_path)
    pathlib.Path(source.images[6]).unlink()
    late = _step_with(6) + 1

    batches = itertools.islice(_train_batches(source, start_step=late), 1)

    assert next(batches)["counter"].numpy().tolist() == [late * 4 + i for i in range(4)]
