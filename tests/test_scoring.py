"""Tests of the table of `trainer.evaluating.scoring`."""

import io
import types

import numpy as np
import pytest

from trainer.evaluating import score_tables, scoring
from trainer.metrics import boundary_iou, image_iou
from trainer.metrics import confusion as confusion_lib
from trainer.settings import config as config_lib

_NAMES = ("sky", "tree", "car")


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _table(confusion, has_shares=True) -> list[str]:
    counts = np.array(confusion)
    values = confusion_lib.scores(counts, _NAMES)
    metrics = [confusion_lib.ConfusionMatrix(_NAMES)]
    shares = counts if has_shares else None
    return score_tables.format_table(values, metrics, shares).splitlines()


def test_classes_have_a_table_of_their_own():
    # IoU: sky 3 / 5, tree 4 / 6, car 2 / 2. Of the pixels 4, 5 and 2 of 11.
    assert _table([[3, 1, 0], [1, 4, 0], [0, 0, 2]]) == [
        "pixel accuracy  0.8182",
        "mean IoU        0.7556",
        "",
        "class     IoU  precision  recall  of pixels",
        "sky    0.6000     0.7500  0.7500      36.4%",
        "tree   0.6667     0.8000  0.8000      45.5%",
        "car    1.0000     1.0000  1.0000      18.2%",
    ]


def test_without_counts_there_are_no_shares():
    table = _table([[3, 1, 0], [1, 4, 0], [0, 0, 2]], has_shares=False)
    assert table[3:5] == [
        "class     IoU  precision  recall",
        "sky    0.6000     0.7500  0.7500",
    ]


def test_class_in_predictions_alone_and_class_nowhere_are_told_apart():
    # sky: 3 of 4 pixels right, the other one predicted as tree, which is in no mask.
    assert _table([[3, 1, 0], [0, 0, 0], [0, 0, 0]]) == [
        "pixel accuracy  0.7500",
        "mean IoU        0.3750  (of 2 of the 3 classes)",
        "",
        "class     IoU  precision  recall  of pixels",
        "sky    0.7500     1.0000  0.7500     100.0%",
        "tree   0.0000     0.0000       -       0.0%  "
        "(predicted, but not in the masks)",
        "car         -          -       -       0.0%  "
        "(neither in the masks nor predicted)",
    ]


def test_metrics_that_were_measured_add_rows_and_columns():
    names = ("wall", "crack")
    metrics = [
        confusion_lib.ConfusionMatrix(names),
        boundary_iou.BoundaryIou(names),
        image_iou.ImageIou(names),
    ]
    values = {
        **confusion_lib.scores(np.eye(2), names),
        "mean_boundary_iou": 0.25,
        "boundary_iou/crack": 0.5,
        "train_images_per_sec": 12.4,
    }
    # The foreground of two classes comes first; no image was scored.
    assert score_tables.format_table(values, metrics).splitlines() == [
        "IoU crack          1.0000",
        "pixel accuracy     1.0000",
        "mean IoU           1.0000",
        "mean boundary IoU  0.2500",
        "",
        "class     IoU  precision  recall  boundary IoU",
        "wall   1.0000     1.0000  1.0000             -",
        "crack  1.0000     1.0000  1.0000        0.5000",
        "",
        "training           12 images/s",
    ]


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_heads_stand_out_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = score_tables.format_confusion(np.eye(2), ("a", "b"))
    monkeypatch.setattr("sys.stdout", _Terminal())
    head, *rows = score_tables.format_confusion(np.eye(2), ("a", "b")).splitlines()
    first, *others = plain.splitlines()
    assert head == f"\x1b[1m{first}\x1b[0m"
    assert rows == others


def test_confusions_are_shares_of_the_true_pixels():
    counts = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 199]])
    assert score_tables.format_confusion(counts, _NAMES).splitlines() == [
        "true \\ predicted    sky   tree    car",
        "sky               75.0%  25.0%   0.0%",
        "tree                  -      -      -",
        "car                0.5%   0.0%  99.5%",
    ]


def test_confusions_of_many_classes_are_no_table():
    names = tuple(map(str, range(13)))
    assert score_tables.format_confusion(np.eye(13), names) == ""
    assert score_tables.format_confusion(np.eye(12), names[:12])


def test_the_best_the_typical_and_the_worst():
    scores = np.array([0.5, np.nan, 0.9, 0.1, 0.7, 0.2, 0.6, 0.8])
    # In order: 3, 5, 0, 6, 4, 7, 2.
    ranked = {kind: ids.tolist() for kind, ids in scoring.rank(scores).items()}
    assert ranked == {"best": [2, 7], "typical": [0, 6], "worst": [3, 5]}
    ranked = scoring.rank(np.arange(30) / 30)
    assert ranked["typical"].tolist() == [13, 14, 15, 16]
    assert [len(ids) for ids in ranked.values()] == [4, 4, 4]


def test_too_few_examples_to_rank_are_all_typical():
    ranked = scoring.rank(np.array([0.5, np.nan, 0.25]))
    assert {kind: ids.tolist() for kind, ids in ranked.items()} == {"typical": [2, 0]}
    assert scoring.rank(np.array([np.nan])) == {}


def _hash_subject(fingerprint="a", **settings):
    config = config_lib.from_dict({"model_dir": "runs/a", **settings})
    examples = types.SimpleNamespace(fingerprint=fingerprint)
    return scoring.hash_subject(config, types.SimpleNamespace(examples=examples))


def test_scores_compare_where_the_same_examples_are_shown_in_the_same_way():
    assert _hash_subject() == _hash_subject(batch_size=4, cache="disk", eval_split="a")
    found = {
        _hash_subject(),
        _hash_subject("b"),
        _hash_subject(tta=("flip",)),
        _hash_subject(tta=("0.5",)),
        _hash_subject(eval_native_size=True, dataset="folder", data_dir="d"),
    }
    assert len(found) == 5
