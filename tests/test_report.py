"""`--mode=report`: one page of what folders tell, right to the number."""

import base64
import json
import re

import pytest

from trainer import errors, flags
from trainer.modes import report
from trainer.reporting import charts, reading
from trainer.run_folder import golden
from trainer.settings import config as config_lib


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _write_run(folder, **settings):
    """Writes a run of two classes, one of them named to break out of HTML."""
    folder.mkdir(parents=True)
    config = config_lib.from_dict({"model_dir": str(folder), **settings})
    values = {"format_version": 2, **config.saved()}
    (folder / "config.json").write_text(json.dumps(values))
    classes = {"class_names": ["sky", "<b>"], "palette": [[1, 2, 3], [4, 5, 6]]}
    (folder / "dataset.json").write_text(json.dumps(classes))
    points = [
        {"step": 5, "split": "train", "loss": 2.0, "images_per_sec": 1234.5},
        {"step": 7, "split": "train", "input_share": 0.25},
        {"step": 5, "split": "eval", "loss": 1.5, "mean_iou": 0.75},
        {"step": 10, "split": "eval", "loss": 1.0, "mean_iou": 0.625, "iou/<b>": 0.125},
    ]
    lines = [*map(json.dumps, points), '{"step": 15, "spl']
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def _evaluation() -> dict:
    return {
        "checkpoint": "step-00000010",
        "split": "test",
        "num_examples": 7,
        "scores": {"mean_iou": 0.5, "loss": None, "calibration_error": 0.0625},
        "class_names": ["sky", "<b>"],
        "confusion": [[3, 1], [0, 0]],
    }


def _report(*folders) -> str:
    arguments = ["--mode=report", "--model_dir=" + ",".join(map(str, folders))]
    report.run(flags.read_config(arguments).config)
    return (folders[0] / "report.html").read_text("utf-8")


def test_the_page_has_the_scores_of_the_folder(tmp_path, capsys):
    folder = _write_run(tmp_path / "a")
    (folder / "evaluations.jsonl").write_text(json.dumps(_evaluation()))
    (folder / "predictions.png").write_bytes(b"a picture")
    (folder / "environment.json").write_text('{"keras": "3.15.0"}')

    text = _report(folder)

    assert f"{folder}/report.html" in capsys.readouterr().out
    # Steps, best mean IoU, last mean IoU, no accuracy, loss, images a second.
    cells = re.findall(r"<td>(.*?)</td>", text[text.index("Best mean IoU") :])[1:6]
    none = '<span class="none">–</span>'
    assert cells == ["10", "0.7500", "0.6250", none, "1.0000"]
    assert "1234.5" in text
    assert "<figcaption>Share of time waiting for input</figcaption>" in text
    assert "0.1250" in text  # The IoU of the second class.
    assert "75.0%" in text  # Of the confusion matrix: 3 of 4.
    assert "0.0625" in text  # The calibration error.
    assert base64.b64encode(b"a picture").decode() in text
    assert "3.15.0" in text
    assert "--mode=evaluate --model_dir=" in text


def test_what_the_last_evaluation_could_not_score_is_not_that_of_an_older_one(tmp_path):
    folder = _write_run(tmp_path / "a")
    tags = ("iou/sky", "recall/sky", "precision/sky", "calibration_error")
    points = [
        {"step": 10, "split": "eval", **dict.fromkeys(tags, 0.3125)},
        # No pixel was predicted to be sky: of a share of none, no number is written.
        {"step": 20, "split": "eval", "mean_iou": 0.5, "iou/sky": 0, "recall/sky": 0},
        {"step": 25, "split": "train", "loss": 1.0},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, points)))
    text = _report(folder)
    row = re.search(r"<tr><td><i[^>]*></i>sky</td>(.*?)</tr>", text)[1]
    # IoU, Dice, recall, precision, share of pixels.
    cells = [re.search(r"0\.\d{4}|–", cell)[0] for cell in row.split("</td>")[:5]]
    assert cells == ["0.0000", "–", "0.0000", "–", "–"]
    assert "Expected calibration error" not in text


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    text = _report(_write_run(tmp_path / "a"))
    assert "<script" not in text
    assert "http" not in text
    assert "<b>" not in text  # The name of a class.
    assert "&lt;b&gt;" in text


def test_runs_are_told_apart_and_their_settings_compared(tmp_path):
    first = _write_run(tmp_path / "x" / "run", batch_size=16)
    second = _write_run(tmp_path / "y" / "run", batch_size=32)
    text = _report(first, second)
    assert "x/run" in text
    assert "y/run" in text
    differing = text[
        text.index("Where the runs differ") : text.index("Not the default")
    ]
    found = re.findall(r"--(\w+)</code></td><td>(.*?)</td><td>(.*?)<", differing)
    # The default learning rate follows from the batch size.
    assert found == [
        ("learning_rate", "0.0005", "0.000707"),
        ("batch_size", "16", "32"),
    ]


def test_what_follows_from_other_settings_is_no_setting_of_ones_own(tmp_path):
    folder = _write_run(
        tmp_path / "a", augment="light", random_hue=20.0, learning_rate=0.5
    )
    text = _report(folder)
    unusual = text[text.index("Not the default") : text.index("at their default")]
    # Light changes have a scale and a brightness, and no hue.
    assert re.findall(r"--(\w+)</code></td><td>(.*?)<", unusual) == [
        ("augment", "light"),
        ("random_hue", "20.0"),
        ("learning_rate", "0.5"),
    ]


