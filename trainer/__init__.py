"""Training, evaluation and everything that runs around the model, of segloop.

`trainer.load_run(RUN).predict(images)` uses a trained model in a program of one's own.
"""

import time
from typing import Any

STARTED = time.perf_counter()
"""When the program began, but for Python's own start; `--mode=benchmark` counts from
here."""


def __getattr__(name: str) -> Any:
    """Gives `load_run`, which imports TensorFlow, once it is asked for."""
    if name == "load_run":
        from trainer import namesakes

        namesakes.claim()
        from trainer.assembly import restoring

        return restoring.load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
