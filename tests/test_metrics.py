"""Scores of drawn maps, and counts that no number of pixels or replicas spoils."""

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.metrics import bins, predictions
from trainer.metrics import confusion as confusion_lib

_IGNORED = 255
_NAMES = ("sky", "tree", "road")

# One pixel is ignored; the others are compared by hand below.
_TRUTH = np.array(
    [
        [0, 0, 0, 0],
        [0, 0, 1, 1],
        [2, 2, 1, 1],
        [2, 2, 2, _IGNORED],
    ],
    np.uint8,
)
_PREDICTED = np.array(
    [
        [0, 0, 0, 1],
        [0, 0, 1, 1],
        [2, 1, 1, 0],
        [2, 2, 2, 0],
    ],
    np.uint8,
)
# Rows are true, columns predicted:
#   sky (6 pixels):  5 right, 1 taken for tree
#   tree (4 pixels): 3 right, 1 taken for sky
#   road (5 pixels): 4 right, 1 taken for tree
_CONFUSION = [[5, 1, 0], [1, 3, 0], [0, 1, 4]]


def _logits(predicted: np.ndarray, num_classes: int = 3) -> tf.Tensor:
    """Makes logits [..., num_classes] whose greatest is that of the class."""
    ramp = np.linspace(0, 0.5, num_classes)
    return tf.constant(np.eye(num_classes)[predicted] + ramp, tf.float32)


def test_counts_of_a_drawn_map():
    counts = confusion_lib.count_confusions(_TRUTH[None], _logits(_PREDICTED)[None], 3)
    np.testing.assert_array_equal(counts, _CONFUSION)


def test_counts_equal_a_loop_over_pixels():
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, (2, 6, 7)).astype(np.uint8)
    labels[random.random(labels.shape) < 0.2] = _IGNORED
    logits = random.normal(size=(2, 6, 7, 5)).astype(np.float32)
    expected = np.zeros((5, 5), np.int64)
    for index in np.ndindex(labels.shape):
        if labels[index] != _IGNORED:
            expected[labels[index], np.argmax(logits[index])] += 1
    counts = confusion_lib.count_confusions(labels, tf.constant(logits), 5)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("is_deterministic", [False, True])
def test_sums_by_bin_do_not_depend_on_determinism(is_deterministic):
    if is_deterministic:
        tf.config.experimental.enable_op_determinism()
    numbers = tf.constant([[0, 2, 2], [7, 2, 0]])
    where = tf.constant([[True, True, True], [False, True, False]])
    values = tf.constant([[5, 1, 16], [3, 2**20, 9]])
    counts = bins.sum_by_bin(numbers, 4, where=where)
    sums = bins.sum_by_bin(numbers, 4, where=where, values=values)
    assert counts.dtype == sums.dtype == tf.int64
    assert counts.numpy().tolist() == [1, 0, 3, 0]
    assert sums.numpy().tolist() == [5, 0, 17 + 2**20, 0]


# Classes are compared one by one up to 6 of them, and by `tf.argmax` from there.
@pytest.mark.parametrize("num_classes", [2, 3, 6, 7])
def test_the_first_of_the_largest_logits_wins(num_classes):
    random = np.random.default_rng(0)
    # Of three values, so that many are equal.
    logits = random.integers(-1, 2, (2, 5, 4, num_classes)).astype(np.float32)
    actual = predictions.most_likely_class(tf.constant(logits))
    assert actual.dtype == tf.int32
    np.testing.assert_array_equal(actual, np.argmax(logits, -1))


def test_counts_of_the_most_classes_keep_the_ignored_ones_apart():
    labels = np.array([[[0, 253, 254, _IGNORED]]], np.uint8)
    logits = _logits(np.array([[[0, 254, 254, 254]]]), 255)
    counts = confusion_lib.count_confusions(labels, logits, 255).numpy()
    cells = {tuple(map(int, cell)) for cell in np.argwhere(counts)}
    assert cells == {(0, 0), (253, 254), (254, 254)}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        # 5 + 3 + 4 = 12 of 15 pixels are right.
        ("pixel_accuracy", 12 / 15),
        # IoU: right / (true + predicted - right)
        ("iou/sky", 5 / (6 + 6 - 5)),
        ("iou/tree", 3 / (4 + 5 - 3)),
        ("iou/road", 4 / (5 + 4 - 4)),
        ("mean_iou", (5 / 7 + 3 / 6 + 4 / 5) / 3),
        # Dice: 2 right / (true + predicted)
        ("dice/sky", 10 / 12),
        ("dice/tree", 6 / 9),
        ("dice/road", 8 / 9),
        ("mean_dice", (10 / 12 + 6 / 9 + 8 / 9) / 3),
        # Right / true, right / predicted
        ("recall/tree", 3 / 4),
        ("precision/sky", 5 / 6),
        ("precision/tree", 3 / 5),
        ("precision/road", 4 / 4),
        # 6, 4 and 5 true pixels.
        ("frequency_weighted_iou", (6 * 5 / 7 + 4 * 3 / 6 + 5 * 4 / 5) / 15),
    ],
)
def test_score_of_a_drawn_map(tag, expected):
    assert confusion_lib.scores(np.array(_CONFUSION), _NAMES)[tag] == pytest.approx(
        expected
    )


