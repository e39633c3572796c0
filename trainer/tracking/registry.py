"""The experiment trackers that runs can be sent to, by names alone."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A tracker.

    Attributes:
      module: what to import when it is asked for; its function `open_run` gives a
        `Tracker`, see `trainer.tracking.tracker`.
      about: what `--help` says of it.
      package: what it needs, as it is imported.
    """

    module: str
    about: str
    package: str


TRACKERS = {
    "mlflow": Kind(
        "trainer.tracking.mlflow_tracker",
        "MLflow, at MLFLOW_TRACKING_URI",
        package="mlflow",
    ),
    "wandb": Kind(
        "trainer.tracking.wandb_tracker",
        "Weights & Biases, by its own variables, such as WANDB_MODE",
        package="wandb",
    ),
}


def describe() -> str:
    """Lists the trackers for `--help`."""
    return ", ".join(f"{name} ({kind.about})" for name, kind in TRACKERS.items())
