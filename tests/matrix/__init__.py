"""Encoders with decoders, precisions and formats, through all that a run does."""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

FAMILIES = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnetv2_b0",
    "resnet50",
    "resnet50_v2",
    "convnext_tiny",
    "densenet121",
    "plain",
)
"""The smallest encoder of each architecture: others have more of the same layers."""


def read_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Reads a file of results, an object of JSON a line; one that is missing is empty.

    A line that a kill has cut off says nothing.
    """
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def do_all(
    pool: futures.Executor,
    do: Callable[[Any], Any],
    items: Iterable[Any],
    path: pathlib.Path,
) -> Iterator[Any]:
    """Does items side by side, and adds a line for each to a file of results at once.

    Args:
      pool: of workers; it is shut down at the end.
      do: makes an item's result, which JSON can hold.
      items: to do.
      path: of the file.

    Yields:
      The results, in the order in which they come.
    """
    try:
        for future in futures.as_completed([pool.submit(do, item) for item in items]):
            result = future.result()
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            yield result
    finally:
        # Who stops the script does not wait for hours of items.
        pool.shutdown(cancel_futures=True)
