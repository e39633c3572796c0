"""Flags are the settings, and starting the program for `--help` is cheap."""

import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from trainer import errors, flags
from trainer.remote import mirrors
from trainer.run_folder import waiting
from trainer.settings import config

_ROOT = pathlib.Path(__file__).resolve().parents[1]

_NAMES = frozenset({
    "against", "benchmark_rounds", "benchmark_secs",
    "mode", "model_dir", "checkpoint", "model", "seed", "deterministic", "crossfit",
    "dataset", "data_dir", "train_split", "train_half", "eval_split",
    "image_key", "label_key",
    "images", "masks", "label_colors", "label_map", "train_fraction",
    "image_size", "resize", "image_channels", "image_range", "image_normalization",
    "eval_native_size", "num_classes", "class_names",
    "label_offset", "ignore_label", "on_bad_example", "max_bad_examples",
    "horizontal_flip", "random_scale", "random_brightness", "random_contrast",
    "random_saturation", "random_hue", "random_rotation", "random_shear",
    "random_quarter_turn", "vertical_flip", "random_grey", "random_gamma",
    "random_blur", "random_noise", "random_classmix", "random_cutmix", "random_cutout",
    "augment", "crop_size", "crop_rare_classes",
    "cache", "cache_dir", "loss", "class_weights",
    "label_smoothing", "loss_top_k", "focal_gamma", "boundary_weight",
    "boundary_width", "tversky_alpha", "tversky_beta",
    "metrics", "tta", "merge_classes", "watch",
    "export_format", "export_dir", "export_probabilities", "export_scores",
    "keep_golden",
    "encoder", "encoder_alpha", "encoder_drop_connect",
    "encoder_output_stride", "encoder_weights",
    "init_checkpoint", "init_scope", "freeze_encoder_stages",
    "freeze_encoder", "unfreeze_encoder_at", "encoder_bn_momentum",
    "decoder", "decoder_filters",
    "optimizer", "learning_rate", "lr_schedule", "polynomial_power", "warmup_steps",
    "momentum", "weight_decay", "global_clipnorm", "encoder_lr_multiplier",
    "batch_size", "gradient_accumulation_steps",
    "train_epochs", "train_steps", "time_budget", "steps_per_loop",
    "epochs_between_evals", "log_steps", "checkpoint_interval", "max_to_keep",
    "best_metric", "early_stopping_patience",
    "ema_decay", "moving_average_warmup", "decoder_norm", "decoder_dropout",
    "input", "output", "save", "tile_size", "tile_overlap", "mask_orientation",
    "max_megapixels", "overwrite",
    "startup_timeout", "stall_timeout", "summary_images", "log_level",
    "summary_histograms", "profile_steps", "tracker",
    "distribution_strategy", "num_gpus", "virtual_devices", "mixed_precision",
    "enable_xla",
})  # fmt: skip
"""All flags. Before you add one: who will use it, and could a default do instead?"""


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _typed(*arguments: str) -> dict:
    return flags.parse(arguments).typed


def _resolve(*arguments: str) -> config.Config:
    return flags.read_config(["--model_dir=a", *arguments]).config


def test_the_set_of_flags_is_known():
    assert config.fields_by_name().keys() == _NAMES


def test_defaults_of_flags_are_those_of_the_config():
    assert _resolve() == config.Config(run=config.RunConfig(model_dir="a"))


def test_every_flag_has_a_help_text():
    settings = config.fields_by_name()
    assert [name for name in _NAMES if not settings[name].metadata["help"]] == []


def test_flags_of_other_packages_do_not_collide_with_ours():
    # As `tensorflow_examples.models.pix2pix` does when it is imported.
    theirs = absl_flags.FlagValues()
    absl_flags.DEFINE_integer("batch_size", 1, "Theirs.", flag_values=theirs)
    assert "batch_size" not in absl_flags.FLAGS
    assert _resolve("--batch_size=12").train.batch_size == 12


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
    value = _typed(argument)[name]
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
    assert config.fields_by_name()[name].default is None
    assert name not in _typed()


