"""What `--mode=evaluate` leaves in the folder of a run."""

import dataclasses
import json

import numpy as np
import pytest

from trainer.run_folder import evaluations


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


_SCORED = evaluations.Scored(
    dataset="folder",
    data_dir="d",
    split="d/val",
    num_examples=3,
    fingerprint="f",
    image_size=(32, 32),
    eval_native_size=False,
    uses_averages=True,
    precision="float32",
    tta=(),
    merge_classes=(),
)
_OTHERS = {
    "dataset": "coco",
    "data_dir": "e",
    "split": "d/test",
    "num_examples": 4,
    "fingerprint": "g",
    "image_size": (32, 48),
    "eval_native_size": True,
    "uses_averages": False,
    "precision": "mixed_bfloat16",
    "tta": ("flip",),
    "merge_classes": ("a=b+c",),
}
_CHECKPOINT = evaluations.Subject("step-00000004", 4, "aa")
_FILE = evaluations.Subject("onnx", 4, "aa", export="/exports/onnx")


def _record(folder, subject, scored, color):
    """Notes an evaluation with pictures of one colour; returns its line."""
    picture = np.full((2, 2, 3), color, np.uint8)
    example = evaluations.Example("best", "a.png", 1.0, picture)
    evaluations.record(
        str(folder),
        subject,
        scored,
        {"loss": 0.5},
        confusion=np.zeros([2, 2]),
        class_names=["a", "b"],
        details={},
        image_scores=np.array([0.5]),
        pictures_to_keep=evaluations.Pictures(overview=picture, examples=[example]),
    )
    text = evaluations.path_of(str(folder), subject).read_text()
    return json.loads(text.splitlines()[-1])


def _assert_pictures_stay(folder, subject, scored, other_subject, other_scored):
    line = _record(folder, subject, scored, 0)
    paths = [line["picture"], line["examples"][0]["picture"]]
    before = [(folder / path).read_bytes() for path in paths]
    _record(folder, other_subject, other_scored, 255)
    assert [(folder / path).read_bytes() for path in paths] == before


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(_SCORED)])
def test_what_is_scored_otherwise_has_pictures_of_its_own(tmp_path, name):
    other = dataclasses.replace(_SCORED, **{name: _OTHERS[name]})
    _assert_pictures_stay(tmp_path, _CHECKPOINT, _SCORED, _CHECKPOINT, other)


@pytest.mark.parametrize(
    ("subject", "changes"),
    [
        (_CHECKPOINT, {"weights": "bb"}),
        (_CHECKPOINT, {"name": "step-00000008", "step": 8}),
        (_FILE, {"weights": "bb"}),
        (_FILE, {"step": 8}),
        (_FILE, {"export": "/exports/others/onnx"}),
    ],
)
def test_another_model_has_pictures_of_its_own(tmp_path, subject, changes):
    other = subject._replace(**changes)
    _assert_pictures_stay(tmp_path, subject, _SCORED, other, _SCORED)
