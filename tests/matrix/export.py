"""Exports runs of all kinds of encoders, of all precisions, with and without averages.

    python -m tests.matrix.export --results=export.jsonl [--encoders=a,b] \
        [--precisions=float32] [--averages=yes,no] [--steps=100] [--workers=2]

Every encoder is taken in every precision, with averages of the weights and without by
turns; `--averages=yes,no` takes both of each. Each case is a short training on the
built-in data and an export in all formats whose packages are installed, by the command
line, and the scores of the files. `--workers` cases are done side by side. What is done
is added to the file of results, a line of JSON for each case, and not done again the
next time; what failed is. Prints tables of the shares of labels that agree, and of the
scores. A file in 8 bits may be refused for its labels, as those of a model of a user
may; any other refusal is a failure. Exit code 1 if a case has failed.
"""

import argparse
import functools
import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import TypedDict

from tests import matrix
from trainer.exporting import registry as formats

Case = tuple[str, str, bool]
"""Encoder, precision, and whether the run keeps averages of its weights."""

PRECISIONS = ("float32", "bfloat16", "float16")
LEAST_MEAN_IOU = 0.4
"""A model with less has not learned, and its labels are ties that rounding decides.
That of one that takes everything for background is 0.2."""

_FLAGS = (
    "--encoder_weights=none",
    "--nofreeze_encoder",
    "--image_size=64",
    "--batch_size=16",
    "--learning_rate=0.003",
    "--train_epochs=0",
)
_NARROWER = {"plain": "--encoder_alpha=0.25"}
"""Its 19 million weights work at full size: half an hour in float16 on a CPU."""
_REFUSAL = re.compile(
    r"exit code 6: --export_format=(litert_int8): ([\d.]+)% of the labels [^:]*"
)
"""What is said where nothing but a file in 8 bits is refused."""

_TRIES = 2
"""A model that has not learned is trained again, four times as long."""


class Result(TypedDict):
    """What became of a case: a line in the file of results.

    Attributes:
      case: which one.
      agreement: by format, the share of labels as in float32.
      refused: the formats that were not published, for that share.
      trained_precision: the share of the labels that float32 and the trained precision
        have in common, or None.
      scores: the mean IoU by format, and of the model itself; see `export_scores`.
      reason: why it failed; empty: it did not.
      seconds: that it took.
    """

    case: Case
    agreement: dict[str, float]
    refused: list[str]
    trained_precision: float | None
    scores: dict[str, float]
    reason: str
    seconds: float


def list_cases(
    encoders: Iterable[str],
    precisions: Iterable[str] = PRECISIONS,
    averages: Iterable[bool] | None = None,
) -> list[Case]:
    """Lists all cases of some encoders, first each of them once.

    Without `averages` encoders and precisions have them by turns: so every pair of an
    encoder, a precision, and averages or none is in one case at least.
    """
    if averages is None:
        return [
            (encoder, precision, (row + column) % 2 == 0)
            for row, precision in enumerate(precisions)
            for column, encoder in enumerate(encoders)
        ]
    return [
        (encoder, precision, has_averages)
        for has_averages, precision, encoder in itertools.product(
            averages, precisions, encoders
        )
    ]


def installed_formats() -> list[str]:
    """Lists the formats whose packages are there."""
    return [name for name in formats.FORMATS if not formats.find_missing_package(name)]


def read_results(path: pathlib.Path) -> dict[Case, Result]:
    """Reads what is known of each case; of several lines the last one counts."""
    return {tuple(result["case"]): result for result in matrix.read_lines(path)}


def format_tables(results: Mapping[Case, Result]) -> str:
    """Makes Markdown tables, cases by formats, and a list of the reasons."""
    names = list(formats.FORMATS)
    agreements, scores = [], []
    for case, result in sorted(results.items()):
        shares = {"as trained": result["trained_precision"], **result["agreement"]}
        cells = {name: f"{share:.3%}" for name, share in shares.items() if share}
        cells |= {name: f"{cells[name]}, refused" for name in result["refused"]}
        agreements.append(_format_row(case, ("as trained", *names), cells))
        cells = {name: f"{score:.4f}" for name, score in result["scores"].items()}
        scores.append(_format_row(case, ("trained", "float32", *names), cells))
    return "\n".join(
        [
            "Labels as in float32:\n",
            *_format_heads(["as trained", *names]),
            *agreements,
            "\nMean IoU:\n",
            *_format_heads(["as trained", "float32", *names]),
            *scores,
            *(
                f"\n{' '.join(map(str, case))}: {result['reason']}"
                for case, result in sorted(results.items())
                if result["reason"]
            ),
        ]
    )


