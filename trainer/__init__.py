"""Training, evaluation and everything that runs around the model."""

import time

STARTED = time.perf_counter()
"""When the program began, but for Python's own start; `--mode=benchmark` counts from
here."""
