"""Tests of the drawn data set: what it promises, and that it is not too easy."""

import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.sources import synthetic

SIZE = 64
COLOR_BITS = 4
"""The colour classifier tells 2^4 levels in each channel apart: 4096 colours."""

COLOR_MEAN_IOU_LIMIT = 0.35
"""Colour alone gets 0.28, always background 0.22, a small network 0.84 in minutes."""

GOLDEN_COUNTS = (2752, 10150, 3482)
"""Pixels of each class in the label of example 0 of the default training split."""

GOLDEN_COLOR = (159.2, 114.0, 105.1)
"""The mean colour of its image."""


@pytest.fixture(scope="module")
def examples():
    """Draws images [120, SIZE, SIZE, 3] and labels [120, SIZE, SIZE], both uint8."""
    drawn = [synthetic.draw_example(0, "train", i, SIZE) for i in range(120)]
    images, labels = zip(*drawn, strict=True)
    return np.stack(images), np.stack(labels)


def _read(source, *, start=0, stop=None):
    return list(source.examples(start, stop).as_numpy_iterator())


def _confusion(labels, predictions):
    """Counts pixels, int [3, 3]: rows are true classes, columns predicted ones."""
    pairs = labels.astype(int) * 3 + predictions
    return np.bincount(pairs.ravel(), minlength=9).reshape(3, 3)


def _mean_iou(confusion):
    true_and_predicted = confusion.sum(0) + confusion.sum(1)
    hits = np.diag(confusion)
    return (hits / (true_and_predicted - hits)).mean()


def test_same_arguments_give_same_pixels():
    image, label = synthetic.draw_example(3, "test", 5, SIZE)
    image_again, label_again = synthetic.draw_example(3, "test", 5, SIZE)

    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    assert label.shape == (SIZE, SIZE) and label.dtype == np.uint8
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(label, label_again)


@pytest.mark.parametrize(
    "seed, split, id", [(4, "test", 5), (3, "train", 5), (3, "test", 6)]
)
def test_each_argument_changes_the_picture(seed, split, id):
    image, label = synthetic.draw_example(3, "test", 5, SIZE)
    other_image, other_label = synthetic.draw_example(seed, split, id, SIZE)

    assert (image != other_image).mean() > 0.9
    assert (label != other_label).mean() > 0.05


def test_train_and_test_share_no_example(examples):
    train = {image.tobytes() for image in examples[0]}
    test = {synthetic.draw_example(0, "test", i, SIZE)[0].tobytes() for i in range(120)}

    assert len(train) == len(test) == 120
    assert not train & test


def test_label_depends_on_size_only_by_resolution():
    _, small = synthetic.draw_example(0, "train", 0, 64)
    _, large = synthetic.draw_example(0, "train", 0, 128)

    assert (large[::2, ::2] == small).mean() > 0.93


def test_every_class_is_in_nearly_every_image(examples):
    _, labels = examples
    present = np.stack([(labels == i).any((1, 2)) for i in range(3)])  # [3, images]

    assert labels.max() == 2
    assert present.all(0).mean() > 0.98
    shares = np.bincount(labels.ravel(), minlength=3) / labels.size
    assert (shares > 0.1).all(), shares


def test_border_parts_body_from_background(examples):
    body = examples[1] == synthetic.BODY
    background = examples[1] == synthetic.BACKGROUND

    assert not (body[:, 1:] & background[:, :-1]).any()
    assert not (body[:, :-1] & background[:, 1:]).any()
    assert not (body[:, :, 1:] & background[:, :, :-1]).any()
    assert not (body[:, :, :-1] & background[:, :, 1:]).any()


def test_border_is_a_band_of_the_stated_width():
    """A half plane: of 128 columns, the outline at 64, 6 are border: 61 to 66."""
    columns = (np.arange(128) + 0.5) / 128 - 0.5
    label = synthetic._trimap(np.tile(columns, (128, 1)))

    half = round(synthetic.BORDER_WIDTH * 64)
    expected = np.repeat([0, 2, 1], [64 - half, 2 * half, 64 - half])
    np.testing.assert_array_equal(label, np.tile(expected, (128, 1)))


