"""Signs in the scores of a run that something is wrong with it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trainer.metrics import confusion

_EARLY_SHARE = 0.25
"""The share of a run in which scores may still be anything."""

_FAR_BELOW = 0.6
_FAR_APART = 0.2
"""An evaluation is far from training if its mean IoU is below this share of training's
and lower by this much. A model that has learned 300 photos by heart keeps three
quarters of its training IoU; one whose batch norm lags behind, a third."""

_LAGGING_AVERAGES = (
    "whether the moving averages of batch norm lag behind (--moving_average_warmup, a "
    "lower --encoder_bn_momentum or --ema_decay)"
)
_MASKS = "whether the masks of both splits mean the same (--mode=doctor)"


class _Scores(NamedTuple):
    """What is judged.

    Attributes:
      training: confusion matrix, [classes, classes], of the last training steps.
      evaluation: that of the evaluation.
      class_names: the name of each class.
      has_average_warmup: see `Watch`.
    """

    training: np.ndarray
    evaluation: np.ndarray
    class_names: Sequence[str]
    has_average_warmup: bool


class Watch:
    """Compares evaluations with training, and says each thing once."""

    def __init__(
        self, class_names: Sequence[str], *, num_steps: int, has_average_warmup: bool
    ):
        """Begins to watch.

        Args:
          class_names: the name of each class.
          num_steps: length of the run; the first quarter is not judged.
          has_average_warmup: whether moving averages soon forget their initial values.
        """
        self._class_names = class_names
        self._first_step = _EARLY_SHARE * num_steps
        self._has_average_warmup = has_average_warmup
        self._is_said = dict.fromkeys(
            (_describe_unlabelled, _describe_single_class, _describe_gap), False
        )

    def judge(
        self, step: int, training: np.ndarray, evaluation: np.ndarray
    ) -> list[str]:
        """Returns what is to be said about the scores at a step and has not been yet.

        Args:
          step: steps done.
          training: confusion matrix, int64 [classes, classes], of the last steps; all
            zero if this process has made none.
          evaluation: that of the evaluation.
        """
        if step < self._first_step or not training.any():
            return []
        scores = _Scores(
            training, evaluation, self._class_names, self._has_average_warmup
        )
        messages = []
        for describe, is_said in self._is_said.items():
            if is_said:
                continue
            message = describe(scores)
            if message:
                messages.append(message)
                self._is_said[describe] = True
        return messages


def _describe_unlabelled(scores: _Scores) -> str | None:
    """Tells that no pixel of the evaluation has a class, if none has.

    Returns:
      What follows from it, and what to look at; None if some pixels have one.
    """
    if scores.evaluation.any():
        return None
    return (
        "No pixel of the evaluation has a class, so there are no scores, and no "
        "checkpoint is the best. Look at whether --ignore_label fits its masks, or "
        "name another split (--eval_split)."
    )


def _describe_gap(scores: _Scores) -> str | None:
    """Tells that a model evaluates far worse than it trains, if it does.

    Returns:
      The mean IoU of both over the classes that both have pixels of, and what to look
      at; None if the two are not far apart.
    """
    is_shared = (scores.training.sum(axis=1) > 0) & (scores.evaluation.sum(axis=1) > 0)
    if not is_shared.any():
        return None
    trained = _class_ious(scores.training, scores.class_names)[is_shared].mean()
    evaluated = _class_ious(scores.evaluation, scores.class_names)[is_shared].mean()
    if evaluated >= _FAR_BELOW * trained or trained - evaluated < _FAR_APART:
        return None
    causes = [
        _MASKS,
        "whether it has learned a small training split by heart (more examples, "
        "--random_scale, --random_brightness, fewer epochs)",
    ]
    if not scores.has_average_warmup:
        causes.insert(0, _LAGGING_AVERAGES)
    return (
        f"Training and evaluation are far apart: mean IoU {trained:.3f} in the last "
        f"training steps, {evaluated:.3f} in the evaluation, over the classes of both. "
        f"Look at {', at '.join(causes)}."
    )


def _describe_single_class(scores: _Scores) -> str | None:
    """Tells that a model predicts one class everywhere, if it does.

    Returns:
      The class and what to look at; None if several are predicted, or if the true
      pixels are of one class, too.
    """
    predicted = np.flatnonzero(scores.evaluation.sum(axis=0))
    if len(predicted) != 1 or np.count_nonzero(scores.evaluation.sum(axis=1)) < 2:
        return None
    (only,) = predicted
    share = scores.evaluation[only, only] / scores.evaluation.sum()
    is_in_training = np.count_nonzero(scores.training.sum(axis=0)) < 2
    causes = ["--learning_rate (too high, or too low)", _MASKS]
    if is_in_training:
        causes.insert(1, "--class_weights=inverse_sqrt, for rare classes")
    elif not scores.has_average_warmup:
        causes.insert(0, _LAGGING_AVERAGES)
    place = "in training, too" if is_in_training else "though not in training"
    return (
        f"The model predicts one class only in the evaluation ({place}): "
        f"{scores.class_names[only]}, which {share:.1%} of its pixels are of. "
        f"Look at {', at '.join(causes)}."
    )


def _class_ious(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns the IoU of each class, float [classes]; NaN for one that is nowhere."""
    scores = confusion.scores(matrix, class_names)
    return np.array([scores[f"iou/{name}"] for name in class_names])
