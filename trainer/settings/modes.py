"""The names of the modes; each is a module with a function `run(config)`."""

from typing import NamedTuple


class Mode(NamedTuple):
    """A mode, by names alone: TensorFlow is slow to import.

    Attributes:
      module: what to import when the mode is asked for.
      uses_run: whether it uses a model that was trained before, and so takes the
        settings of the run in `--model_dir`.
      may_use_run: whether it does so where there is one, and works without, too.
      resumes_run: whether it goes on with the run in `--model_dir`, if there is one.
      uses_less_than: another mode; what that has no use for, this one has none for.
      only_uses: the settings that alone have a meaning for it; None: those that do not
        say otherwise.
    """

    module: str
    uses_run: bool = False
    may_use_run: bool = False
    resumes_run: bool = False
    uses_less_than: str = ""
    only_uses: frozenset[str] | None = None


MODES = {
    "train": Mode("trainer.modes.train", resumes_run=True),
    "evaluate": Mode("trainer.modes.evaluate", uses_run=True),
    "predict": Mode("trainer.modes.predict", uses_run=True, uses_less_than="evaluate"),
    "export": Mode("trainer.modes.export", uses_run=True, uses_less_than="evaluate"),
    "train_and_evaluate": Mode("trainer.modes.train", resumes_run=True),
    "benchmark": Mode("trainer.modes.benchmark"),
    "doctor": Mode("trainer.modes.doctor", may_use_run=True),
    "plan": Mode("trainer.modes.plan"),
    "report": Mode(
        "trainer.modes.report",
        only_uses=frozenset({"mode", "model_dir", "log_level", "stall_timeout"}),
    ),
}