def _format_heads(names: Sequence[str]) -> list[str]:
    heads = ["encoder", "precision", "averages", *names]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]


def _format_row(case: Case, names: Iterable[str], cells: Mapping[str, str]) -> str:
    encoder, precision, has_averages = case
    row = [f"`{encoder}`", precision, "yes" if has_averages else "no"]
    return f"| {' | '.join([*row, *(cells.get(name, '-') for name in names)])} |"


def _run(*arguments: str) -> tuple[str, str]:
    """Runs a module; returns what it printed, and why it failed, or nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return done.stdout, ""
    # Of an export, each format that failed; of anything else, the last words.
    said = re.findall(r"--export_format=\w+: .*", done.stderr)
    said = list(dict.fromkeys(said)) or done.stderr.strip().splitlines()[-1:]
    return done.stdout, f"exit code {done.returncode}: {' '.join(said)}"


def _train(case: Case, folder: str, num_steps: int) -> str:
    """Trains the run of a case; returns why that failed, or nothing."""
    encoder, precision, has_averages = case
    return _run(
        "trainer.main",
        f"--model_dir={folder}",
        f"--encoder={encoder}",
        f"--mixed_precision={precision}",
        f"--ema_decay={0.9 if has_averages else 0.0}",
        f"--train_steps={num_steps}",
        f"--epochs_between_evals={num_steps}",
        *_FLAGS,
        *filter(None, [_NARROWER.get(encoder)]),
    )[1]


def _read_score(folder: str) -> float:
    """Returns the mean IoU of a run's last evaluation."""
    lines = pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()
    points = [point for point in map(json.loads, lines) if point["split"] == "eval"]
    return points[-1].get("mean_iou", 0.0)


def _try(case: Case, num_steps: int) -> Result:
    """Trains, exports and scores; whatever goes wrong is a result."""
    started = time.monotonic()
    result = Result(
        case=case,
        agreement={},
        refused=[],
        trained_precision=None,
        scores={},
        reason="",
        seconds=0.0,
    )
    with tempfile.TemporaryDirectory(prefix="segloop-export-") as parent:
        for number in range(_TRIES):
            folder, score = f"{parent}/run{number}", 0.0
            result["reason"] = _train(case, folder, num_steps * 4**number)
            if result["reason"] or (score := _read_score(folder)) >= LEAST_MEAN_IOU:
                break
        if not result["reason"]:
            if score < LEAST_MEAN_IOU:
                result["reason"] = f"its mean IoU is {score:.3f}: it has not learned."
            else:
                _export(folder, result)
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def _export(folder: str, result: Result) -> None:
    """Exports and scores a run, and adds what becomes of it to a result."""
    names = ",".join(installed_formats())
    arguments = ("--mode=export", f"--model_dir={folder}", f"--export_format={names}")
    _, result["reason"] = _run("trainer.main", *arguments)
    for path in pathlib.Path(folder).glob("export/*/model.json"):
        proof = json.loads(path.read_text())["proof"]
        result["agreement"][path.parent.name] = proof["agreement"]
        result["trained_precision"] = proof["agreement_with_trained_precision"]
    if refusal := _REFUSAL.fullmatch(result["reason"]):
        result["reason"] = ""
        result["refused"].append(refusal[1])
        result["agreement"][refusal[1]] = float(refusal[2]) / 100
    printed, reason = _run("tests.matrix.export_scores", folder)
    if reason:
        result["reason"] += f" Scores: {reason}"
    else:
        result["scores"] = json.loads(printed.splitlines()[-1])


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="export.jsonl", type=pathlib.Path)
    parser.add_argument("--encoders", default=",".join(matrix.FAMILIES))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--averages", help="yes, no or yes,no; by turns if not given")
    parser.add_argument("--steps", default=100, type=int)
    parser.add_argument("--workers", default=1, type=int)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Runs the script; returns its exit code."""
    options = _parse(arguments)
    cases = list_cases(
        options.encoders.split(","),
        options.precisions.split(","),
        options.averages and [word == "yes" for word in options.averages.split(",")],
    )
    done = {c for c, r in read_results(options.results).items() if not r["reason"]}
    # Each case is processes of its own, which threads need only wait for.
    pool = futures.ThreadPoolExecutor(options.workers)
    do = functools.partial(_try, num_steps=options.steps)
    wanted = [case for case in cases if case not in done]
    for result in matrix.do_all(pool, do, wanted, options.results):
        words = (*result["case"], result["reason"] or "ok", result["seconds"])
        print(*words, "s", flush=True)
    results = read_results(options.results)
    print(format_tables(results))
    return 1 if any(result["reason"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
