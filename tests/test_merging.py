"""Scores of classes that several trained classes make up together."""

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers
from trainer.metrics import groups as groups_lib
from trainer.metrics import merging

_NAMES = ("a", "b", "c")


def _resolve(*words, class_names=_NAMES):
    return groups_lib.resolve(groups_lib.parse(words), class_names)


def test_probabilities_are_summed_before_the_likeliest_is_taken():
    # Background, "b", is likelier than "a" or "c", but not than both together.
    shares = np.array([[[[0.3, 0.4, 0.3], [0.1, 0.8, 0.1]]]], np.float32)
    labels = tf.constant([[[2, 255]]], tf.uint8)
    merge = merging.Merging(_resolve("front=a+c"))
    merged_labels, logits = merge(labels, tf.math.log(shares) + 7)
    np.testing.assert_array_equal(merged_labels, [[[1, 255]]])
    expected = [[[[0.4, 0.6], [0.8, 0.2]]]]
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "names", "members"),
    [
        (["x=a+c"], ("b", "x"), ((1,), (0, 2))),
        (["x=c+a", "b=b"], ("x", "b"), ((2, 0), (1,))),
        (["a=a+b"], ("c", "a"), ((2,), (0, 1))),
        ([" x = a + b "], ("c", "x"), ((2,), (0, 1))),
    ],
)
def test_classes_in_no_group_come_first_as_they_are(words, names, members):
    assert _resolve(*words) == (names, members)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x=a+dog"], "^'dog' is no class of the model; there are a, b, c$"),
        (["b=a+c"], "^'b' is a class that is in no group; give .* than a, b, c$"),
        (["x=a+b+c"], "^one class would be left of a, b, c; leave two at least$"),
    ],
)
def test_groups_that_do_not_fit_the_classes_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        _resolve(*words)


@pytest.mark.parametrize("replicas", [1, 2])
def test_metrics_are_of_the_groups_and_the_loss_of_the_classes(replicas):
    examples = helpers.make_store(ignored=0.1)
    groups = _resolve("front=a+c")

    def score(**kwargs):
        strategy = helpers.make_strategy(replicas)
        model, loop, confusion = helpers.make_eval_loop(
            strategy, examples, metrics=("image_iou",), **kwargs
        )
        loop.score(helpers.evaluation_batches(strategy, examples, 4), 3)
        return model, loop.result(), confusion

    model, scores, confusion = score(groups=groups)
    _, plain, _ = score()

    powers = np.exp(model(examples.images).numpy())
    predicted = (powers[..., 0] + powers[..., 2] > powers[..., 1]).astype(int)
    is_valid = examples.labels != 255
    true = (examples.labels != 1).astype(int)
    expected = np.zeros([2, 2], np.int64)
    np.add.at(expected, (true[is_valid], predicted[is_valid]), 1)
    np.testing.assert_array_equal(confusion.counts(), expected)
    assert confusion.class_names == ("b", "front")
    iou = expected[1, 1] / (expected.sum() - expected[0, 0])
    assert scores["iou/front"] == pytest.approx(iou)
    assert scores["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert scores["image_mean_iou"] != plain["image_mean_iou"]
