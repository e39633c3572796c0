"""What each part of the recipe gives: the tutorial's training, one part more a row.

    python -m tests.recipe.ablation --folder=runs/ablation -- FLAGS OF trainer.main

FLAGS say what the rows have in common: the data, and its part to choose by, which must
not be that to report on (say `--train_split=train[:80%] --eval_split=train[80%:]`); the
size of images and batches, and the length. Each row is trained with each seed into a
folder of its own. What is done is not done again, and what was killed goes on. Prints a
table of the means over the seeds, with the least and the greatest.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_TUTORIAL = {
    "freeze_encoder": "true",
    "decoder": "pix2pix",
    "loss": "ce",
    "augment": "flip",
    "optimizer": "adam",
    "lr_schedule": "constant",
    "warmup_steps": "0",
    "ema_decay": "0",
}
"""The corrected tutorial, as far as it is not the same in all rows."""


class Part(NamedTuple):
    """A part of the recipe.

    Attributes:
      name: in the table.
      flags: of training that it changes; the rows below keep them.
      tta: `--tta` of the evaluation, which the rows below keep, too.
    """

    name: str
    flags: Mapping[str, str]
    tta: str = ""


PARTS = (
    Part("the tutorial, its labels corrected", _TUTORIAL),
    Part(
        "encoder trained, too, at a lower rate; AdamW, warm-up, cosine",
        {
            "freeze_encoder": "false",
            "encoder_lr_multiplier": "0.3",
            "optimizer": "adamw",
            "weight_decay": "0.01",
            "learning_rate": "1e-3",
            "lr_schedule": "cosine",
            "warmup_steps": "20",
        },
    ),
    Part(
        "`--augment=light`, images up to twice as close",
        {"augment": "light", "random_scale": "0.75,2.0"},
    ),
    Part("`--loss=ce+lovasz`", {"loss": "ce+lovasz"}),
    Part(
        "`--decoder=unet`, averages of the weights: `recommended.flags`",
        {"decoder": "unet", "ema_decay": "0.99"},
    ),
    Part("`--tta=flip,1.5`", {}, tta="flip,1.5"),
)


class Scores(NamedTuple):
    """What a run reached."""

    pixel_accuracy: float
    mean_iou: float


def flags_of(place: int) -> dict[str, str]:
    """Returns the training flags of a row: its own, over those of the rows above.

    Args:
      place: of the row in `PARTS`.
    """
    return {
        name: value for part in PARTS[: place + 1] for name, value in part.flags.items()
    }


def trained_row(place: int) -> int:
    """Returns the row whose runs a row evaluates: its own, if it has other training."""
    while not PARTS[place].flags:
        place -= 1
    return place


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("flags", nargs="*", help="of trainer.main, after --")
    arguments = parser.parse_args()
    results: dict[int, list[Scores]] = {}
    for seed in arguments.seeds.split(","):
        for place, part in enumerate(PARTS):
            run = arguments.folder / f"{trained_row(place)}-seed-{seed}"
            typed = [f"--{name}={value}" for name, value in flags_of(place).items()]
            _run([*typed, *arguments.flags, f"--seed={seed}"], run)
            scores = _evaluate(run, part.tta)
            results.setdefault(place, []).append(scores)
            print(f"seed {seed}, {part.name}: {scores}", file=sys.stderr)
    print(format_table(results))
    return 0


def _run(flags: Sequence[str], run: pathlib.Path) -> None:
    """Runs the program; what it prints goes to RUN.log."""
    run.parent.mkdir(parents=True, exist_ok=True)
    with open(run.with_suffix(".log"), "ab") as log:
        subprocess.run(
            [sys.executable, "-m", "trainer.main", *flags, f"--model_dir={run}"],
            stdout=log,
            stderr=log,
            check=True,
        )


def _evaluate(run: pathlib.Path, tta: str) -> Scores:
    """Scores the last checkpoint of a run, if that was not done before."""
    path = run / "evaluations.jsonl"
    for _ in range(2):
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        # The last line: those before may be of checkpoints in the midst of training.
        for line in map(json.loads, reversed(lines)):
            if ",".join(line["tta"]) == tta:
                scores = line["scores"]
                return Scores(scores["pixel_accuracy"], scores["mean_iou"])
        _run(["--mode=evaluate", f"--tta={tta}"], run)
    raise ValueError(f"{path} has no evaluation with --tta={tta}")


def format_table(results: Mapping[int, Sequence[Scores]]) -> str:
    """Makes a Markdown table.

    Args:
      results: by the place of a row, the scores of each seed.
    """
    lines = ["| | pixel accuracy | mean IoU |", "|---|---|---|"]
    for place, scores in results.items():
        sign = "+ " if place else ""
        cells = [
            f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            for values in zip(*scores, strict=True)
        ]
        lines.append(f"| {sign}{PARTS[place].name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