@pytest.mark.parametrize("tag", ["iou/road", "dice/road"])
def test_absent_class_has_no_score(tag):
    confusion = np.array([[5, 1, 0], [1, 3, 0], [0, 0, 0]])
    assert np.isnan(confusion_lib.scores(confusion, _NAMES)[tag])


@pytest.mark.parametrize(
    ("tag", "expected"),
    # IoU 5 / 7 and 3 / 5, Dice 10 / 12 and 6 / 8.
    [("mean_iou", (5 / 7 + 3 / 5) / 2), ("mean_dice", (10 / 12 + 6 / 8) / 2)],
)
def test_absent_class_is_left_out_of_the_mean(tag, expected):
    confusion = np.array([[5, 1, 0], [1, 3, 0], [0, 0, 0]])
    assert confusion_lib.scores(confusion, _NAMES)[tag] == pytest.approx(expected)


def test_class_that_is_only_predicted_counts_as_zero():
    # Three pixels of sky taken for road: IoU of sky 5 / 8, of road 0 / 3.
    confusion = np.array([[5, 0, 3], [0, 0, 0], [0, 0, 0]])
    scores = confusion_lib.scores(confusion, _NAMES)
    assert scores["mean_iou"] == pytest.approx((5 / 8 + 0) / 2)


def test_absent_class_has_no_weight_and_no_precision():
    scores = confusion_lib.scores([[5, 1, 0], [1, 3, 0], [0, 0, 0]], _NAMES)
    expected = (6 * 5 / 7 + 4 * 3 / 5) / 10
    assert scores["frequency_weighted_iou"] == pytest.approx(expected)
    assert np.isnan(scores["precision/road"])


def test_no_pixel_at_all_has_no_score():
    scores = confusion_lib.scores(np.zeros((3, 3), np.int64), _NAMES)
    assert all(np.isnan(value) for value in scores.values())


def test_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        confusion_lib.scores(np.array(_CONFUSION), ("sky", "tree"))


def test_updates_add_up():
    confusion = confusion_lib.ConfusionMatrix(_NAMES)
    confusion.update(_TRUTH[None], _logits(_PREDICTED)[None])
    confusion.update(_TRUTH[None, :1], _logits(_PREDICTED)[None, :1])
    # The first row once more: three skies right, one taken for tree.
    np.testing.assert_array_equal(confusion.counts(), [[8, 2, 0], [1, 3, 0], [0, 1, 4]])


def test_counting_goes_on_past_two_to_the_24th_pixel():
    confusion = confusion_lib.ConfusionMatrix(_NAMES)
    start = 2**24
    confusion._counts.assign(np.diag([start] * 3))
    confusion.update(_TRUTH[None], _logits(_PREDICTED)[None])
    # In float32, 2^24 + 5 would be 2^24 + 4.
    np.testing.assert_array_equal(np.diag(confusion.counts()) - start, [5, 3, 4])


def test_replicas_are_summed_and_reset_together():
    strategy = helpers.make_strategy(2)
    with strategy.scope():
        confusion = confusion_lib.ConfusionMatrix(_NAMES)

    @tf.function
    def update(labels, predicted):
        strategy.run(
            lambda a, b: confusion.update(a[None], tf.one_hot(b, 3)[None]),
            (labels, predicted),
        )

    def halves(array):
        # Two rows for each replica; the other way round they would count the same.
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                np.split(array, 2)[context.replica_id_in_sync_group]
            )
        )

    update(halves(_TRUTH), halves(_PREDICTED))
    np.testing.assert_array_equal(confusion.counts(), _CONFUSION)
    confusion.reset()
    np.testing.assert_array_equal(confusion.counts(), np.zeros((3, 3)))
    update(halves(_TRUTH), halves(_PREDICTED))
    np.testing.assert_array_equal(confusion.counts(), _CONFUSION)
