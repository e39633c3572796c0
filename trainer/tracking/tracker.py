"""What a tracker is to the rest of the package."""

from collections.abc import Mapping
from typing import Literal, Protocol

Status = Literal["finished", "failed", "stopped"]
"""How a run has ended; one that was stopped is going to go on."""


class Tracker(Protocol):
    """A run in a tracker, open to be written; its module has `open_run`.

    `open_run(run_id, name, folder, settings)` makes it: `run_id` is that of the run to
    go on with, or None; `name` is for people; in `folder` it may write; `settings` are
    what JSON can hold, by name. Errors of any kind may come from all calls.

    Attributes:
      run_id: by which it can be opened again.
    """

    run_id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends one point of each curve, finite ones, by `SPLIT/TAG`."""

    def close(self, status: Status) -> None:
        """Says how the run has ended, after all points.

        Of one that another process goes on with, it is not called.
        """
