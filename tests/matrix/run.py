"""Takes encoders with every decoder through all that a run does with a model.

    python -m tests.matrix.run --results=matrix.jsonl [--encoders=a,b] [--workers=2]

See `tests.matrix.round_trip` for what that is. Without `--encoders` it takes one of
each architecture. Encoders that can be had at an output stride of 16 come at that, too.
What is done is added to the file of results, a line of JSON for each pair, and not done
again the next time; what failed is. `--workers` processes share the pairs. Prints a
table. Exit code 1 if a pair has failed, else 0.
"""

import argparse
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import TypedDict

from models import registry
from tests import matrix

OK, REFUSED, FAILED = "ok", "refused", "failed"


class Result(TypedDict):
    """What became of a pair: a line in the file of results.

    Attributes:
      pair: encoder, decoder, and the bound on the strides or None.
      status: `OK`, `REFUSED` or `FAILED`.
      reason: of the latter two; else empty.
      seconds: that it took.
    """

    pair: tuple[str, str, int | None]
    status: str
    reason: str
    seconds: float


def list_pairs(encoders: Iterable[str]) -> list[tuple[str, str, int | None]]:
    """Lists all pairs: first each encoder with one decoder, then the rest in rows."""
    can_stride = registry.encoders_with("output_stride")
    rows = [(name, None) for name in encoders]
    rows += [(name, 16) for name, _ in rows if name in can_stride]
    decoders = list(registry.DECODERS)
    ranked = []
    for number, (encoder, output_stride) in enumerate(rows):
        for place, decoder in enumerate(decoders):
            is_first = place == number % len(decoders)
            ranked.append((not is_first, (encoder, decoder, output_stride)))
    return [pair for _, pair in sorted(ranked, key=lambda item: item[0])]


def read_results(path: pathlib.Path) -> dict[tuple, Result]:
    """Reads what is known of each pair; of several lines the last one counts."""
    return {tuple(result["pair"]): result for result in matrix.read_lines(path)}


def format_table(results: Mapping[tuple, Result]) -> str:
    """Makes a Markdown table, encoders by decoders, and a list of the reasons."""
    rows = list(dict.fromkeys((encoder, stride) for encoder, _, stride in results))
    lines = ["| encoder |" + "".join(f" `{name}` |" for name in registry.DECODERS)]
    lines.append("|---|" + "---|" * len(registry.DECODERS))
    for encoder, stride in rows:
        cells = [
            _format_cell(results.get((encoder, decoder, stride)))
            for decoder in registry.DECODERS
        ]
        lines.append(" | ".join([f"| {_name_row(encoder, stride)}", *cells]) + " |")
    for (encoder, decoder, stride), result in results.items():
        if result["status"] != OK:
            lines.append(
                f"\n{_name_row(encoder, stride)} with `{decoder}` {result['status']}: "
                f"{result['reason']}"
            )
    return "\n".join(lines)


def _name_row(encoder: str, stride: int | None) -> str:
    return f"`{encoder}`" + (f" to {stride}" if stride else "")


def _format_cell(result: Result | None) -> str:
    return f"{result['status']}, {result['seconds']:.0f} s" if result else "-"


def _try(pair: tuple[str, str, int | None]) -> Result:
    """Takes a pair through; whatever is raised is a result."""
    from tests.matrix import round_trip
    from trainer import errors

    started = time.monotonic()
    status, reason = OK, ""
    with tempfile.TemporaryDirectory(prefix="segloop-matrix-") as folder:
        try:
            with round_trip.cheaply():
                run = pathlib.Path(folder) / "run"
                round_trip.check(round_trip.Pair(*pair), run)
        except errors.ConfigError as error:
            status, reason = REFUSED, str(error)
        except Exception as error:
            traceback.print_exc()
            status = FAILED
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    seconds = round(time.monotonic() - started, 1)
    return Result(pair=pair, status=status, reason=reason, seconds=seconds)


def _prepare_worker(folder: str) -> None:
    """Makes a process ready for `_try`; what it patches stays so until the end."""
    import pytest
    import tensorflow as tf
    from absl import logging

    from tests import helpers, stand_ins

    # Ctrl+C comes to the workers as well; Python's exception would leave them waiting.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.WARNING)
    own_folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
    patch = pytest.MonkeyPatch()
    stand_ins.install_if_missing(own_folder, patch)
    helpers.remember_networks(patch)


def _try_all(pairs: Iterable[tuple], path: pathlib.Path, num_workers: int) -> None:
    """Takes pairs through, and adds what becomes of each to the file of results."""
    with tempfile.TemporaryDirectory(prefix="segloop-matrix-") as folder:
        pool = futures.ProcessPoolExecutor(
            num_workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_worker,
            initargs=(folder,),
        )
        for result in matrix.do_all(pool, _try, pairs, path):
            words = (*result["pair"], result["status"], result["seconds"])
            print(*words, "s", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="matrix.jsonl", type=pathlib.Path)
    parser.add_argument("--encoders", default=",".join(matrix.FAMILIES))
    parser.add_argument("--workers", default=1, type=int)
    options = parser.parse_args(arguments)
    path = options.results
    results = read_results(path)
    done = {pair for pair, result in results.items() if result["status"] != FAILED}
    wanted = list_pairs(options.encoders.split(","))
    if pairs := [pair for pair in wanted if pair not in done]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        _try_all(pairs, path, options.workers)
    results = read_results(path)
    print(format_table(results))
    return 1 if any(r["status"] == FAILED for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
