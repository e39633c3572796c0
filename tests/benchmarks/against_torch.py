"""Times training by segloop and by PyTorch: the same U-Net, the same pictures, in turn.

    python -m tests.benchmarks.against_torch --batch_size=64 [-- FLAGS of trainer.main]

Each contender is a process of its own that trains while the others wait. segloop's
makes the objects of a training run and calls its loop, from the store of uint8 examples
to the update; PyTorch's is hand-written to be fast (`torch_worker`). Both count the
pixels by true and predicted class in each step; segloop also takes the norm of the
gradients and checks that it is finite. Models that differ in the number of parameters
are an error.

glibc's allocator is tuned for PyTorch: by default it returns the memory of large
activations to the system and gets it back page by page, up to twice in the time of a
step. `--torch_default_malloc` leaves that out. TensorFlow does not have the problem.
"""

import argparse
import contextlib
import functools
import importlib.util
import pathlib
import sys
import tempfile
from collections.abc import Mapping

from tests.benchmarks import encoder_weights, report, turns
from trainer import errors
from trainer import flags as flags_lib
from trainer.settings import config as config_lib

_WARMUP_ROUNDS = 2
_PRECISIONS = ("float32", "bfloat16")

_TUNED_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**35),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""Freed blocks stay with the process, however large."""


def main() -> int:
    """Runs the script; returns its exit code."""
    arguments = _parse_arguments()
    if importlib.util.find_spec("torch") is None:
        print(
            "PyTorch is not installed; run `pip install '.[benchmark]'`.",
            file=sys.stderr,
        )
        return errors.ConfigError.exit_code
    measure = functools.partial(_measure, arguments)
    return report.show(measure, _format, arguments.json)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6, help="measured, after 2 more")
    parser.add_argument("--steps", type=int, default=3, help="in each turn")
    parser.add_argument("--precisions", default=",".join(_PRECISIONS))
    parser.add_argument("--nofreeze_encoder", action="store_true")
    parser.add_argument("--torch_default_malloc", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="where to write the results")
    parser.add_argument("flags", nargs="*", help="of trainer.main, after --")
    arguments = parser.parse_args()
    arguments.precisions = arguments.precisions.split(",")
    for precision in arguments.precisions:
        if precision not in _PRECISIONS:
            parser.error(f"--precisions={precision}: use {' or '.join(_PRECISIONS)}")
    for name in ("rounds", "steps"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}={getattr(arguments, name)}: must be at least 1")
    return arguments


def _measure(arguments: argparse.Namespace) -> dict:
    """Starts the contenders, checks that they are alike, and lets them take turns."""
    machine = report.describe_machine()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="segloop-"))
        )
        flags = {p: _flags(arguments, folder, p) for p in arguments.precisions}
        configs = {p: _parse(flags[p]) for p in arguments.precisions}
        encoder_weights.write_in_process(folder / "encoder.weights.h5")
        environment = {} if arguments.torch_default_malloc else _TUNED_MALLOC
        contenders = []
        for precision, config in configs.items():
            ours = _start_segloop(precision, flags[precision], folder)
            contenders.append(stack.enter_context(ours))
            theirs = _start_torch(precision, config, folder, environment)
            contenders.append(stack.enter_context(theirs))
        descriptions = {c.name: c.describe() for c in contenders}
        _check_alike(descriptions)
        seconds = turns.take_turns(
            {c.name: functools.partial(c.run, arguments.steps) for c in contenders},
            rounds=arguments.rounds,
            warmup_rounds=_WARMUP_ROUNDS,
        )
    config = configs[arguments.precisions[0]]
    return {
        "settings": vars(arguments),
        "batch_size": config.train.batch_size,
        "image_size": config.data.image_size,
        "freeze_encoder": config.model.freeze_encoder,
        **machine,
        "contenders": {
            name: {**descriptions[name], "secs_per_step": times}
            for name, times in seconds.items()
        },
        "segloop_over_torch": {
            p: report.compare(seconds[f"segloop {p}"], seconds[f"torch {p}"])
            for p in arguments.precisions
        },
    }


def _flags(
    arguments: argparse.Namespace, folder: pathlib.Path, precision: str
) -> list[str]:
    """Returns the flags of segloop's run."""
    return [
        "--mode=train",
        "--dataset=synthetic",
        "--train_split=validation",
        "--nohorizontal_flip",
        f"--encoder_weights={folder / 'encoder.weights.h5'}",
        f"--freeze_encoder={not arguments.nofreeze_encoder}",
        f"--batch_size={arguments.batch_size}",
        *arguments.flags,
        f"--mixed_precision={precision}",
        f"--model_dir={folder / 'run'}",
    ]


