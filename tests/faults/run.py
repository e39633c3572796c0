"""Kills runs at random moments, starts them again, and compares how they end.

    python -m tests.faults.run --kills=50 --workers=2

For each of several settings one run is left alone; others of the same settings get
SIGKILL or SIGTERM at a random moment of every start, until they get through. All of
them must leave the same weights, optimizer slots, averages, seeds, scores and points,
bit for bit. Exit code 0 if they do, 1 if not. `--kills` are spread over the settings;
`--seed` repeats the moments as far as the machine allows.
"""

import argparse
import concurrent.futures
import itertools
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tests.faults import processes
from trainer import errors

_STEPS = (
    "--train_steps=48",
    "--train_epochs=0",
    "--checkpoint_interval=5",
    "--log_steps=4",
    "--max_to_keep=2",
    "--ema_decay=0.9",
    "--decoder_dropout=0.2",
    "--optimizer=adamw",
    "--train_split=validation",
    "--eval_split=validation",
    "--epochs_between_evals=3",
)
_SETTINGS = tuple(
    (
        f"--virtual_devices={replicas}",
        f"--mixed_precision={precision}",
        f"--steps_per_loop={steps_per_loop}",
        "--deterministic",
    )
    for (replicas, precision), steps_per_loop in zip(
        itertools.product((1, 2), ("float32", "bfloat16", "float16")),
        itertools.cycle((1, 7, 50)),
        strict=False,
    )
)


class _Tally:
    """Counts of what was done and found."""

    def __init__(self, kills: int):
        self.wanted = kills
        self.kills = self.terms = self.runs = 0
        self.differences: list[str] = []

    def __str__(self) -> str:
        return (
            f"{self.kills} SIGKILL, {self.terms} SIGTERM, {self.runs} runs compared, "
            f"{len(self.differences)} differences"
        )


def _run_alone(folder: pathlib.Path, name: str, flags: tuple[str, ...]):
    """Returns the fingerprint of an undisturbed run, and how long it took."""
    started = time.monotonic()
    model_dir = folder / name
    code = processes.finish(processes.start(folder, model_dir, *_STEPS, *flags))
    if code:
        raise RuntimeError(f"exit code {code}:\n{processes.read_log(model_dir)}")
    return processes.fingerprint(model_dir), time.monotonic() - started


def _run_disturbed(folder, name, flags, secs, tally, generator) -> None:
    """Kills a run at random moments until it gets through, and compares its end."""
    model_dir = folder / name
    while True:
        process = processes.start(folder, model_dir, *_STEPS, *flags)
        number = generator.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        try:
            process.wait(generator.uniform(0.3, 0.95) * secs)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            tally.kills += number == signal.SIGKILL
            tally.terms += number == signal.SIGTERM
        code = processes.finish(process)
        if code == 0:
            return
        if code not in (-number, errors.Stopped.exit_code):
            tally.differences.append(f"{name}: exit code {code}")
            print(processes.read_log(model_dir)[-3000:], file=sys.stderr)
            return


def _torment(folder, index, flags, tally, generator) -> None:
    expected, secs = _run_alone(folder, f"alone-{index}", flags)
    print(f"{' '.join(flags)}: {expected} in {secs:.0f} s alone", flush=True)
    while tally.kills + tally.terms < tally.wanted * (index + 1) / len(_SETTINGS):
        name = f"run-{index}-{tally.runs}-{generator.randrange(10**6)}"
        _run_disturbed(folder, name, flags, secs, tally, generator)
        tally.runs += 1
        actual = processes.fingerprint(folder / name)
        if actual != expected:
            tally.differences.append(f"{name}: {actual} instead of {expected}")
        shutil.rmtree(folder / name)
        print(f"  {tally}", flush=True)


def main() -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tally = _Tally(arguments.kills)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="segloop-faults-"))
    processes.write_encoder_weights(folder / "encoder.weights.h5")
    with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        jobs = [
            pool.submit(
                _torment,
                folder,
                index,
                flags,
                tally,
                random.Random(arguments.seed * 100 + index),
            )
            for index, flags in enumerate(_SETTINGS)
        ]
        for job in jobs:
            job.result()
    print(tally, *tally.differences, sep="\n")
    shutil.rmtree(folder)
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
