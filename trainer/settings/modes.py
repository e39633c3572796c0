"""The names of the modes; each is a module with a function `run(config)`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Mode(NamedTuple):
    """A mode, by names alone: TensorFlow is slow to import.

    Attributes:
      module: what to import when the mode is asked for.
      uses_run: whether it uses a model that was trained before, and so takes the
        settings of the run in `--model_dir`.
      may_use_run: whether it does so where there is one, and works without, too.
      resumes_run: whether it goes on with the run in `--model_dir`, if there is one.
      only_uses: the settings that alone have a meaning for it; None: those that do not
        say otherwise.
      uses_with: those of them that have it only beside another setting, by its name.
    """

    module: str
    uses_run: bool = False
    may_use_run: bool = False
    resumes_run: bool = False
    only_uses: frozenset[str] | None = None
    uses_with: Mapping[str, frozenset[str]] = MappingProxyType({})


_OF_EVERY_MODE = frozenset({"mode", "model_dir", "log_level", "stall_timeout"})
_OF_PREDICT = frozenset(
    {
        "checkpoint",
        "model",
        "image_size",
        "tta",
        "batch_size",
        "input",
        "output",
        "save",
        "tile_size",
        "tile_overlap",
        "mask_orientation",
        "max_megapixels",
        "overwrite",
        "deterministic",
        "distribution_strategy",
        "num_gpus",
        "virtual_devices",
        "mixed_precision",
    }
)
_TO_SCORE = frozenset(
    {
        "batch_size",
        "cache",
        "cache_dir",
        "eval_native_size",
        "max_bad_examples",
        "on_bad_example",
        "steps_per_loop",
    }
)
_OF_EXPORT = _TO_SCORE | frozenset(
    {
        "checkpoint",
        "export_format",
        "export_dir",
        "export_probabilities",
        "export_scores",
        "mixed_precision",
        # The data set, for photos and scores.
        "dataset",
        "data_dir",
        "images",
        "masks",
        "label_colors",
        "label_map",
        "train_fraction",
        "train_split",
        "eval_split",
        "image_key",
        "label_key",
        "num_classes",
        "class_names",
        "label_offset",
        "ignore_label",
        "seed",
    }
)

MODES = {
    "train": Mode("trainer.modes.train", resumes_run=True),
    "evaluate": Mode("trainer.modes.evaluate", uses_run=True),
    "predict": Mode(
        "trainer.modes.predict", uses_run=True, only_uses=_OF_EVERY_MODE | _OF_PREDICT
    ),
    "export": Mode(
        "trainer.modes.export",
        uses_run=True,
        only_uses=_OF_EVERY_MODE | _OF_EXPORT,
        uses_with=MappingProxyType({"export_scores": _TO_SCORE}),
    ),
    "train_and_evaluate": Mode("trainer.modes.train", resumes_run=True),
    "benchmark": Mode("trainer.modes.benchmark"),
    "doctor": Mode("trainer.modes.doctor", may_use_run=True),
    "plan": Mode("trainer.modes.plan"),
    "report": Mode("trainer.modes.report", only_uses=_OF_EVERY_MODE),
}
