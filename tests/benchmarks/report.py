"""Figures of repeated measurements, as a table and as JSON."""

import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks import turns
from trainer import errors

_QUIET_LOAD = 0.25
"""Tasks that run or wait for a core, for each core, which a measurement can bear."""


def summarize(seconds: Sequence[float]) -> dict[str, float]:
    """Returns the `best` and the `median` of some durations.

    Others that use the machine only ever add to a duration, so the best is the steadier
    of the two.
    """
    return {"best": min(seconds), "median": statistics.median(seconds)}


def compare(seconds: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Returns reference / seconds of the `best` and of the `median`.

    Above 1, `seconds` are the shorter ones.
    """
    own, other = summarize(seconds), summarize(reference)
    return {key: other[key] / own[key] for key in own}


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats rows of cells: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )


def describe_machine() -> dict[str, float]:
    """Returns the number of CPU cores, and how many of them were busy of late.

    Call it before the measurement, which keeps them busy itself.
    """
    return {
        "cpu_cores": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
    }


def format_machine(results: Mapping[str, Any]) -> str:
    """Says what the results of `describe_machine` mean for the others."""
    cores, load = results["cpu_cores"], results["load_average_before"]
    remark = ""
    if load > _QUIET_LOAD * cores:
        remark = (
            ": others use this machine, which slows some contenders down more than "
            "others; measure again when it is quiet"
        )
    return f"{cores} CPU cores, load average {load:.1f} at the start{remark}."


def show(
    measure: Callable[[], Mapping[str, Any]],
    format_results: Callable[[Mapping[str, Any]], str],
    path: str | None,
) -> int:
    """Measures, and shows the results or why there are none.

    Args:
      measure: returns the results.
      format_results: of them, for people.
      path: of a file to write them to, too.

    Returns:
      The exit code of the script.
    """
    try:
        results = measure()
    except (errors.ConfigError, turns.ProcessError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(format_results(results))
    if path:
        pathlib.Path(path).write_text(json.dumps(results, indent=2) + "\n")
    return 0
