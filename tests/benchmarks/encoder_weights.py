"""Writes random weights of MobileNetV2: a frozen encoder takes no others than a file.

    python -m tests.benchmarks.encoder_weights FILE.weights.h5

Speed does not depend on their values.
"""

import pathlib
import subprocess
import sys

from tests.benchmarks import turns


def write_in_process(path: pathlib.Path) -> None:
    """Writes the weights in a process of its own, so that this one stays small.

    Raises:
      turns.ProcessError: if that fails.
    """
    process = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.encoder_weights", str(path)],
        cwd=turns.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if process.returncode:
        raise turns.ProcessError("encoder_weights", process.returncode, process.stdout)


def main() -> None:
    """Writes the weights to the file that the command line names."""
    import keras

    keras.utils.set_random_seed(3)
    keras.applications.MobileNetV2(
        input_shape=(128, 128, 3), include_top=False, weights=None
    ).save_weights(sys.argv[1])


if __name__ == "__main__":
    main()
