"""Encoders with decoders, precisions and formats, through all that a run does."""

import json
import pathlib
from collections.abc import Iterator
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
