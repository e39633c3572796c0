"""The rows of the ablation: flags that the program takes, one part more each."""

import json

import pytest

from tests.recipe import ablation
from trainer import flags


@pytest.mark.parametrize("place", range(len(ablation.PARTS)))
def test_each_row_is_a_run_that_can_be_asked_for(place):
    typed = [f"--{name}={value}" for name, value in ablation.flags_of(place).items()]
    config = flags.read_config(
        [*typed, "--dataset=synthetic", "--model_dir=run"]
    ).config
    assert config.optimizer.optimizer == ("adamw" if place else "adam")
    assert config.loss.loss == ("ce+lovasz" if place >= 3 else "ce")


def test_there_are_six_rows_at_most_and_each_adds_something():
    assert len(ablation.PARTS) <= 6
    for place, part in enumerate(ablation.PARTS[1:], start=1):
        before = ablation.flags_of(place - 1)
        changed = any(before.get(name) != value for name, value in part.flags.items())
        assert changed or part.tta


def test_the_last_training_is_that_of_the_recommended_flagfile():
    path = "launch/flagfiles/recommended.flags"
    common = ["--dataset=synthetic", "--model_dir=run", "--train_epochs=7"]
    typed = [
        f"--{name}={value}"
        for name, value in ablation.flags_of(len(ablation.PARTS) - 1).items()
    ]
    recommended = flags.read_config([f"--flagfile={path}", *common]).config
    assert flags.read_config([*typed, *common]).config == recommended


def test_of_several_evaluations_the_last_counts(tmp_path):
    lines = [
        {"tta": [], "scores": {"pixel_accuracy": accuracy, "mean_iou": iou}}
        for accuracy, iou in ((0.5, 0.3), (0.9, 0.75))
    ]
    path = tmp_path / "evaluations.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ablation._evaluate(tmp_path, "") == (0.9, 0.75)


def test_a_row_of_another_evaluation_alone_trains_nothing():
    last = len(ablation.PARTS) - 1
    assert not ablation.PARTS[last].flags
    assert ablation.trained_row(last) == last - 1
    assert ablation.trained_row(1) == 1


def test_an_evaluation_is_made_once(tmp_path, monkeypatch):
    calls = []

    def run(typed, folder):
        calls.append(typed)
        folder.mkdir(exist_ok=True)
        scores = {"pixel_accuracy": 0.9, "mean_iou": 0.75}
        with open(folder / "evaluations.jsonl", "a") as file:
            tta = typed[1].partition("=")[2].split(",") if typed[1][6:] else []
            file.write(json.dumps({"tta": tta, "scores": scores}) + "\n")

    monkeypatch.setattr(ablation, "_run", run)
    for tta in ("", "flip,1.5", "flip,1.5", ""):
        assert ablation._evaluate(tmp_path / "0", tta) == (0.9, 0.75)
    assert calls == [
        ["--mode=evaluate", "--tta="],
        ["--mode=evaluate", "--tta=flip,1.5"],
    ]


def test_the_table_has_mean_least_and_greatest():
    scores = [ablation.Scores(0.90, 0.70), ablation.Scores(0.92, 0.73)]
    *_, first, second = ablation.format_table({0: scores, 1: scores}).splitlines()
    figures = "| 0.910 (0.900 to 0.920) | 0.715 (0.700 to 0.730) |"
    assert first == f"| {ablation.PARTS[0].name} {figures}"
    assert second == f"| + {ablation.PARTS[1].name} {figures}"
