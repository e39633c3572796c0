"""The settings of a run, joined: frozen, nested, validated data.

Each field of a section is one flag of the same name (`trainer.flags` makes them), its
metadata the flag's help. A `Config` that exists is a valid one: contradictions are
found when it is made, and the message names the flag, the value and the remedy.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from trainer import errors
from trainer.settings import fields
from trainer.settings import optimizer as optimizer_settings
from trainer.settings.augmentation import AugmentationConfig
from trainer.settings.benchmark import BenchmarkConfig
from trainer.settings.data import DataConfig
from trainer.settings.doctor import DoctorConfig
from trainer.settings.evaluation import EvaluationConfig
from trainer.settings.export import ExportConfig
from trainer.settings.loss import LossConfig
from trainer.settings.model import ModelConfig
from trainer.settings.monitoring import MonitoringConfig
from trainer.settings.optimizer import OptimizerConfig
from trainer.settings.predict import PredictConfig
from trainer.settings.run import RunConfig
from trainer.settings.runtime import RuntimeConfig
from trainer.settings.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run.

    Raises:
      errors.ConfigError: from the constructor, of a section too, for a value or a
        combination that cannot work.
    """

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    monitoring: MonitoringConfig = MonitoringConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    predict: PredictConfig = PredictConfig()
    doctor: DoctorConfig = DoctorConfig()

    def __post_init__(self) -> None:
        if not self.run.model_dir and not self.run.model:
            raise errors.ConfigError(
                "--model_dir is empty; name the folder that shall hold the run's "
                "checkpoints and logs, e.g. --model_dir=runs/first."
            )
        values, settings = self.as_dict(), fields_by_name()
        for name, field in settings.items():
            if values[name] == field.default or fields.is_off(values[name]):
                continue
            if condition := fields.unmet_condition(name, settings, values):
                fields.reject(name, values[name], condition)
        self._resolve_learning_rate()
        self._check_devices()
        self._check_windows()
        self._check_budget()
        self._check_comparison()

    def _resolve_learning_rate(self) -> None:
        """Fills in the default, which depends on two sections."""
        if self.optimizer.learning_rate is None:
            rate = optimizer_settings.default_learning_rate(
                self.optimizer.optimizer, self.train.batch_size
            )
            resolved = dataclasses.replace(self.optimizer, learning_rate=rate)
            object.__setattr__(self, "optimizer", resolved)

    def _check_devices(self) -> None:
        strategy, num_gpus = self.runtime.distribution_strategy, self.runtime.num_gpus
        if strategy == "one_device" and num_gpus > 1:
            fields.reject(
                "num_gpus",
                num_gpus,
                "--distribution_strategy=one_device uses one; use mirrored",
            )
        if strategy == "one_device" and self.runtime.virtual_devices > 1:
            fields.reject(
                "virtual_devices",
                self.runtime.virtual_devices,
                "--distribution_strategy=one_device uses one; use mirrored",
            )
        if strategy == "multi_worker_mirrored" and num_gpus > 0:
            fields.reject(
                "num_gpus",
                num_gpus,
                "--distribution_strategy=multi_worker_mirrored uses all GPUs that a "
                "worker sees; set CUDA_VISIBLE_DEVICES for each worker instead",
            )

    @property
    def training_size(self) -> tuple[int, ...]:
        """Height and width of what the model is trained on."""
        return self.augmentation.crop_size or self.data.image_size

    def _check_windows(self) -> None:
        whole, window = self.data.image_size, self.training_size
        if any(new > old for new, old in zip(window, whole, strict=True)):
            fields.reject(
                "crop_size",
                window,
                f"a window lies within --image_size={fields.format_value(whole)}; use "
                "a smaller one, or a larger --image_size",
            )

    def _check_budget(self) -> None:
        if self.train.time_budget and self.model.unfreeze_encoder_at is not None:
            fields.reject(
                "time_budget",
                self.train.time_budget,
                "a run measures its first steps, and those after "
                f"--unfreeze_encoder_at={self.model.unfreeze_encoder_at} take longer; "
                "give --train_epochs or --train_steps instead",
            )

    def _check_comparison(self) -> None:
        if self.benchmark.against != "fit":
            return
        values = self.as_dict()
        for _, field in setting_fields():
            allowed, value = field.metadata["in_fit"], values[field.name]
            if allowed is not None and value not in allowed:
                fields.reject(
                    field.name,
                    value,
                    "--against=fit times the tutorial's U-Net under Keras' own loop, "
                    "which is not made for that; leave one of the two out",
                )

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings by flag name."""
        return {
            field.name: getattr(getattr(self, section.name), field.name)
            for section, field in setting_fields()
        }

    def given(self) -> dict[str, Any]:
        """Returns the settings, by name, that would be others if they were left out."""
        values = self.as_dict()
        defaults = from_dict({"model_dir": self.run.model_dir}).as_dict()
        plain = {
            name: values[name]
            for name, field in fields_by_name().items()
            if field.default is not None and values[name] != defaults[name]
        }
        plain["model_dir"] = self.run.model_dir
        derived = from_dict(plain).as_dict()
        others = {n: v for n, v in values.items() if v not in (None, derived[n])}
        return plain | others

    def saved(self) -> dict[str, Any]:
        """Returns the settings that describe the run, as JSON gives them back.

        What belongs to one command, as `mode` does, is left out, and so is what has no
        meaning beside the others.
        """
        values, settings = self.as_dict(), fields_by_name()
        return {
            name: _as_json(values[name])
            for name, field in settings.items()
            if field.metadata["is_saved"]
            and not fields.unmet_condition(name, settings, values)
        }

    def identity(self) -> dict[str, Any]:
        """Returns the settings that a model dir cannot change once it has checkpoints.

        They fix the order of the examples, the variables and their meaning; the others
        (length of the run, learning rate, devices, precision, logging) may change from
        one start to the next.
        """
        values = self.as_dict()
        return {
            field.name: _as_json(values[field.name])
            for _, field in setting_fields()
            if field.metadata["identity"]
        }

    def to_flagfile(self) -> str:
        """Returns `saved` as the lines of a flagfile; None is left out."""
        values = self.as_dict()
        return "".join(
            f"--{name}={fields.format_value(values[name])}\n"
            for name, value in self.saved().items()
            if value is not None
        )


def setting_fields() -> Iterator[tuple[dataclasses.Field, dataclasses.Field]]:
    """Yields (section, setting) for each setting, in the order of the sections."""
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.type):
            yield section, field


def fields_by_name() -> dict[str, dataclasses.Field]:
    """Returns all settings by name."""
    return {field.name: field for _, field in setting_fields()}


def legacy_values() -> dict[str, Any]:
    """Returns what a run had of each setting before that existed, as JSON does it."""
    return {
        field.name: _as_json(field.metadata["legacy"]) for _, field in setting_fields()
    }


def from_dict(values: Mapping[str, Any]) -> Config:
    """Makes a `Config` of settings by flag name; missing ones keep their default.

    Raises:
      errors.ConfigError: if a value or a combination cannot work.
      KeyError: if a name is not that of a setting.
    """
    values = dict(values)
    sections = {}
    for section in dataclasses.fields(Config):
        names = {field.name for field in dataclasses.fields(section.type)}
        given = {name: values.pop(name) for name in names & values.keys()}
        sections[section.name] = section.type(**given)
    if values:
        raise KeyError(f"not settings: {', '.join(sorted(values))}")
    return Config(**sections)


def without_training(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings, by flag name, without those of training examples alone.

    They say nothing of how a trained model is used, and may not fit that: windows of
    `--crop_size` can be larger than the images that it is now to be shown.
    """
    dropped = {field.name for field in dataclasses.fields(AugmentationConfig)}
    return {name: value for name, value in values.items() if name not in dropped}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
