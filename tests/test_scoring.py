"""Tests of the table of `trainer.scoring`."""

import numpy as np
import pytest

from trainer import scoring
from trainer.metrics import confusion as confusion_lib

_NAMES = ("sky", "tree", "car")


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _table(confusion) -> list[str]:
    values = confusion_lib.scores(np.array(confusion), _NAMES)
    metrics = [confusion_lib.ConfusionMatrix(_NAMES)]
    return scoring.format_table(values, metrics).splitlines()


def test_classes_that_are_all_there_need_no_remark():
    # IoU: sky 3 / 5, tree 4 / 6, car 2 / 2.
    assert _table([[3, 1, 0], [1, 4, 0], [0, 0, 2]]) == [
        "pixel accuracy  0.8182",
        "mean IoU        0.7556",
        "IoU sky         0.6000",
        "IoU tree        0.6667",
        "IoU car         1.0000",
    ]


def test_class_in_predictions_alone_and_class_nowhere_are_told_apart():
    # sky: 3 of 4 pixels right, the other one predicted as tree, which is in no mask.
    assert _table([[3, 1, 0], [0, 0, 0], [0, 0, 0]]) == [
        "pixel accuracy  0.7500",
        "mean IoU        0.3750  (of 2 of the 3 classes)",
        "IoU sky         0.7500",
        "IoU tree        0.0000  (predicted, but not in the masks)",
        "IoU car         absent  (neither in the masks nor predicted)",
    ]


def test_confusions_are_shares_of_the_true_pixels():
    counts = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 199]])
    assert scoring.format_confusion(counts, _NAMES).splitlines() == [
        "true \\ predicted    sky   tree    car",
        "sky               75.0%  25.0%   0.0%",
        "tree                  -      -      -",
        "car                0.5%   0.0%  99.5%",
    ]


def test_confusions_of_many_classes_are_no_table():
    names = tuple(map(str, range(13)))
    assert scoring.format_confusion(np.eye(13), names) == ""
    assert scoring.format_confusion(np.eye(12), names[:12])
