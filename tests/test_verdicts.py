"""What is wrong with a run's scores is said once, and nothing of a normal run's."""

import numpy as np
import pytest

from trainer.loop import verdicts

_NAMES = ("sky", "road", "car")


def _mix(right: float, sizes=(50, 30, 20)) -> np.ndarray:
    """Makes a confusion matrix in which a share of each class is right.

    The wrong pixels go to the class that follows.
    """
    sizes = np.array(sizes)
    correct = np.round(right * sizes).astype(np.int64)
    return np.diag(correct) + np.roll(np.diag(sizes - correct), 1, axis=1)


def _only(column: int, sizes=(50, 30, 20)) -> np.ndarray:
    """Makes a confusion matrix in which all pixels are taken for one class."""
    matrix = np.zeros((3, 3), np.int64)
    matrix[:, column] = sizes
    return matrix


def _judge(training, evaluation, *, step=100, has_average_warmup=True):
    watch = verdicts.Watch(_NAMES, num_steps=100, has_average_warmup=has_average_warmup)
    return watch.judge(step, training, evaluation)


def test_a_gap_names_both_scores_over_the_classes_of_both():
    # IoU is right / (2 * size - right) for the sizes 50, 50, 0; the third class, which
    # has no pixel in the evaluation, would have made the training score another.
    training = np.array([[50, 0, 0], [0, 30, 0], [0, 20, 0]])
    evaluation = np.array([[10, 40, 0], [40, 10, 0], [0, 0, 0]])
    (message,) = _judge(training, evaluation)
    # Training: 50 / 50 and 30 / 50. Evaluation: 10 / 90 for both.
    assert "mean IoU 0.800 in the last training steps, 0.111 in the eval" in message
    assert "--mode=doctor" in message
    assert "--random_scale" in message
    assert "--moving_average_warmup" not in message


def test_lagging_averages_are_named_where_there_is_no_warmup():
    (message,) = _judge(_mix(1.0), _mix(0.2), has_average_warmup=False)
    assert "--moving_average_warmup" in message
    assert "--encoder_bn_momentum" in message


@pytest.mark.parametrize(
    ("training", "evaluation"),
    [
        (_mix(0.95), _mix(0.84)),  # Photos learned by heart: IoU 0.91 and 0.72.
        (_mix(0.5), _mix(0.4)),  # Both bad.
        (_mix(0.6), _mix(0.95)),  # Strong augmentation.
        (_mix(1.0), _mix(1.0)),
        (_mix(1.0, sizes=(50, 50, 0)), _mix(0.0, sizes=(0, 0, 20))),  # None shared.
        (np.zeros((3, 3), np.int64), _mix(0.1)),  # Just resumed: no step yet.
    ],
)
def test_nothing_is_said_of_a_normal_run(training, evaluation):
    assert _judge(training, evaluation, has_average_warmup=False) == []


def test_an_evaluation_without_a_labelled_pixel_is_named():
    (message,) = _judge(_mix(0.5), _only(0, sizes=(0, 0, 0)))
    assert message.startswith("No pixel of the evaluation has a class, so there are no")
    assert "--ignore_label" in message and "--eval_split" in message


def test_one_class_everywhere_is_named_with_its_share():
    (message,) = _judge(_only(1), _only(1))
    assert "one class only in the evaluation (in training, too): road" in message
    assert "30.0% of its pixels" in message
    assert "--class_weights" in message


@pytest.mark.parametrize(("has_warmup", "is_named"), [(True, False), (False, True)])
def test_one_class_in_the_evaluation_alone_may_be_of_lagging_averages(
    has_warmup, is_named
):
    messages = _judge(_mix(0.9), _only(0), has_average_warmup=has_warmup)
    single = next(message for message in messages if "one class" in message)
    assert "(though not in training): sky" in single
    assert ("--moving_average_warmup" in single) == is_named


def test_one_class_is_right_where_there_is_no_other():
    assert _judge(_mix(0.5), _only(1, sizes=(0, 40, 0))) == []


def test_each_thing_is_said_once_and_not_early():
    watch = verdicts.Watch(_NAMES, num_steps=100, has_average_warmup=True)
    assert watch.judge(24, _only(0), _only(0)) == []
    assert len(watch.judge(25, _only(0), _only(0))) == 1
    assert watch.judge(50, _only(0), _only(0)) == []
    assert len(watch.judge(75, _mix(1.0), _mix(0.2))) == 1
