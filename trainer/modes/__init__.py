"""What `--mode` can be: one module each, with a function `run(config)`."""

from typing import NamedTuple


class Mode(NamedTuple):
    """A mode, by names alone: TensorFlow is slow to import.

    Attributes:
      module: what to import when the mode is asked for.
      uses_run: whether it uses a model that was trained before, and so takes the
        settings of the run in `--model_dir`.
    """

    module: str
    uses_run: bool = False


MODES = {
    "train": Mode("trainer.modes.train"),
    "evaluate": Mode("trainer.modes.evaluate", uses_run=True),
    "train_and_evaluate": Mode("trainer.modes.train"),
    "benchmark": Mode("trainer.modes.benchmark"),
    "doctor": Mode("trainer.modes.doctor"),
}
