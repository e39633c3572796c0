"""Counts how many of 20 masks, spoiled on purpose, the doctor ranks among the first 30.

    python -m tests.benchmarks.spoiled_masks --folder=runs/spoiled \
        --tfds_dir=DIR --encoder_weights=FILE

writes 300 photos of Oxford-IIIT Pet and their masks into FOLDER, spoils some masks (7
shifted, 7 with their classes swapped, 6 half missing), and lets `--mode=doctor
--crossfit` look for them. Started again, it goes on where it stopped.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.benchmarks import spoiling

_NUM_FIRST = 30
_TARGET = 15
_FLAGS = (
    "--mode=doctor",
    "--crossfit",
    "--flagfile=launch/flagfiles/recommended.flags",
    "--dataset=folder",
    "--class_names=pet,background,border",
    "--label_offset=-1",
    "--image_size=128",
    "--batch_size=16",
    "--train_epochs=12",
    "--mixed_precision=bfloat16",
)


def main() -> int:
    """Runs the script; returns its exit code, 1 if too few were found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--tfds_dir", required=True)
    parser.add_argument("--encoder_weights", required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data, run = arguments.folder / "data", arguments.folder / "run"
    if not (data / "spoiled.json").is_file():
        spoiling.write(arguments.tfds_dir, data, arguments.seed)
    spoiled = json.loads((data / "spoiled.json").read_text())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trainer.main", *_FLAGS),
            f"--encoder_weights={arguments.encoder_weights}",
            f"--data_dir={data}",
            f"--model_dir={run}",
        ],
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: the data have other findings, too.
        return done.returncode
    with (run / "doctor" / "ranking.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    print(format_result(rows, spoiled))
    return int(count_found(rows, spoiled) < _TARGET)


def count_found(rows: Sequence[Mapping[str, str]], spoiled: Mapping[str, str]) -> int:
    """Returns how many spoiled masks are among the first rows of a ranking."""
    return sum(row["name"] in spoiled for row in rows[:_NUM_FIRST])


def format_result(rows: Sequence[Mapping[str, str]], spoiled: Mapping[str, str]) -> str:
    """Lists the spoiled masks by rank, and says how many are among the first."""
    ranks = {row["name"]: rank for rank, row in enumerate(rows, start=1)}
    lines = []
    for name, way in sorted(spoiled.items(), key=lambda item: ranks[item[0]]):
        row = rows[ranks[name] - 1]
        lines.append(f"{ranks[name]:4}  {way:14}{row['reason']:40}{name}")
    lines.append(
        f"{count_found(rows, spoiled)} of {len(spoiled)} spoiled masks are among the "
        f"first {_NUM_FIRST} of {len(rows)}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
