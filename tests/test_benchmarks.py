"""The arithmetic and the order of turns of `tests.benchmarks`."""

import io
import json

import pytest

from tests.benchmarks import report, turns
from trainer import errors, flags


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


def test_summary_has_best_and_median():
    assert report.summarize([3.0, 1.0, 2.0, 10.0]) == {"best": 1.0, "median": 2.5}


def test_results_are_shown_and_written(tmp_path, capsys):
    path = tmp_path / "results.json"
    shown = report.show(lambda: {"best": 1.5}, lambda found: f"{found}!", str(path))
    assert (shown, capsys.readouterr().out) == (0, "{'best': 1.5}!\n")
    assert json.loads(path.read_text()) == {"best": 1.5}


@pytest.mark.parametrize(
    ("error", "code"),
    [(errors.ConfigError("wrong"), 2), (turns.ProcessError("wrong", 7, ""), 1)],
)
def test_what_cannot_be_measured_is_one_sentence(error, code, capsys):
    def fail():
        raise error

    assert report.show(fail, str, None) == code
    assert capsys.readouterr().err.startswith("Error: wrong")


def test_comparison_is_above_one_for_the_faster():
    # Best: 3 / 2; median: 6 / 4.
    assert report.compare([2.0, 4.0, 5.0], [6.0, 3.0, 9.0]) == {
        "best": 1.5,
        "median": 1.5,
    }
    assert report.compare([2.0, 2.0, 2.0], [1.0, 4.0, 4.0]) == {
        "best": 0.5,
        "median": 2.0,
    }


def test_table_aligns_names_left_and_numbers_right():
    table = report.format_table(["", "best"], [["torch", "12.5"], ["we", "7.5"]])
    assert table == "       best\ntorch  12.5\nwe      7.5"


@pytest.mark.parametrize(
    ("load", "is_quiet"), [(0.5, True), (0.51, False)], ids=["quiet", "busy"]
)
def test_a_busy_machine_is_remarked_on(load, is_quiet):
    text = report.format_machine({"cpu_cores": 2, "load_average_before": load})
    assert text.startswith(f"2 CPU cores, load average {load:.1f} at the start")
    assert ("when it is quiet" in text) != is_quiet


def test_turns_rotate_and_leave_the_warm_up_out():
    order = []

    def contender(name):
        def run():
            order.append(name)
            return float(len(order))

        return run

    names = ("a", "b", "c")
    durations = turns.take_turns(
        {name: contender(name) for name in names}, rounds=3, warmup_rounds=2
    )
    assert "".join(order) == "bcacababcbcacab"
    # The durations are the places in this order, counted from 1.
    assert durations == {
        "a": [7.0, 12.0, 14.0],
        "b": [8.0, 10.0, 15.0],
        "c": [9.0, 11.0, 13.0],
    }


def test_a_worker_describes_itself_and_trains_as_many_steps_as_told():
    steps, channel = [], io.StringIO()
    turns.serve(
        steps.append, {"device": "CPU"}, orders=io.StringIO("3\n1\n"), channel=channel
    )
    description, *replies = map(json.loads, channel.getvalue().splitlines())
    assert steps == [3, 1]
    assert description == {"device": "CPU"}
    assert [list(reply) for reply in replies] == [["seconds"], ["seconds"]]


def test_settings_come_from_flags():
    config = flags.read_config(
        ["--model_dir=x", "--batch_size=5", "--nofreeze_encoder"]
    ).config
    assert config.train.batch_size == 5
    assert not config.model.freeze_encoder


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--batchsize=5", "batchsize"),
        ("five", "Not a flag: five"),
        ("--batch_size=0", "--batch_size=0: must be at least 1"),
    ],
)
def test_flags_that_cannot_work_are_named(flag, message):
    with pytest.raises(errors.ConfigError, match=message):
        flags.read_config(["--model_dir=x", flag])
