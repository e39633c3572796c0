"""The script that takes every pair of parts through: what it does, and does again."""

import itertools
import json
import re
import threading
from concurrent import futures

import numpy as np
import pytest

from models import registry
from tests import matrix
from tests.matrix import export, export_scores, run


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


def _result(pair, status="ok", reason="", seconds=1.0):
    return {"pair": pair, "status": status, "reason": reason, "seconds": seconds}


def _run(monkeypatch, path, statuses):
    """Runs the script with what becomes of pairs; returns its code, and what it did."""
    done = []

    def try_all(pairs, path, num_workers):
        with path.open("a") as file:
            for pair in pairs:
                done.append(pair)
                status = statuses.get(pair, "ok")
                file.write(json.dumps(_result(pair, status, "Why.")) + "\n")

    monkeypatch.setattr(run, "_try_all", try_all)
    return run.main([f"--results={path}", "--encoders=plain,mobilenet_v2"]), done


def test_every_pair_is_there_once_and_each_encoder_is_soon():
    pairs = run.list_pairs(registry.ENCODERS)
    rows = {(encoder, stride) for encoder, _, stride in pairs}
    of_16 = registry.encoders_with("output_stride")
    assert rows == {(e, None) for e in registry.ENCODERS} | {(e, 16) for e in of_16}
    assert len(pairs) == len(set(pairs)) == len(rows) * len(registry.DECODERS)
    first = pairs[: len(rows)]
    assert {(encoder, stride) for encoder, _, stride in first} == rows
    assert {decoder for _, decoder, _ in first} == set(registry.DECODERS)