@pytest.mark.parametrize("names", ["a,", "a,,b", "a,a", "a,./a"])
def test_a_run_is_named_once(names):
    with pytest.raises(errors.ConfigError, match="name each run once"):
        report.split_folders(names)


def test_a_comma_may_belong_to_the_name_of_a_folder(tmp_path):
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert report.split_folders(str(folder)) == [str(folder)]


def test_a_folder_that_is_none_of_a_run_is_named(tmp_path):
    with pytest.raises(errors.CheckpointError, match="is not the folder of a run"):
        reading.read_runs([str(tmp_path)])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    folder = _write_run(tmp_path / "a")
    (folder / "dataset.json").write_text("{")
    with pytest.raises(errors.CheckpointError, match=r"dataset\.json cannot be read"):
        reading.read_runs([str(folder)])


def test_what_a_report_has_no_use_for_is_said():
    given = ["--mode=report", "--model_dir=a", "--batch_size=3"]
    assert flags.read_config(given).remarks == [
        "--mode=report does not use --batch_size."
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 375, [0, 100, 200, 300, 400]),
        (0.42, 0.77, [0.4, 0.5, 0.6, 0.7, 0.8]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, 3, [3, 4, 5, 6]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert charts.ticks(low, high) == expected


def test_a_line_runs_from_the_left_edge_to_the_right_one():
    line = charts.Line("a & b", "red", [(0, 0.0), (100, 1.0)])
    drawn = charts.draw("Loss", [line])
    # The area is 54 to 428 by 222 to 10: the axes leave that of 440 by 250.
    assert 'points="54.0,222.0 428.0,10.0"' in drawn
    assert "<title>a &amp; b, step 100: 1</title>" in drawn


def _with_examples(folder) -> str:
    """Adds an evaluation with two examples to a run; returns its report."""
    picture = folder / "evaluations" / "a" / "worst-1.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a strip")
    examples = [
        {"kind": "best", "name": "one", "mean_iou": 0.96, "picture": "../secret"},
        {
            "kind": "worst",
            "name": "<i>two",
            "mean_iou": 0.125,
            "picture": "evaluations/a/worst-1.png",
        },
    ]
    line = {
        **_evaluation(),
        "examples": examples,
        "images_by_mean_iou": [0, 5, 0, 2],
        "calibration": [[0, 0, 0.0], [20, 15, 0.625]],
    }
    (folder / "evaluations.jsonl").write_text(json.dumps(line))
    return _report(folder)


def test_the_worst_and_the_best_are_shown_with_name_and_score(tmp_path):
    (tmp_path / "secret").write_bytes(b"not of the run")
    text = _with_examples(_write_run(tmp_path / "a"))
    worst = text[text.index("<h4>Worst") : text.index("<h4>Best")]
    assert base64.b64encode(b"a strip").decode() in worst
    assert "&lt;i&gt;two <b>0.1250</b>" in worst
    # A file of run that leads out of its folder is not followed.
    assert base64.b64encode(b"not of the run").decode() not in text
    best = text[text.index("<h4>Best") :]
    assert "The picture is gone." in best and "one <b>0.9600</b>" in best
    assert "5 images with 0.25 to 0.50" in text
    assert "rgb(4, 5, 6)" in text[text.index("From left to right") :]  # The legend.


def test_a_report_counts_as_a_picture_of_the_data_only_if_it_shows_photos(tmp_path):
    """A training with --nokeep_golden warns of what `list_pictures` names."""
    run = _write_run(tmp_path / "a")
    _report(run)
    assert golden.list_pictures(str(run)) == []
    _with_examples(run)
    assert golden.list_pictures(str(run)) == ["evaluations", "report.html"]


def test_how_reliable_the_probabilities_are_is_drawn(tmp_path):
    text = _with_examples(_write_run(tmp_path / "a"))
    drawn = text[text.index('aria-label="Reliability diagram"') :]
    title = "sure by 0.50 to 1.00: 20 pixels (100.0%); 0.750 of them right, 0.625 exp"
    assert title in drawn
    # Of the 212 units of height, 0.75; all pixels are in this bin.
    assert 'height="159.0"' in drawn and 'height="212.0"' in drawn


def test_a_class_has_its_share_of_the_pixels(tmp_path):
    text = _with_examples(_write_run(tmp_path / "a"))
    row = re.search(r"<tr><td><i[^>]*></i>&lt;b&gt;</td>(.*?)</tr>", text)[1]
    # Of the four pixels that the matrix counts none is of the second class.
    assert re.findall(r"\d\.\d{4}", row) == ["0.1250", "0.0000"]


def test_bars_have_the_heights_that_they_stand_for():
    drawn = charts.draw_bars("A", [0.5, 1.0], color="red", titles=["a", "b"], top=8)
    bars = re.findall(
        r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="(.*?)"', drawn
    )
    # The area is 54 to 428 by 222 to 10, and a bar leaves one unit on either side.
    assert bars[:2] == [
        ("55.0", "116.0", "185.0", "106.0"),
        ("242.0", "10.0", "185.0", "212.0"),
    ]
    assert ">8</text>" in drawn and "<title>b</title>" in drawn
