"""The script that takes every pair of parts through: what it does, and does again."""

import json
import sys

import pytest

from models import registry
from tests.matrix import export, run


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras."""


def _result(pair, status="ok", reason="", seconds=1.0):
    return {"pair": pair, "status": status, "reason": reason, "seconds": seconds}


def _run(monkeypatch, path, statuses):
    """Runs the script with what becomes of pairs; returns its code, and what it did."""
    done = []

    def try_all(pairs, path):
        with path.open("a") as file:
            for pair in pairs:
                done.append(pair)
                status = statuses.get(pair, "ok")
                file.write(json.dumps(_result(pair, status, "Why.")) + "\n")

    monkeypatch.setattr(run, "_try_all", try_all)
    monkeypatch.setattr(sys, "argv", ["run", f"--results={path}"])
    return run.main(), done


def test_every_pair_is_there_once_and_each_encoder_is_soon():
    pairs = run.list_pairs()
    rows = {(encoder, stride) for encoder, _, stride in pairs}
    of_16 = registry.encoders_with("output_stride")
    assert rows == {(e, None) for e in registry.ENCODERS} | {(e, 16) for e in of_16}
    assert len(pairs) == len(set(pairs)) == len(rows) * len(registry.DECODERS)
    first = pairs[: len(rows)]
    assert {(encoder, stride) for encoder, _, stride in first} == rows
    assert {decoder for _, decoder, _ in first} == set(registry.DECODERS)


def test_what_failed_is_done_again_and_nothing_else(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.jsonl"
    bad, refused = run.list_pairs()[3], run.list_pairs()[5]

    code, done = _run(monkeypatch, path, {bad: "failed", refused: "refused"})
    assert (code, done) == (1, run.list_pairs())
    out = capsys.readouterr().out
    assert out.count("failed, 1 s") == 1 and out.count("refused, 1 s") == 1
    assert out.count("Why.") == 2

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


def test_exports_are_made_once_and_failed_ones_again(tmp_path, monkeypatch, capsys):
    path, done = tmp_path / "export.jsonl", []

    def try_case(case, num_steps):
        done.append((case, num_steps))
        reason = "Why." if case == ("b", "float16", True) and len(done) < 13 else ""
        return export.Result(
            case=case,
            agreement={} if reason else {"keras": 0.9995},
            trained_precision=None if reason else 0.99,
            reason=reason,
            seconds=1.0,
        )

    monkeypatch.setattr(export, "_try", try_case)
    arguments = [f"--results={path}", "--encoders=a,b", "--steps=7"]
    assert export.main(arguments) == 1
    # Two encoders, three precisions, with averages and without.
    assert len(set(done)) == 12
    assert {num_steps for _, num_steps in done} == {7}
    printed = capsys.readouterr().out
    assert "| `a` | float32 | no | 99.000% | - | 99.950% | - | - | - |" in printed
    assert "\nb float16 True: Why.\n" in printed
    assert export.main(arguments) == 0
    assert done[12:] == [(("b", "float16", True), 7)]