def test_what_failed_is_done_again_and_nothing_else(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.jsonl"
    pairs = run.list_pairs(("plain", "mobilenet_v2"))
    bad, refused = pairs[3], pairs[5]

    code, done = _run(monkeypatch, path, {bad: "failed", refused: "refused"})
    assert (code, done) == (1, pairs)
    out = capsys.readouterr().out
    assert out.count("failed, 1 s") == 1 and out.count("refused, 1 s") == 1
    assert out.count("Why.") == 2

    path.write_text(path.read_text() + '{"pair": ["pl\n')  # As a kill leaves it.
    assert _run(monkeypatch, path, {}) == (0, [bad])
    assert _run(monkeypatch, path, {}) == (0, [])


def test_table_has_encoders_in_rows_and_says_what_is_missing():
    pair = ("resnet50", "fpn", 16)
    table = run.format_table({pair: _result(pair, "refused", "No.", seconds=2.6)})
    lines = table.splitlines()
    column = 1 + list(registry.DECODERS).index("fpn")
    (row,) = [line for line in lines if line.startswith("| `resnet50` to 16 |")]
    assert row.strip("|").split(" | ")[column].strip() == "refused, 3 s"
    assert row.count(" - ") == len(registry.DECODERS) - 1
    assert lines[-1] == "`resnet50` to 16 with `fpn` refused: No."


def _export_result(case, reason="", **values):
    return export.Result(
        case=case,
        agreement=values.get("agreement", {}),
        refused=[],
        trained_precision=values.get("trained_precision"),
        scores=values.get("scores", {}),
        reason=reason,
        seconds=1.0,
    )


def test_exports_are_made_once_and_failed_ones_again(tmp_path, monkeypatch, capsys):
    path, done = tmp_path / "export.jsonl", []

    def try_case(case, num_steps):
        done.append((case, num_steps))
        if case == ("b", "float16", True) and len(done) < 13:
            return _export_result(case, "Why.")
        return _export_result(
            case,
            agreement={"keras": 0.9995},
            trained_precision=0.99,
            scores={"trained": 0.5, "float32": 0.25, "keras": 0.125},
        )

    monkeypatch.setattr(export, "_try", try_case)
    arguments = [f"--results={path}", "--encoders=a,b", "--steps=7"]
    assert export.main([*arguments, "--precisions=float32", "--averages=yes"]) == 0
    arguments.append("--averages=yes,no")
    assert done == [(("a", "float32", True), 7), (("b", "float32", True), 7)]
    path.write_text(path.read_text() + '{"case": ["a", "bfl\n')  # As a kill leaves it.
    assert export.main(arguments) == 1
    # Two encoders, three precisions, with averages and without.
    assert len(done) == len(set(done)) == 12
    printed = capsys.readouterr().out
    assert "| `a` | float32 | no | 99.000% | - | 99.950% | - | - | - |" in printed
    assert (
        "| `a` | float32 | no | 0.5000 | 0.2500 | - | 0.1250 | - | - | - |" in printed
    )
    assert "\nb float16 True: Why.\n" in printed
    assert export.main(arguments) == 0
    assert done[12:] == [(("b", "float16", True), 7)]


def test_pairs_of_what_exports_differ_in_are_all_taken():
    cases = export.list_cases(matrix.FAMILIES)
    assert len(cases) == len(matrix.FAMILIES) * len(export.PRECISIONS)
    everything = export.list_cases(matrix.FAMILIES, averages=(True, False))
    for one, other in itertools.combinations(range(3), 2):
        pairs = {(case[one], case[other]) for case in everything}
        assert {(case[one], case[other]) for case in cases} == pairs


def test_work_side_by_side_is_written_down_as_it_is_done(tmp_path):
    path, both = tmp_path / "results.jsonl", threading.Barrier(2, timeout=60)

    def do(item):
        both.wait()  # Passed only by two at a time.
        return {"item": item}

    results = matrix.do_all(futures.ThreadPoolExecutor(2), do, range(4), path)
    assert list(matrix.read_lines(path)) == []
    seen = [next(results), next(results)]
    assert list(matrix.read_lines(path)) == seen
    seen += results
    assert list(matrix.read_lines(path)) == seen
    assert sorted(result["item"] for result in seen) == [0, 1, 2, 3]


def _try_export(monkeypatch, scores, reason=""):
    """Tries a case whose trainings end with some scores; returns result and calls."""
    calls, left = [], list(scores)

    def run(*arguments):
        calls.append(arguments)
        return '{"keras": 0.5}\n', reason if "--mode=export" in arguments else ""

    monkeypatch.setattr(export, "_run", run)
    monkeypatch.setattr(export, "_read_score", lambda folder: left.pop(0))
    return export._try(("plain", "float16", False), 5), calls


def test_a_model_that_has_not_learned_is_trained_longer(monkeypatch):
    result, calls = _try_export(monkeypatch, [0.3, 0.6])
    assert (result["reason"], result["scores"]) == ("", {"keras": 0.5})
    trainings = [call for call in calls if "--encoder=plain" in call]
    steps = [word for call in trainings for word in call if "train_steps" in word]
    assert steps == ["--train_steps=5", "--train_steps=20"]
    assert {"--mixed_precision=float16", "--ema_decay=0.0"} <= set(trainings[0])
    # What is exported and scored is the second one.
    folders = {word for word in trainings[1] if word.startswith("--model_dir=")}
    assert folders <= set(calls[2]) and "--mode=export" in calls[2]
    assert calls[3][0] == "tests.matrix.export_scores"
    result, calls = _try_export(monkeypatch, [0.3, 0.35])
    assert "its mean IoU is 0.350" in result["reason"] and len(calls) == 2


@pytest.mark.parametrize(
    ("said", "is_failure"),
    [
        ("--export_format=litert_int8: 98.9%", False),
        ("--export_format=litert: 98.9%", True),
        (
            "--export_format=onnx: does not run. --export_format=litert_int8: 98.9%",
            True,
        ),
    ],
)
def test_only_a_file_in_8_bits_may_be_refused(said, is_failure, monkeypatch):
    reason = f"exit code 6: {said} of the labels of 8 photos are not enough."
    result, _ = _try_export(monkeypatch, [0.6], reason)
    assert result["reason"] == (reason if is_failure else "")
    refused = [] if is_failure else ["litert_int8"]
    assert result["refused"] == list(result["agreement"]) == refused
    table = export.format_tables({("plain", "float16", False): result})
    assert ("| 98.900%, refused |" in table) == (not is_failure)


def test_families_are_of_all_kinds():
    kinds = [re.match("[a-z]+", name)[0] for name in matrix.FAMILIES]
    assert all(name.startswith(tuple(kinds)) for name in registry.ENCODERS)
    assert set(matrix.FAMILIES) <= set(registry.ENCODERS)


def test_scores_are_those_of_the_valid_pixels():
    labels = np.array([[[0, 0, 1, 255]]], np.uint8)
    predicted = np.array([[[0, 1, 1, 2]]], np.uint8)
    # Class 0: 1 / 2, class 1: 1 / 2, class 2 is nowhere.
    assert export_scores.mean_iou(labels, predicted, 3) == pytest.approx(0.5)
