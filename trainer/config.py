"""The settings of a run: frozen, nested, validated data.

Each field of a section is one flag of the same name (`trainer.flags` makes them), its
metadata the flag's help. A `Config` that exists is a valid one: contradictions are
found when it is made, and the message names the flag, the value and the remedy.
"""

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from data import schema
from trainer import errors

DEFAULT_TRAIN_EPOCHS = 20
ENCODER_STRIDE = 32
"""The deepest features have 1/32 of the input's height and width."""


_AS_DEFAULT = object()


def _setting(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    identity: bool = False,
    legacy: Any = _AS_DEFAULT,
) -> Any:
    """Makes a dataclass field with what a flag and a check need to know.

    Args:
      default: the value where the flag is not given; None means "derived".
      help_text: one line for `--help`.
      choices: the values allowed.
      minimum: the least number allowed.
      maximum: the greatest number allowed.
      identity: a model dir belongs to one value of this; see `Config.identity`.
      legacy: what a run had that was started before there was this setting, if that is
        another value than the default.
    """
    metadata = {
        "help": help_text,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "identity": identity,
        "legacy": default if legacy is _AS_DEFAULT else legacy,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class _Section:
    """A group of settings, each checked by itself against its metadata."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            choices = field.metadata["choices"]
            if choices and value not in choices:
                _reject(field.name, value, f"use one of {', '.join(choices)}")
            values = value if isinstance(value, tuple) else (value,)
            for item in values:
                if isinstance(item, float) and not math.isfinite(item):
                    _reject(field.name, value, "must be finite")
                minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
                if minimum is not None and not item >= minimum:
                    _reject(field.name, value, f"must be at least {minimum}")
                if maximum is not None and not item <= maximum:
                    _reject(field.name, value, f"must be at most {maximum}")


def _reject(name: str, value: Any, rule: str) -> typing.NoReturn:
    raise errors.ConfigError(f"--{name}={format_value(value)}: {rule}.")


@dataclasses.dataclass(frozen=True)
class RunConfig(_Section):
    """What to do, where to keep it, and how repeatable it must be."""

    mode: str = _setting(
        "train_and_evaluate",
        "What to do; doctor looks through the data set, trains nothing, and tells what "
        "is wrong and what mends it.",
        choices=("train", "evaluate", "train_and_evaluate", "benchmark", "doctor"),
    )
    model_dir: str = _setting(
        "", "Folder of the run: settings, checkpoints, TensorBoard data, pictures."
    )
    checkpoint: str = _setting(
        "last", "What --mode=evaluate restores: last, best, or a checkpoint's folder."
    )
    seed: int = _setting(
        0,
        "Seed of initial weights, data order, augmentation and dropout.",
        minimum=0,
        maximum=2**31 - 1,
        identity=True,
    )
    deterministic: bool = _setting(
        False,
        "Use only deterministic kernels, so that two runs agree bit for bit (slower "
        "on GPUs). The data order is exact with and without it.",
    )


@dataclasses.dataclass(frozen=True)
class DataConfig(_Section):
    """Which examples, and how they become uint8 arrays."""

    dataset: str = _setting(
        "synthetic",
        "synthetic; folder: the images and masks in --data_dir; or "
        "tfds:NAME[/CONFIG][:VERSION], e.g. tfds:oxford_iiit_pet.",
        identity=True,
    )
    data_dir: str = _setting(
        "",
        "Folder of your images and masks, or that holds the TFDS data sets; empty: "
        "TFDS's own default.",
    )
    # What the next five say is part of the fingerprint of the examples, and with it
    # of the run's identity; the paths themselves may change.
    images: str = _setting(
        "",
        "Pattern of the images of --dataset=folder, e.g. 'photos/**/*.jpg', from "
        "--data_dir on; {split} stands for the split. Empty: a known layout.",
    )
    masks: str = _setting(
        "", "Pattern of the masks; what its wildcards stand for pairs the two."
    )
    label_colors: str = _setting(
        "",
        "Classes of coloured masks: a CSV file (name,r,g,b) or a JSON file, or voc, "
        "cityscapes, camvid.",
    )
    label_map: str = _setting(
        "",
        "CSV or JSON file that merges and drops classes: old mask value or class "
        "name, new class name or ignore.",
    )
    train_fraction: float | None = _setting(
        None,
        "Share of a folder without splits to train on, by a hash of each file's stem "
        "and --seed; the rest is for evaluation.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
    )
    train_split: str = _setting("", "Split to train on; empty: train.", identity=True)
    eval_split: str = _setting(
        "",
        "Split to evaluate on; all: every example; empty: the data set's validation or "
        "test split.",
    )
    image_key: str = _setting("image", "TFDS feature that holds the image.")
    label_key: str = _setting("segmentation_mask", "TFDS feature that holds the mask.")
    image_size: tuple[int, ...] = _setting(
        (128,),
        "Height[,width] that images are resized to; multiples of 32.",
        minimum=ENCODER_STRIDE,
        identity=True,
    )
    resize: str = _setting(
        "stretch",
        "How images come to --image_size: stretch each side by itself; pad: keep the "
        "aspect ratio, and ignore what is left over; crop: keep it, and cut the middle "
        "out.",
        choices=("stretch", "pad", "crop"),
        identity=True,
    )
    eval_native_size: bool = _setting(
        False,
        "Score each evaluation example at the size that its mask has on disk, the "
        "logits interpolated, rather than at --image_size.",
    )
    num_classes: int | None = _setting(
        None,
        "Number of classes, the ignored label not counted; default: the data set's.",
        minimum=2,
        maximum=schema.MAX_CLASSES,
        identity=True,
    )
    class_names: tuple[str, ...] | None = _setting(
        None,
        "Comma-separated name of each class, or a file with one name a line; default: "
        "the data set's, else class_0, class_1, ...",
        identity=True,
    )
    label_offset: int | None = _setting(
        None,
        "Number added to each mask value to get the class index, e.g. -1 for masks "
        "that count from 1; default: the data set's.",
        minimum=-255,
        maximum=255,
        identity=True,
    )
    ignore_label: int = _setting(
        schema.IGNORE_LABEL,
        "Value in the masks, as they are on disk, of pixels to leave out of loss and "
        "scores.",
        minimum=0,
        maximum=65535,
        identity=True,
    )
    horizontal_flip: bool = _setting(
        True, "Mirror each training example with probability 1/2.", identity=True
    )
    random_scale: tuple[float, ...] = _setting(
        (),
        "LOW,HIGH: scale each training example by a factor drawn between them, e.g. "
        "0.5,2.0, and cut a window of the original size at random; empty: none.",
        minimum=0.1,
        maximum=10.0,
        identity=True,
    )
    random_brightness: float = _setting(
        0.0,
        "Multiply each training image by a factor drawn within 1 -/+ this; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
    )
    random_contrast: float = _setting(
        0.0,
        "Multiply each training image's distances from its mean luma by a factor drawn "
        "within 1 -/+ this; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
    )
    random_saturation: float = _setting(
        0.0,
        "Multiply each pixel's distance from its luma by a factor drawn, for each "
        "training image, within 1 -/+ this; 0: none.",
        minimum=0.0,
        maximum=1.0,
        identity=True,
    )
    on_bad_example: str = _setting(
        "stop",
        "What becomes of an example whose files cannot be used: stop the run and name "
        "them, or replace it by one with all pixels ignored, with a warning.",
        choices=("stop", "replace"),
    )
    max_bad_examples: int = _setting(
        10,
        "How many examples of a split --on_bad_example=replace may replace.",
        minimum=0,
    )
    cache: str = _setting(
        "memory",
        "Where decoded examples are kept: in memory (decoded at each start), on disk "
        "(memory-mapped, decoded once), on each device (decoded at each start; the "
        "host sends ids alone), or none: files are read for each batch.",
        choices=("memory", "disk", "device", "none"),
    )
    cache_dir: str = _setting(
        "", "Folder of the disk cache; empty: $XDG_CACHE_HOME/segloop."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, _, name = self.dataset.partition(":")
        if self.dataset not in ("synthetic", "folder") and not (
            kind == "tfds" and name
        ):
            _reject("dataset", self.dataset, "use synthetic, folder or tfds:NAME")
        self._check_folder()
        self._check_label_colors()
        if len(self.image_size) not in (1, 2):
            _reject("image_size", self.image_size, "give HEIGHT or HEIGHT,WIDTH")
        if len(self.image_size) == 1:
            object.__setattr__(self, "image_size", self.image_size * 2)
        for side in self.image_size:
            if side % ENCODER_STRIDE:
                low = side - side % ENCODER_STRIDE
                _reject(
                    "image_size",
                    self.image_size,
                    f"the encoder halves the image five times, so each side must be "
                    f"a multiple of {ENCODER_STRIDE}; use {low} or "
                    f"{low + ENCODER_STRIDE} for {side}",
                )
        if self.random_scale and not (
            len(self.random_scale) == 2 and self.random_scale[0] <= self.random_scale[1]
        ):
            _reject(
                "random_scale",
                self.random_scale,
                "give LOW,HIGH with LOW not above HIGH, e.g. 0.5,2.0, or nothing",
            )
        if self.eval_native_size and self.resize == "crop":
            _reject(
                "eval_native_size",
                self.eval_native_size,
                "--resize=crop cuts off what would be scored; use pad or stretch",
            )
        if self.class_names is not None:
            self._check_class_names(self.class_names)

    def _check_folder(self) -> None:
        names = ("images", "masks", "train_fraction")
        if self.dataset != "folder":
            for name in names:
                if getattr(self, name) not in ("", None):
                    _reject(name, getattr(self, name), "needs --dataset=folder")
            return
        if bool(self.images) != bool(self.masks):
            _reject("images", self.images, "give --images and --masks, or neither")
        if ("{split}" in self.images) != ("{split}" in self.masks):
            _reject("images", self.images, "--masks must have {split} if this has")
        if not self.data_dir and not (
            os.path.isabs(self.images) and os.path.isabs(self.masks)
        ):
            _reject("dataset", self.dataset, "name the folder with --data_dir")
        if self.train_fraction in (0.0, 1.0):
            _reject(
                "train_fraction",
                self.train_fraction,
                "must leave something for both sides, e.g. 0.8",
            )

    def _check_label_colors(self) -> None:
        if not self.label_colors:
            return
        if self.dataset == "synthetic":
            _reject(
                "label_colors", self.label_colors, "synthetic has no coloured masks"
            )
        for name, default in (
            ("label_offset", None),
            ("ignore_label", schema.IGNORE_LABEL),
        ):
            if getattr(self, name) != default:
                _reject(
                    name,
                    getattr(self, name),
                    "--label_colors numbers the classes itself; name a colour `ignore` "
                    "there to leave it out",
                )

    def _check_class_names(self, names: tuple[str, ...]) -> None:
        if len(names) == 1 and os.path.isfile(names[0]):
            return  # Names to be read where the data set is.
        if len(set(names)) != len(names) or not all(names):
            _reject("class_names", names, "give each class a name of its own")
        if not 2 <= len(names) <= schema.MAX_CLASSES:
            _reject("class_names", names, f"name 2 to {schema.MAX_CLASSES} classes")
        if self.num_classes is not None and len(names) != self.num_classes:
            _reject(
                "class_names",
                names,
                f"these are {len(names)} names, but --num_classes={self.num_classes}; "
                "make the two agree or leave --num_classes out",
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Section):
    """The U-Net."""

    encoder: str = _setting(
        "mobilenet_v2", "The encoder.", choices=("mobilenet_v2",), identity=True
    )
    encoder_alpha: float = _setting(
        1.0,
        "Width multiplier of MobileNetV2; ImageNet weights exist for 0.35, 0.5, 0.75, "
        "1.0, 1.3 and 1.4.",
        minimum=0.1,
        maximum=4.0,
        identity=True,
    )
    encoder_weights: str = _setting(
        "imagenet",
        "Initial weights of the encoder: imagenet (downloaded by Keras), none "
        "(random), or a file: .weights.h5, or .h5 as Keras downloads it.",
    )
    freeze_encoder: bool = _setting(
        True,
        "Keep the encoder as it is: no gradient, batch norm in inference mode.",
        identity=True,
    )
    encoder_bn_momentum: float | None = _setting(
        None,
        "Momentum of the encoder's moving batch-norm statistics; default: the "
        "encoder's own (0.999 for MobileNetV2, too slow for short runs from scratch).",
        minimum=0.0,
        maximum=1.0,
        identity=True,
    )
    decoder: str = _setting(
        "pix2pix",
        "pix2pix: this package's upsampling block; tensorflow_examples: the original "
        "block, if that package is installed.",
        choices=("pix2pix", "tensorflow_examples"),
        identity=True,
    )
    decoder_filters: tuple[int, ...] = _setting(
        (512, 256, 128, 64),
        "Channels of the four upsampling blocks, deepest first.",
        minimum=1,
        identity=True,
    )

    decoder_dropout: float = _setting(
        0.0,
        "Share of each upsampling block's features that a training step drops.",
        minimum=0.0,
        maximum=0.95,
        identity=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_dropout and self.decoder == "tensorflow_examples":
            _reject(
                "decoder_dropout",
                self.decoder_dropout,
                "the block of tensorflow_examples has none here; use --decoder=pix2pix",
            )
        if len(self.decoder_filters) != 4:
            _reject(
                "decoder_filters",
                self.decoder_filters,
                "give 4 numbers, one for each upsampling block",
            )
        if self.freeze_encoder and self.encoder_weights == "none":
            raise errors.ConfigError(
                "--freeze_encoder with --encoder_weights=none would keep a random "
                "encoder for good; use --nofreeze_encoder, or weights."
            )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(_Section):
    """How weights are updated."""

    optimizer: str = _setting(
        "adam",
        "The optimizer.",
        choices=("adam", "adamw", "sgd"),
        identity=True,
    )
    learning_rate: float = _setting(
        1e-3, "Peak learning rate, reached after the warm-up.", minimum=0.0
    )
    lr_schedule: str = _setting(
        "constant",
        "Course of the learning rate after the warm-up; cosine and polynomial end at "
        "0.",
        choices=("constant", "cosine", "polynomial"),
    )
    polynomial_power: float = _setting(
        0.9, "Exponent of --lr_schedule=polynomial.", minimum=0.0
    )
    warmup_steps: int = _setting(
        0, "Steps over which the learning rate rises linearly from 0.", minimum=0
    )
    momentum: float = _setting(
        0.9, "Momentum of --optimizer=sgd.", minimum=0.0, maximum=1.0
    )
    weight_decay: float = _setting(
        0.0, "Decoupled weight decay of adamw and sgd.", minimum=0.0
    )
    global_clipnorm: float = _setting(
        0.0, "Bound on the norm of all gradients together; 0: none.", minimum=0.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "adam" and self.weight_decay:
            _reject(
                "weight_decay",
                self.weight_decay,
                "adam has none; use --optimizer=adamw",
            )


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Section):
    """How long to train, and what happens how often."""

    batch_size: int = _setting(
        64, "Examples in a step, over all replicas.", minimum=1, identity=True
    )
    train_epochs: int | None = _setting(
        None,
        f"Passes over the training split; default: {DEFAULT_TRAIN_EPOCHS}, unless "
        "--train_steps is given.",
        minimum=0,
    )
    train_steps: int | None = _setting(
        None, "Steps to train, in place of --train_epochs.", minimum=0
    )
    steps_per_loop: int = _setting(
        20, "Most steps that run on the device for one call from Python.", minimum=1
    )
    epochs_between_evals: int = _setting(
        1, "Epochs from one evaluation, with a save, to the next.", minimum=1
    )
    log_steps: int = _setting(
        20, "Steps from one log line and TensorBoard point to the next.", minimum=1
    )
    checkpoint_interval: int = _setting(
        0,
        "Steps from one save to the next, besides those at each evaluation; 0: none.",
        minimum=0,
    )
    max_to_keep: int = _setting(
        3, "Newest checkpoints to keep, besides the best one.", minimum=1
    )
    ema_decay: float = _setting(
        0.0,
        "Decay of the moving averages of the weights, which are then what is "
        "evaluated, e.g. 0.999; 0: none.",
        minimum=0.0,
        maximum=0.999999,
        identity=True,
    )
    class_weights: tuple[str, ...] = _setting(
        (),
        "Weights of the classes in the training loss: balanced (inverse of their "
        "pixels in the training split), inverse_sqrt (of the square root of these), or "
        "one number for each class; empty: all the same.",
    )
    summary_images: int = _setting(
        4, "Evaluation examples shown as pictures in TensorBoard.", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_epochs and self.train_steps:
            raise errors.ConfigError(
                f"--train_epochs={self.train_epochs} and "
                f"--train_steps={self.train_steps} both say how long to train; set one "
                "of them to 0."
            )
        if not self.train_epochs and not self.train_steps:
            if self.train_epochs is not None or self.train_steps is not None:
                raise errors.ConfigError(
                    "--train_epochs and --train_steps leave nothing to train; give "
                    "one of them, at least 1."
                )
            object.__setattr__(self, "train_epochs", DEFAULT_TRAIN_EPOCHS)
        self._check_class_weights()

    def _check_class_weights(self) -> None:
        if self.class_weights in ((), ("balanced",), ("inverse_sqrt",)):
            return
        try:
            numbers = [float(item) for item in self.class_weights]
        except ValueError:
            numbers = []
        is_usable = all(math.isfinite(n) and n >= 0 for n in numbers) and any(numbers)
        if not is_usable:
            _reject(
                "class_weights",
                self.class_weights,
                "use balanced, inverse_sqrt, or numbers from 0 on that are not all 0",
            )


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(_Section):
    """On which devices, and in which number format."""

    distribution_strategy: str = _setting(
        "mirrored",
        "mirrored: all GPUs of this host (the CPU if there are none); one_device; "
        "multi_worker_mirrored: all hosts in TF_CONFIG.",
        choices=("mirrored", "one_device", "multi_worker_mirrored"),
    )
    num_gpus: int = _setting(
        -1, "GPUs to use on this host; -1: all, 0: the CPU.", minimum=-1
    )
    virtual_devices: int = _setting(
        0,
        "Split the CPU, or the one GPU, into this many logical devices, to try "
        "distribution on one machine; 0: leave it whole.",
        minimum=0,
    )
    mixed_precision: str = _setting(
        "auto",
        "Number format of activations and gradients; weights, logits and loss stay "
        "float32. auto: bfloat16 or float16, whichever the GPUs compute fast, and "
        "float32 on CPUs.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    startup_timeout: int = _setting(
        300, "Seconds to wait for the other workers at the start.", minimum=1
    )
    stall_timeout: int = _setting(
        1800,
        "Seconds without a step, a save or a batch of evaluation after which the run "
        "ends with the stacks of its threads; 0: never.",
        minimum=0,
    )
    enable_xla: bool = _setting(
        False, "Compile forward and backward pass with XLA; one replica only."
    )


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(_Section):
    """What `--mode=benchmark` measures."""

    against: str = _setting(
        "none",
        "What --mode=benchmark compares with: fit is Keras' model.fit with the same "
        "model and data.",
        choices=("none", "fit"),
    )
    benchmark_rounds: int = _setting(
        5, "Turns that each measurement of --mode=benchmark has.", minimum=1
    )
    benchmark_secs: float = _setting(
        3.0, "Seconds of a turn, about; at least one step.", minimum=0.01
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run.

    Raises:
      errors.ConfigError: from the constructor, of a section too, for a value or a
        combination that cannot work.
    """

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()

    def __post_init__(self) -> None:
        if not self.run.model_dir:
            raise errors.ConfigError(
                "--model_dir is empty; name the folder that shall hold the run's "
                "checkpoints and logs, e.g. --model_dir=runs/first."
            )
        if (
            self.runtime.distribution_strategy == "one_device"
            and self.runtime.num_gpus > 1
        ):
            _reject(
                "num_gpus",
                self.runtime.num_gpus,
                "--distribution_strategy=one_device uses one; use mirrored",
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings by flag name."""
        return {
            field.name: getattr(getattr(self, section.name), field.name)
            for section, field in setting_fields()
        }

    def identity(self) -> dict[str, Any]:
        """Returns the settings that a model dir cannot change once it has checkpoints.

        They fix the order of the examples, the variables and their meaning; the others
        (length of the run, learning rate, devices, precision, logging) may change from
        one start to the next.
        """
        values = json.loads(self.to_json())
        return {
            field.name: values[field.name]
            for _, field in setting_fields()
            if field.metadata["identity"]
        }

    def to_json(self) -> str:
        """Returns the settings as a JSON object, one flag a line."""
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def to_flagfile(self) -> str:
        """Returns the settings as the lines of a flagfile; None is left out."""
        return "".join(
            f"--{name}={format_value(value)}\n"
            for name, value in self.as_dict().items()
            if value is not None
        )


def setting_fields() -> Iterator[tuple[dataclasses.Field, dataclasses.Field]]:
    """Yields (section, setting) for each setting, in the order of the sections."""
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.type):
            yield section, field


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


def format_value(value: Any) -> str:
    """Formats a setting as a user would type it after `--name=`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value)


def value_type(field: dataclasses.Field) -> tuple[type, bool]:
    """Returns the scalar type of a setting, and whether it is a list of them."""
    annotation = field.type
    if isinstance(annotation, types.UnionType):
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True
    return annotation, False
