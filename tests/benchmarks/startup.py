"""Times the way from process start to the first finished step, against `model.fit`.

    python -m tests.benchmarks.startup [--dataset=tfds:NAME --data_dir=FOLDER]

Starts `trainer.main`, and `fit_tutorial`, a plain Keras script of the same U-Net, data
and batch size, in turn, and takes the time until each says that its first step is done:
imports, data, model, weights, tracing, the step. Without `--encoder_weights` both read
a file of random ones. To draw the pictures of the default `synthetic`, in Python, takes
both as long as all the rest: a data set of photos tells more. Flags after `--` go to
`trainer.main`.
"""

import argparse
import functools
import itertools
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from tests.benchmarks import encoder_weights, report, turns
from trainer import errors
from trainer import flags as flags_lib
from trainer.settings import config as config_lib

_SEGLOOP, _FIT = "segloop", "model.fit"
_MARKS = {_SEGLOOP: "Step 1/1: loss", _FIT: "The first step is done."}
"""What each prints at the end of its first step."""


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = _parse_arguments()
    with tempfile.TemporaryDirectory(prefix="segloop-") as folder:
        measure = functools.partial(_measure, arguments, pathlib.Path(folder))
        return report.show(measure, _format, arguments.json)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dataset", default="synthetic", help="or tfds:NAME")
    parser.add_argument("--data_dir", default="", help="of TFDS")
    parser.add_argument("--encoder_weights", default="", help="a .weights.h5 file")
    parser.add_argument("--json", metavar="FILE", help="where to write the results")
    parser.add_argument("flags", nargs="*", help="of trainer.main, after --")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds={arguments.rounds}: must be at least 1")
    return arguments


def _measure(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
    """Starts both programs in turn; returns the settings and all durations."""
    weights = arguments.encoder_weights or str(folder / "encoder.weights.h5")
    flags = [
        f"--dataset={arguments.dataset}",
        f"--data_dir={arguments.data_dir}",
        f"--encoder_weights={weights}",
        *arguments.flags,
        "--mode=train",
        "--train_steps=1",
        "--train_epochs=0",
        "--log_steps=1",
        "--summary_images=0",
    ]
    config = flags_lib.read_config([*flags, "--model_dir=unused"]).config
    if not arguments.encoder_weights:
        encoder_weights.write_in_process(pathlib.Path(weights))
    machine = report.describe_machine()
    numbers = itertools.count()

    def start_segloop() -> float:
        # A run of its own each time: it would go on from a checkpoint.
        model_dir = folder / f"run-{next(numbers)}"
        command = ["-m", "trainer.main", *flags, f"--model_dir={model_dir}"]
        return _time_until_mark(_SEGLOOP, command)

    start_fit = functools.partial(_time_until_mark, _FIT, _fit_command(config))
    seconds = turns.take_turns(
        {_SEGLOOP: start_segloop, _FIT: start_fit}, rounds=arguments.rounds
    )
    return {
        "settings": vars(arguments),
        "image_size": config.data.image_size,
        "batch_size": config.train.batch_size,
        **machine,
        "secs_to_first_step": seconds,
        "segloop_over_fit": report.compare(seconds[_SEGLOOP], seconds[_FIT]),
    }


def _fit_command(config: config_lib.Config) -> list[str]:
    """Returns the arguments of Python for the same training by `model.fit`."""
    height, width = config.data.image_size
    if height != width:
        raise errors.ConfigError(
            f"--image_size={height},{width}: the script with `model.fit` takes square "
            f"pictures; use {height} or {width}."
        )
    return [
        "-m",
        "tests.benchmarks.fit_tutorial",
        f"--dataset={config.data.dataset}",
        f"--data_dir={config.data.data_dir}",
        f"--encoder_weights={config.model.encoder_weights}",
        f"--image_size={height}",
        f"--batch_size={config.train.batch_size}",
    ]


def _time_until_mark(name: str, arguments: Sequence[str]) -> float:
    """Runs Python to its end; returns the seconds until it printed its mark."""
    seconds = None
    lines = []
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=turns.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            if seconds is None and _MARKS[name] in line:
                seconds = time.perf_counter() - started
            lines.append(line)
    if seconds is None or process.returncode:
        raise turns.ProcessError(name, process.returncode, "".join(lines))
    return seconds


def _format(results: dict) -> str:
    """Returns the results as they are shown."""
    seconds = results["secs_to_first_step"]
    rows = []
    for name, values in seconds.items():
        summary = report.summarize(values)
        cells = [*summary.values(), *values]
        rows.append([name, *(f"{value:.2f}" for value in cells)])
    rounds = [f"round {number + 1}" for number in range(len(seconds[_SEGLOOP]))]
    height, width = results["image_size"]
    ratio = results["segloop_over_fit"]
    return "\n".join(
        [
            f"Seconds from process start to the end of the first step, "
            f"{results['settings']['dataset']}, {height}x{width} pixels, batches of "
            f"{results['batch_size']}.",
            report.format_machine(results),
            "",
            report.format_table(["", "best", "median", *rounds], rows),
            "",
            f"segloop is there {ratio['best']:.2f} times as fast as model.fit by best, "
            f"{ratio['median']:.2f} by median",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