def _parse(flags: list[str]) -> config_lib.Config:
    """Returns the settings of segloop's run, if PyTorch's worker can follow them."""
    config = flags_lib.read_config(flags).config
    height, width = config.data.image_size
    if height != width:
        raise errors.ConfigError(
            f"--image_size={height},{width}: the pictures of this comparison are "
            f"square; use {height} or {width}."
        )
    return config


def _start_segloop(
    precision: str, flags: list[str], folder: pathlib.Path
) -> turns.Contender:
    name = f"segloop {precision}"
    return turns.Contender(
        name, "tests.benchmarks.segloop_worker", flags, log=folder / f"{name}.log"
    )


def _start_torch(
    precision: str,
    config: config_lib.Config,
    folder: pathlib.Path,
    environment: Mapping[str, str],
) -> turns.Contender:
    name = f"torch {precision}"
    worker_arguments = [
        f"--batch_size={config.train.batch_size}",
        f"--image_size={config.data.image_size[0]}",
        f"--precision={precision}",
    ]
    if config.model.freeze_encoder:
        worker_arguments.append("--freeze_encoder")
    return turns.Contender(
        name,
        "tests.benchmarks.torch_worker",
        worker_arguments,
        log=folder / f"{name}.log",
        environment=environment,
    )


def _check_alike(descriptions: dict[str, dict]) -> None:
    """Raises if the models are not of the same size, or not on the same device."""
    for key in ("parameters", "trainable", "device"):
        values = {name: description[key] for name, description in descriptions.items()}
        if len(set(values.values())) > 1:
            found = ", ".join(f"{name} {value}" for name, value in values.items())
            raise errors.ConfigError(
                f"The contenders differ in {key}: {found}. Leave out flags that change "
                "the model, and let all see the same devices."
            )


def _format(results: dict) -> str:
    """Returns the results as they are shown."""
    asked = results["settings"]
    contenders = results["contenders"]
    any_worker, torch_worker = list(contenders.values())[:2]
    rows = []
    for name, worker in contenders.items():
        times = report.summarize(worker["secs_per_step"])
        rows.append(
            [
                name,
                *(f"{1000 * secs:.1f}" for secs in times.values()),
                *(f"{results['batch_size'] / secs:.1f}" for secs in times.values()),
            ]
        )
    header = ["", "ms/step: best", "median", "images/s: best", "median"]
    is_tuned = not asked["torch_default_malloc"]
    malloc = "malloc tuned for it" if is_tuned else "default malloc"
    height, width = results["image_size"]
    lines = [
        f"U-Net of {any_worker['parameters']:,} parameters, "
        f"{any_worker['trainable']:,} of them trained, encoder "
        f"{'frozen' if results['freeze_encoder'] else 'trained'}; {height}x{width} "
        f"pixels, batches of {results['batch_size']}.",
        f"{any_worker['device']}; {any_worker['framework']}; "
        f"{torch_worker['framework']}, {torch_worker['threads']} threads, "
        f"{malloc}.",
        f"Rounds in turn: {asked['rounds']}, of {asked['steps']} steps each, after "
        f"{_WARMUP_ROUNDS} to warm up. All count pixels by true and predicted class in "
        "each step.",
    ]
    lines.append(report.format_machine(results))
    if asked["flags"]:
        lines.append(f"Flags for segloop: {' '.join(asked['flags'])}")
    lines += ["", report.format_table(header, rows), ""]
    lines += [
        f"segloop/torch, {precision}: {ratio['best']:.2f} times as fast by best, "
        f"{ratio['median']:.2f} by median"
        for precision, ratio in results["segloop_over_torch"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
