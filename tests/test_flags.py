"""Flags are the settings, and starting the program for `--help` is cheap."""

import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from trainer import config, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]

_NAMES = frozenset({
    "against", "benchmark_rounds", "benchmark_secs",
    "mode", "model_dir", "checkpoint", "seed", "deterministic",
    "dataset", "data_dir", "train_split", "eval_split", "image_key", "label_key",
    "images", "masks", "label_colors", "label_map", "train_fraction",
    "image_size", "resize", "eval_native_size", "num_classes", "class_names",
    "label_offset", "ignore_label", "on_bad_example", "max_bad_examples",
    "horizontal_flip", "random_scale", "random_brightness", "random_contrast",
    "random_saturation", "cache", "cache_dir", "class_weights",
    "encoder", "encoder_alpha", "encoder_weights", "freeze_encoder",
    "encoder_bn_momentum", "decoder", "decoder_filters",
    "optimizer", "learning_rate", "lr_schedule", "polynomial_power", "warmup_steps",
    "momentum", "weight_decay", "global_clipnorm",
    "batch_size", "train_epochs", "train_steps", "steps_per_loop",
    "epochs_between_evals", "log_steps", "checkpoint_interval", "max_to_keep",
    "ema_decay", "moving_average_warmup", "decoder_dropout", "startup_timeout",
    "stall_timeout", "summary_images",
    "distribution_strategy", "num_gpus", "virtual_devices", "mixed_precision",
    "enable_xla",
})  # fmt: skip
"""All flags. Before you add one: who will use it, and could a default do instead?"""


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _parse(*arguments: str) -> absl_flags.FlagValues:
    flag_values = absl_flags.FlagValues()
    flags.define_flags(flag_values, "test")
    flag_values(["program", *arguments])
    return flag_values


def _defined() -> absl_flags.FlagValues:
    flag_values = absl_flags.FlagValues()
    flags.define_flags(flag_values, "test")
    return flag_values


def test_the_set_of_flags_is_known():
    own = {flag.name for flag in _defined().flags_by_module_dict()["test"]}
    assert own == _NAMES


def test_defaults_of_flags_are_those_of_the_config():
    parsed = flags.config_from_flags(_parse("--model_dir=a"))
    assert parsed == config.Config(run=config.RunConfig(model_dir="a"))


def test_every_flag_has_a_help_text():
    flag_values = _defined()
    assert [name for name in _NAMES if not flag_values[name].help] == []


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--model_dir=a b", "a b"),
        ("--model_dir=", ""),
        ("--batch_size=12", 12),
        ("--learning_rate=1e-4", 0.0001),
        ("--learning_rate=1", 1.0),
        ("--optimizer=sgd", "sgd"),
        ("--enable_xla", True),
        ("--enable_xla=true", True),
        ("--nohorizontal_flip", False),
        ("--horizontal_flip=false", False),
        ("--image_size=64", (64,)),
        ("--image_size=64,96", (64, 96)),
        ("--image_size=64, 96", (64, 96)),
        ("--image_size=", ()),
        ("--random_scale=0.5,2", (0.5, 2.0)),
        ("--random_scale=", ()),
        ("--class_names=cat, the dog", ("cat", "the dog")),
        ("--num_classes=3", 3),
        ("--label_offset=-1", -1),
    ],
)
def test_values_parse_to_their_types(argument, expected):
    name = argument.lstrip("-").removeprefix("no").partition("=")[0]
    value = _parse(argument)[name].value
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    "name",
    [
        "num_classes",
        "class_names",
        "label_offset",
        "train_fraction",
        "encoder_bn_momentum",
        "train_epochs",
        "train_steps",
    ],
)
def test_flags_that_are_derived_default_to_none(name):
    assert _parse()[name].value is None


def test_parsed_flags_reach_their_section():
    parsed = flags.config_from_flags(
        _parse(
            "--model_dir=a", "--image_size=64,96", "--warmup_steps=5", "--num_gpus=0"
        )
    )
    assert parsed.data.image_size == (64, 96)
    assert parsed.optimizer.warmup_steps == 5
    assert parsed.runtime.num_gpus == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--optimizer=lion", r"--optimizer=lion: .*<adam\|adamw\|sgd>"),
        (
            "--mode=test",
            r"--mode=test: .*<train\|evaluate\|train_and_evaluate\|benchmark\|doctor>",
        ),
        ("--batch_size=many", "--batch_size=many: .*many"),
        ("--batch_size=1.5", r"--batch_size=1\.5: .*1\.5"),
        ("--learning_rate=fast", "--learning_rate=fast: .*fast"),
        ("--enable_xla=perhaps", "--enable_xla=perhaps: .*boolean"),
        ("--image_size=a,b", "--image_size=a,b: give comma-separated int values"),
        ("--random_scale=0.5-2", "--random_scale=0.5-2: give comma-separated float"),
        ("--image_size=64,", "--image_size=64,: give comma-separated int values"),
    ],
)
def test_value_that_cannot_be_parsed_is_named(argument, message):
    with pytest.raises(absl_flags.IllegalFlagValueError, match=message):
        _parse(argument)


def test_unknown_flag_comes_with_a_suggestion():
    message = r"Unknown command line flag 'bath_size'\. Did you mean: batch_size"
    with pytest.raises(absl_flags.UnrecognizedFlagError, match=message):
        _parse("--bath_size=3")


def test_flag_after_a_flagfile_overrides_it(tmp_path):
    path = tmp_path / "some.flags"
    path.write_text("# A comment.\n--batch_size=8\n--seed=3\n")
    flag_values = _parse(f"--flagfile={path}", "--batch_size=16")
    assert (flag_values.batch_size, flag_values.seed) == (16, 3)


_HELP = """
import runpy, sys
sys.argv = ["trainer.main", "--help"]
try:
    runpy.run_module("trainer.main", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
heavy = {"tensorflow", "keras", "numpy", "tensorflow_datasets"}
print("HEAVY", *sorted(heavy & sys.modules.keys()))
"""


@pytest.fixture(scope="module", name="help_lines")
def _help_lines() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _HELP],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_help_imports_no_heavy_module(help_lines):
    assert help_lines[-1] == "HEAVY"


def test_help_lists_every_flag(help_lines):
    listed = {
        match.group(1)
        for line in help_lines
        if (match := re.match(r"\s+--(?:\[no\])?(\w+):", line))
    }
    assert _NAMES - listed == set()
