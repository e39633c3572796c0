"""Exports runs of every encoder, trained in every precision, with and without averages.

    python -m tests.matrix.export --results=export.jsonl [--encoders=a,b] [--steps=60]

Each case is a short training on the built-in data and an export in all formats whose
packages are installed, by the command line. What is done is added to the file of
results, a line of JSON for each case, and not done again the next time; what failed is.
Prints a table of the shares of labels that agree. Exit code 1 if a case has failed.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from models import registry
from trainer.exporting import registry as formats

Case = tuple[str, str, bool]
"""Encoder, precision, and whether the run keeps averages of its weights."""


class Result(TypedDict):
    """What became of a case: a line in the file of results.

    Attributes:
      case: which one.
      agreement: by format, the share of labels as in float32; of those published.
      trained_precision: the share of the labels that float32 and the trained precision
        have in common, or None.
      reason: why it failed; empty: it did not.
      seconds: that it took.
    """

    case: Case
    agreement: dict[str, float]
    trained_precision: float | None
    reason: str
    seconds: float


def list_cases(encoders: Iterable[str]) -> list[Case]:
    """Lists all cases of some encoders, first each of them once."""
    variants = itertools.product((True, False), ("bfloat16", "float16", "float32"))
    return [
        (encoder, precision, has_averages)
        for has_averages, precision in variants
        for encoder in encoders
    ]


def installed_formats() -> list[str]:
    """Lists the formats whose packages are there."""
    return [name for name in formats.FORMATS if not formats.find_missing_package(name)]


def read_results(path: pathlib.Path) -> dict[Case, Result]:
    """Reads what is known of each case; of several lines the last one counts."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines]
    return {tuple(result["case"]): result for result in results}


def format_table(results: Mapping[Case, Result]) -> str:
    """Makes a Markdown table, cases by formats, and a list of the reasons."""
    names = list(formats.FORMATS)
    lines = [
        "| encoder | precision | averages | float32 as trained |"
        + "".join(f" `{name}` |" for name in names),
        "|---|---|---|---|" + "---|" * len(names),
    ]
    for (encoder, precision, has_averages), result in sorted(results.items()):
        shares = [result["trained_precision"]]
        shares += [result["agreement"].get(name) for name in names]
        cells = ["-" if share is None else f"{share:.3%}" for share in shares]
        averages = "yes" if has_averages else "no"
        lines.append(f"| `{encoder}` | {precision} | {averages} | " + " | ".join(cells))
        lines[-1] += " |"
    lines += [
        f"\n{' '.join(map(str, case))}: {result['reason']}"
        for case, result in sorted(results.items())
        if result["reason"]
    ]
    return "\n".join(lines)


def _run(*arguments: str) -> str:
    """Runs segloop; returns why it failed, or nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return ""
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return f"exit code {done.returncode}: {(said or done.stderr.splitlines())[-1]}"


def _try(case: Case, num_steps: int) -> Result:
    """Trains and exports; whatever goes wrong is a result."""
    encoder, precision, has_averages = case
    started = time.monotonic()
    agreement, trained_precision = {}, None
    with tempfile.TemporaryDirectory(prefix="segloop-export-") as folder:
        model_dir = f"--model_dir={folder}/run"
        reason = _run(
            model_dir,
            f"--encoder={encoder}",
            "--encoder_weights=none",
            "--nofreeze_encoder",
            f"--mixed_precision={precision}",
            f"--ema_decay={0.9 if has_averages else 0.0}",
            "--image_size=64",
            "--batch_size=8",
            "--train_epochs=0",
            f"--train_steps={num_steps}",
            f"--epochs_between_evals={num_steps}",
        )
        reason = reason or _run(
            model_dir,
            "--mode=export",
            f"--export_format={','.join(installed_formats())}",
        )
        for path in pathlib.Path(folder).glob("run/export/*/model.json"):
            proof = json.loads(path.read_text())["proof"]
            agreement[path.parent.name] = proof["agreement"]
            trained_precision = proof["agreement_with_trained_precision"]
    return Result(
        case=case,
        agreement=agreement,
        trained_precision=trained_precision,
        reason=reason,
        seconds=round(time.monotonic() - started, 1),
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="export.jsonl", type=pathlib.Path)
    parser.add_argument("--encoders", default=",".join(registry.ENCODERS))
    parser.add_argument("--steps", default=60, type=int)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Runs the script; returns its exit code."""
    options = _parse(arguments)
    done = {c for c, r in read_results(options.results).items() if not r["reason"]}
    for case in list_cases(options.encoders.split(",")):
        if case in done:
            continue
        result = _try(case, options.steps)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(*case, result["reason"] or "ok", result["seconds"], "s", flush=True)
    results = read_results(options.results)
    print(format_table(results))
    return 1 if any(result["reason"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
