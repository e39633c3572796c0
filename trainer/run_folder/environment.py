"""On what a run was last started: RUN/environment.json, for people who compare runs."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from trainer import files

FILE = "environment.json"
_PACKAGES = ("segloop", "tensorflow", "keras", "numpy", "tensorflow-datasets")


def describe(devices: Sequence[str], policy: str) -> dict[str, Any]:
    """Describes this process's machine and packages.

    Args:
      devices: what the run computes on, in words.
      policy: Keras' name of the precision that it computes in.
    """
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": list(devices),
        "precision": policy,
        "python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }


def format_versions() -> str:
    """Returns the versions of the packages and of Python, a line each."""
    versions = {name: _version(name) or "not installed" for name in _PACKAGES}
    versions["python"] = platform.python_version()
    return "\n".join(f"{name} {version}" for name, version in versions.items())


def write(model_dir: str, environment: dict[str, Any]) -> None:
    """Writes the file of the folder of a run.

    Raises:
      errors.WriteError: if that fails.
    """
    text = json.dumps(environment, indent=2) + "\n"
    files.write_text(pathlib.Path(model_dir) / FILE, text)


def read_precision(model_dir: str) -> str | None:
    """Returns Keras' name of the precision of a run's last start.

    None if the folder does not tell it, as those of older versions.
    """
    try:
        described = json.loads(pathlib.Path(model_dir, FILE).read_text("utf-8"))
        return described.get("precision")
    except (OSError, ValueError, AttributeError):
        return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Returns the name of the CPU, as Linux has it, or its kind."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [
        line.partition(":")[2] for line in text.splitlines() if "model name" in line
    ]
    return names[0].strip() if names else platform.machine()