def test_parsed_flags_reach_their_section():
    parsed = _resolve("--image_size=64,96", "--warmup_steps=5", "--num_gpus=0")
    assert parsed.data.image_size == (64, 96)
    assert parsed.optimizer.warmup_steps == 5
    assert parsed.runtime.num_gpus == 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--optimizer=muon", r"--optimizer=muon: .*<adam\|adamw\|sgd\|lion>"),
        (
            "--mode=test",
            r"--mode=test: .*<train\|evaluate\|predict\|export\|train_and_evaluate"
            r"\|benchmark\|doctor\|plan\|report>",
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
    with pytest.raises(errors.ConfigError, match=message):
        _typed(argument)


def test_of_a_value_that_people_look_for_the_reason_is_said():
    with pytest.raises(
        errors.ConfigError,
        match="^--distribution_strategy=tpu: TPUs would need tf.dist",
    ):
        _resolve("--distribution_strategy=tpu")


def test_unknown_flag_comes_with_a_suggestion():
    message = r"Unknown command line flag 'bath_size'\. Did you mean: batch_size"
    with pytest.raises(errors.ConfigError, match=message):
        _typed("--bath_size=3")


def test_what_is_no_flag_is_named():
    with pytest.raises(errors.ConfigError, match="Not a flag: evaluate. All settings"):
        _typed("--seed=3", "evaluate")


@pytest.fixture(name="flagfile")
def _flagfile(tmp_path):
    """Returns a function that writes a flagfile and returns the flag that names it."""

    def write(*lines: str, name: str = "some.flags") -> str:
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return f"--flagfile={tmp_path / name}"

    return write


@pytest.mark.parametrize("is_first", [True, False])
def test_typed_flag_wins_over_a_flagfile_wherever_it_stands(flagfile, is_first):
    named = flagfile("# A comment.", "", "--batch_size=8", "--seed=3")
    line = [named, "--batch_size=16"] if is_first else ["--batch_size=16", named]
    made = _resolve(*line)
    assert (made.train.batch_size, made.run.seed) == (16, 3)


def test_path_of_a_flagfile_may_be_an_argument_of_its_own(flagfile):
    flag, _, path = flagfile("--seed=3").partition("=")
    assert _resolve(flag, path).run.seed == 3


def test_later_flagfile_wins_over_an_earlier_one(flagfile):
    first = flagfile("--seed=3", "--batch_size=8")
    second = flagfile("--seed=4", name="other.flags")
    made = _resolve(first, second)
    assert (made.run.seed, made.train.batch_size) == (4, 8)


def test_flagfile_may_name_another_one(flagfile):
    inner = flagfile("--seed=3", "--batch_size=8", name="inner.flags")
    assert _resolve(flagfile("--seed=4", inner)).run.seed == 3
    assert _resolve(flagfile(inner, "--seed=4")).run.seed == 4
    found = flags.parse([flagfile("--seed=4", inner, "--log_steps=9")]).from_files
    assert found == [{"seed": 4}, {"seed": 3, "batch_size": 8}, {"log_steps": 9}]


def test_flagfile_from_windows_is_read(tmp_path):
    path = tmp_path / "my.flags"
    path.write_bytes(b"\xef\xbb\xbf# My settings.\r\n--seed=3\r\n")
    assert flags.parse([f"--flagfile={path}"]).from_files == [{"seed": 3}]


def test_what_has_no_meaning_in_a_flagfile_is_not_acted_upon(flagfile, monkeypatch):
    def fail(*arguments):
        raise AssertionError(f"It was acted upon: {arguments}")

    monkeypatch.setattr(mirrors, "fetch", fail)
    monkeypatch.setattr(waiting, "wait", fail)
    named = flagfile("--model=s3://bucket/export", "--input=s3://bucket/photos")
    assert _resolve(named).run.model == ""
    with pytest.raises(errors.CheckpointError, match="is not the folder of a run"):
        _resolve(flagfile("--watch"), "--mode=predict")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["--bath_size=3"], "some.flags: Unknown command line flag 'bath_size'"),
        (["seed=3"], "some.flags: Not a flag: seed=3"),
        (["--flagfile="], "--flagfile=: name a file of flags"),
        (
            ["--flagfile=nowhere.flags"],
            r"--flagfile=nowhere.flags cannot be read .* by its name alone: .*, "
            r"recommended.flags\.",
        ),
    ],
)
def test_mistake_in_a_flagfile_is_named(flagfile, lines, message):
    with pytest.raises(errors.ConfigError, match=message):
        _resolve(flagfile(*lines))


def test_flagfile_of_segloop_is_found_by_its_name_but_after_that_of_the_folder(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = _ROOT / "launch" / "flagfiles" / "recommended.flags"
    expected = flags.parse([f"--flagfile={path}"]).from_files
    assert flags.parse(["--flagfile=recommended.flags"]).from_files == expected
    assert "with segloop: pets_tutorial.flags, quickstart" in flags.format_help()
    pathlib.Path("recommended.flags").write_text("--seed=4")
    found = flags.parse(["--flagfile=recommended.flags"]).from_files
    assert found == [{"seed": 4}]


def test_flagfile_that_names_itself_is_an_error(flagfile, tmp_path):
    named = flagfile("--seed=1", f"--flagfile={tmp_path / 'some.flags'}")
    with pytest.raises(errors.ConfigError, match="the file names itself"):
        _resolve(named)


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
        timeout=300,
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


def test_settings_count_of_a_run_that_has_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text('{"image_range": [0, 255]}')
    arguments = [f"--model_dir={tmp_path}"]
    assert flags.read_config(arguments).config.data.image_range is None
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    assert flags.read_config(arguments).config.data.image_range == (0, 255)