def test_color_alone_does_not_tell_the_classes(examples):
    """Each colour votes for its commonest class in one half; the other half counts."""
    images, labels = examples
    levels = (images >> (8 - COLOR_BITS)).astype(int)
    colors = (levels[..., 0] << 2 * COLOR_BITS) | (levels[..., 1] << COLOR_BITS)
    colors |= levels[..., 2]  # [images, SIZE, SIZE]
    votes = np.zeros((1 << 3 * COLOR_BITS, 3), int)
    np.add.at(votes, (colors[:60], labels[:60]), 1)

    # Weighed by the rarity of the classes, or background would win every vote.
    predictions = (votes / votes.sum(0)).argmax(1)[colors[60:]]
    weighed = _mean_iou(_confusion(labels[60:], predictions))
    predictions = votes.argmax(1)[colors[60:]]
    plain = _mean_iou(_confusion(labels[60:], predictions))
    accuracy = (predictions == labels[60:]).mean()
    majority = (labels[60:] == synthetic.BACKGROUND).mean()

    assert max(plain, weighed) < COLOR_MEAN_IOU_LIMIT, (plain, weighed)
    assert accuracy < majority + 0.05, (accuracy, majority)


def test_golden_example():
    """Counted once; an intended change of the drawings also raises `VERSION`."""
    image, label = synthetic.draw_example(0, "train", 0, 128)

    counts = np.bincount(label.ravel(), minlength=3)
    # Rounding differs between machines: some pixels on an outline may change sides.
    np.testing.assert_allclose(counts, GOLDEN_COUNTS, atol=8)
    np.testing.assert_allclose(image.mean((0, 1)), GOLDEN_COLOR, atol=0.5)


def test_source_describes_itself():
    source = synthetic.SyntheticSource("test")

    assert source.name == "synthetic/test"
    assert source.info.class_names == ("body", "background", "border")
    assert len(source) == synthetic.NUM_EXAMPLES["test"]
    assert len(synthetic.SyntheticSource("train", num_examples=7)) == 7


def test_fingerprint_changes_with_every_argument():
    sources = [
        synthetic.SyntheticSource("train"),
        synthetic.SyntheticSource("test"),
        synthetic.SyntheticSource("train", num_examples=7),
        synthetic.SyntheticSource("train", size=96),
        synthetic.SyntheticSource("train", seed=1),
    ]

    assert len({source.fingerprint for source in sources}) == len(sources)
    again = synthetic.SyntheticSource("train")
    assert again.fingerprint == sources[0].fingerprint


def test_examples_are_the_drawn_ones_in_order():
    source = synthetic.SyntheticSource("test", num_examples=5, size=32, seed=2)

    read = _read(source)

    assert [e["name"] for e in read] == [b"synthetic/test/%d" % i for i in range(5)]
    for i, example in enumerate(read):
        image, label = synthetic.draw_example(2, "test", i, 32)
        np.testing.assert_array_equal(example["image"], image)
        np.testing.assert_array_equal(example["label"], label)


@pytest.mark.parametrize("start, stop", [(0, 2), (2, None), (1, 4), (3, 9), (4, 2)])
def test_slices_equal_the_full_pass(start, stop):
    source = synthetic.SyntheticSource("train", num_examples=5, size=32)

    expected = _read(source)[start:stop]
    read = _read(source, start=start, stop=stop)

    assert [e["name"] for e in read] == [e["name"] for e in expected]
    for example, other in zip(read, expected, strict=True):
        np.testing.assert_array_equal(example["image"], other["image"])
        np.testing.assert_array_equal(example["label"], other["label"])


def test_any_example_can_be_loaded_by_itself():
    source = synthetic.SyntheticSource("train", num_examples=5, size=32)

    for index in (3, 0):
        loaded = source.load(tf.constant(index, tf.int64))
        for key, value in _read(source)[index].items():
            np.testing.assert_array_equal(loaded[key].numpy(), value)


def test_element_spec_has_static_shapes():
    spec = synthetic.SyntheticSource("train", size=48).examples().element_spec

    assert spec["image"].shape == (48, 48, 3)
    assert spec["label"].shape == (48, 48)
    assert spec["name"].shape == ()


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(schema.DataError, match=r"'val'.*known: train, test"):
        synthetic.SyntheticSource("val")
