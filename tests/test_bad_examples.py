"""Tests of what becomes of files that cannot be used."""

import logging
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline, schema
from data.preparing import bad_examples, preprocessing
from data.stores import reading, store, streaming
from tests import helpers, test_store

PREPROCESSOR = preprocessing.Preprocessor((32, 32), 3)
SPOILED = (2, 5)


@pytest.fixture
def source(tmp_path):
    """Makes ten examples, of which two cannot be used."""
    folder = tmp_path / "files"
    folder.mkdir()
    source = helpers.FileSource(folder)
    image = pathlib.Path(source.images[SPOILED[0]])
    image.write_bytes(image.read_bytes()[:200])  # Truncated.
    mask = tf.io.decode_png(tf.io.read_file(source.masks[SPOILED[1]]))
    unknown = tf.io.encode_png(tf.fill(tf.shape(mask), np.uint8(9)))
    tf.io.write_file(source.masks[SPOILED[1]], unknown)
    return source


def open_as(cache, source, policy, folder):
    if cache == "none":
        return streaming.StreamingStore(source, PREPROCESSOR, policy)
    return store.open_store(
        source,
        PREPROCESSOR,
        bad_examples=policy,
        cache=cache,
        cache_dir=str(folder),
    )


def read_epoch(examples):
    """Returns images and labels in the order of their ids."""
    batches = pipeline.make_eval_dataset(examples, global_batch_size=5)
    rows = [examples.fetch(batch) for batch in batches]
    return [np.concatenate([row[key] for row in rows]) for key in ("image", "label")]


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_bad_examples_are_gray_and_ignored_and_keep_their_places(
    cache, source, tmp_path
):
    policy = bad_examples.BadExamples(replaces=True, maximum=2)
    images, labels = read_epoch(open_as(cache, source, policy, tmp_path))

    good = [i for i in range(10) if i not in SPOILED]
    for index in SPOILED:
        assert set(images[index].ravel()) == {128}
        assert set(labels[index].ravel()) == {255}
    for index in good:
        example = PREPROCESSOR(source.load(tf.constant(index)))
        np.testing.assert_array_equal(images[index], example["image"])
        np.testing.assert_array_equal(labels[index], example["label"])


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("value", [-1, 65536, 2**32])
def test_numbers_that_no_mask_holds_are_replaced_too(value, is_file):
    """They come as pixels, from TFDS for instance, and the graph itself takes them."""
    pixels = np.full((2, 4, 4, 3), 7, np.uint8)
    images = (
        [tf.io.encode_png(image).numpy() for image in pixels] if is_file else pixels
    )
    labels = np.zeros((2, 4, 4), np.int64)
    labels[1, 2, 3] = value
    source = test_store.ListSource(images, labels)

    policy = bad_examples.BadExamples(replaces=True, maximum=1)
    examples = store.open_store(source, PREPROCESSOR, bad_examples=policy)

    assert [set(label.ravel()) for label in examples.labels] == [{0}, {255}]
    with pytest.raises(schema.DataError, match=rf"example 1 .*reach from .*{value}"):
        store.open_store(source, PREPROCESSOR)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_one_more_than_the_maximum_stops(cache, source, tmp_path):
    policy = bad_examples.BadExamples(replaces=True, maximum=1)
    with pytest.raises(
        schema.DataError,
        match=r"example 5 \(5\.jpg\): the mask holds the values 9.* "
        r"bad example number 2 .*--max_bad_examples=1",
    ):
        open_as(cache, source, policy, tmp_path)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_what_other_processes_replace_counts_for_the_maximum(cache, source, tmp_path):
    """Of two processes, each finds one bad example in its half."""

    def open_share(index, maximum, folder, add_up):
        return store.open_store(
            source,
            PREPROCESSOR,
            bad_examples=bad_examples.BadExamples(replaces=True, maximum=maximum),
            cache=cache,
            cache_dir=str(tmp_path / folder),
            share=store.Share(index, 2, add_up),
        )

    def record(array):
        arrays.append(array.copy())
        return array

    arrays = []
    open_share(1, 1, "other", record)

    others = iter(arrays)
    found = open_share(0, 2, "enough", lambda array: array + next(others))
    assert found.names == tuple(f"{i}.jpg" for i in range(10))
    others = iter(arrays)
    with pytest.raises(
        schema.DataError,
        match=r"example 5 \(5\.jpg\): the mask holds .*bad example number 2 ",
    ):
        open_share(0, 1, "too few", lambda array: array + next(others))


def test_too_many_while_streaming_are_named_by_reading_again(source, tmp_path):
    policy = bad_examples.BadExamples(replaces=True, maximum=1)
    examples = open_as("none", source, policy, tmp_path)
    with pytest.raises(reading.READ_ERRORS):
        read_epoch(examples)

    with pytest.raises(schema.DataError, match="--max_bad_examples=1"):
        examples.read(np.arange(5))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_each_is_reported_once(cache, source, tmp_path, caplog):
    policy = bad_examples.BadExamples(replaces=True, maximum=2)
    with caplog.at_level(logging.WARNING, logger="absl"):
        examples = open_as(cache, source, policy, tmp_path)
        read_epoch(examples)
        read_epoch(examples)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    # While streaming, in the order in which threads come upon them.
    assert "bad example 1 of at most 2" in messages[0]
    assert "bad example 2 of at most 2" in messages[1]
    text = " ".join(messages)
    assert "example 2 (2.jpg): the image" in text
    assert "example 5 (5.jpg): the mask holds the values 9" in text


def test_a_cache_with_replaced_examples_is_not_used_by_a_run_that_stops(
    source, tmp_path
):
    policy = bad_examples.BadExamples(replaces=True, maximum=2)
    open_as("disk", source, policy, tmp_path)

    with pytest.raises(schema.DataError, match=r"example 2 \(2\.jpg\).*delete that"):
        open_as("disk", source, bad_examples.STOP, tmp_path)


def test_a_cache_with_replaced_examples_counts_them_again(source, tmp_path):
    policy = bad_examples.BadExamples(replaces=True, maximum=2)
    open_as("disk", source, policy, tmp_path)

    stricter = bad_examples.BadExamples(replaces=True, maximum=1)
    with pytest.raises(schema.DataError, match="--max_bad_examples=1"):
        open_as("disk", source, stricter, tmp_path)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_file_that_is_not_there_stops_in_any_case(cache, source, tmp_path):
    pathlib.Path(source.masks[7]).unlink()
    policy = bad_examples.BadExamples(replaces=True, maximum=10)
    with pytest.raises((schema.DataError, tf.errors.NotFoundError), match=r"7\.png"):
        read_epoch(open_as(cache, source, policy, tmp_path))
