"""A setting counts if what it depends on is given anywhere: typed, or in a flagfile."""

import pytest

from trainer import flags
from trainer.exporting import description
from trainer.run_folder import run_settings
from trainer.settings import config, fields, joining


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


_FOLDER = ["--dataset=folder", "--data_dir=d"]
_PREDICT, _EXPORT = ["--mode=predict"], ["--mode=export"]
_BENCHMARK, _TRAINED = ["--mode=benchmark"], ["--nofreeze_encoder"]

_CASES = {
    # setting: (what gives it, what gives it a meaning, what else there is beside it)
    "checkpoint": ("best", ["--mode=evaluate"], []),
    "model": ("EXPORT", ["--mode=predict"], []),
    "data_dir": ("d", ["--dataset=folder"], []),
    "images": ("images/*", _FOLDER, ["--masks=masks/*"]),
    "masks": ("masks/*", _FOLDER, ["--images=images/*"]),
    "label_colors": ("voc", _FOLDER, []),
    "train_fraction": ("0.5", _FOLDER, []),
    "image_key": ("photo", ["--dataset=tfds:pets"], []),
    "label_key": ("mask", ["--dataset=tfds:pets"], []),
    "eval_native_size": ("true", ["--resize=pad"], ["--resize=crop"]),
    "label_offset": ("-1", ["--label_colors="], [*_FOLDER, "--label_colors=voc"]),
    "ignore_label": ("0", ["--label_colors="], [*_FOLDER, "--label_colors=voc"]),
    "max_bad_examples": ("0", ["--on_bad_example=replace"], []),
    "cache_dir": ("/big", ["--cache=disk"], []),
    "crop_rare_classes": ("0.5", ["--crop_size=64"], []),
    "encoder_alpha": ("0.5", ["--encoder=mobilenet_v2"], ["--encoder=resnet50"]),
    "encoder_drop_connect": (
        "0.1",
        ["--encoder=efficientnetv2_b0", *_TRAINED],
        ["--encoder=efficientnetv2_b0"],
    ),
    "encoder_output_stride": ("16", ["--encoder=resnet50"], ["--encoder=plain"]),
    "encoder_weights": ("w.h5", ["--init_checkpoint="], ["--init_checkpoint=runs/b"]),
    "init_scope": ("encoder", ["--init_checkpoint=runs/b"], []),
    "freeze_encoder_stages": ("2", _TRAINED, []),
    "unfreeze_encoder_at": ("3", _TRAINED, []),
    "encoder_bn_momentum": ("0.5", _TRAINED, []),
    "decoder_norm": ("group", ["--decoder=fpn"], ["--decoder=tensorflow_examples"]),
    "decoder_dropout": ("0.5", ["--decoder=fpn"], ["--decoder=tensorflow_examples"]),
    "label_smoothing": ("0.1", ["--loss=ce+dice"], ["--loss=dice"]),
    "loss_top_k": ("0.5", ["--loss=ce+dice"], ["--loss=dice"]),
    "focal_gamma": ("3", ["--loss=focal"], []),
    "boundary_weight": ("3", ["--loss=boundary+dice"], []),
    "boundary_width": ("5", ["--loss=boundary"], []),
    "tversky_alpha": ("0.5", ["--loss=ce+0.5*tversky"], []),
    "tversky_beta": ("0.5", ["--loss=tversky"], []),
    "encoder_lr_multiplier": ("0.1", _TRAINED, []),
    "polynomial_power": ("2", ["--lr_schedule=polynomial"], []),
    "momentum": ("0.5", ["--optimizer=sgd"], []),
    "weight_decay": ("0.05", ["--optimizer=adamw"], []),
    "watch": ("true", ["--mode=evaluate"], []),
    "export_format": ("onnx", _EXPORT, []),
    "export_dir": ("files", _EXPORT, []),
    "export_probabilities": ("true", _EXPORT, []),
    "export_scores": ("false", _EXPORT, []),
    # As launch/worker.sh types it.
    "startup_timeout": ("900", ["--distribution_strategy=multi_worker_mirrored"], []),
    "against": ("fit", _BENCHMARK, []),
    "benchmark_rounds": ("2", _BENCHMARK, []),
    "benchmark_secs": ("1", _BENCHMARK, []),
    "input": ("photos", _PREDICT, []),
    "output": ("masks", _PREDICT, []),
    "save": ("labels,overlay", _PREDICT, []),
    "tile_size": ("64", _PREDICT, []),
    "tile_overlap": ("0.5", ["--mode=predict", "--tile_size=64"], ["--mode=predict"]),
    "mask_orientation": ("stored", _PREDICT, []),
    "max_megapixels": ("3", _PREDICT, []),
    "overwrite": ("true", _PREDICT, []),
    "crossfit": ("true", ["--mode=doctor"], []),
}


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    """A working folder with a run, `a`, and an exported file of it, `EXPORT`."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "EXPORT"):
        (tmp_path / name).mkdir()
    run_settings.write("a", config.from_dict({"model_dir": "a"}))
    values = {"format": "onnx", "class_names": ["b", "c"], "palette": [[0, 0, 0]] * 2}
    values |= {"image_size": [96, 96], "resize": "pad", "image_channels": 3}
    values |= {"image_range": [0, 255], "gives_probabilities": True, "step": 1}
    description.write(tmp_path / "EXPORT", {**values, "uses_averages": False})
    return tmp_path


def _read(typed, *flagfiles):
    """Reads typed flags, and flagfiles of some lines each."""
    named = []
    for number, lines in enumerate(flagfiles):
        with open(f"{number}.flags", "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
        named.append(f"--flagfile={number}.flags")
    made, remarks = flags.read_config(["--model_dir=a", *named, *typed])
    return made.as_dict(), remarks


def test_every_setting_that_depends_on_others_is_in_the_table():
    settings = config.fields_by_name().values()
    assert _CASES.keys() == {f.name for f in settings if f.metadata["only_with"]}


@pytest.mark.parametrize("name", _CASES)
@pytest.mark.usefixtures("folder")
def test_it_counts_wherever_what_it_depends_on_is_given(name):
    value, meaning, beside = _CASES[name]
    line = f"--{name}={value}"
    ((_, expected),) = flags.parse([line]).typed.items()
    # Without, it does not count, or the table says nothing.
    assert _read([], [*beside, line])[0][name] != expected
    for typed, *flagfiles in (
        (meaning, [*beside, line]),
        ([line], [*beside, *meaning]),
        ([*meaning, line], beside),
        ([], [*beside, line], meaning),
        ([], [*beside, *meaning], [line]),
    ):
        values, remarks = _read(typed, *flagfiles)
        assert values[name] == expected, flagfiles
        assert not [remark for remark in remarks if "does not count" in remark]


@pytest.mark.parametrize("name", _CASES)
@pytest.mark.usefixtures("folder")
def test_what_a_run_writes_gives_its_settings_back(name):
    """With what is typed of the command, and of no run: its mode, for instance."""
    value, meaning, beside = _CASES[name]
    made, _ = _read([*meaning, f"--{name}={value}"], beside)
    settings = config.fields_by_name()
    of_command = {
        n: v
        for n, v in made.items()
        if v != settings[n].default and not settings[n].metadata["is_saved"]
    }
    run_settings.write("b", config.from_dict(made))
    typed = [f"--{n}={fields.format_value(v)}" for n, v in of_command.items()]
    with open("b/config.flags", encoding="utf-8") as file:
        assert _read(typed, file.read().splitlines()) == (made, [])
    joined = joining.join([run_settings.read("b"), of_command]).values
    assert config.from_dict(joined).as_dict() == made


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        # Each depends on the one before it: the mode, --watch, --model, --checkpoint.
        ({"mode": "evaluate"}, {"watch"}),
        ({"mode": "predict"}, {"model"}),
        ({"mode": "predict", "model": ""}, {"model", "checkpoint"}),
        ({"mode": "evaluate", "watch": False}, {"watch", "model"}),
        ({"mode": "doctor"}, {"checkpoint"}),
        ({"mode": "train"}, set()),
    ],
)
def test_what_has_no_meaning_itself_takes_none_from_others(typed, expected):
    file = {"watch": True, "model": "EXPORT", "checkpoint": "best"}
    values, meaningless = joining.join([file, typed])
    assert values == {n: {**file, **typed}[n] for n in ("mode", *expected)}
    assert meaningless.keys() == file.keys() - expected


def test_what_depends_on_nothing_alone_replaces_others():
    """For what has no meaning cannot have replaced anything."""
    settings = config.fields_by_name().values()
    replacing = [f for f in settings if f.metadata["replaces"]]
    assert replacing and not any(f.metadata["only_with"] for f in replacing)


@pytest.mark.usefixtures("folder")
def test_images_are_those_of_an_exported_file_only_if_it_is_used():
    lines = ["--mode=evaluate", "--model=EXPORT"]
    values, _ = _read([], lines)
    assert (values["image_size"], values["resize"]) == ((96, 96), "pad")
    values, remarks = _read(["--watch"], lines)
    assert (values["image_size"], values["resize"]) == ((128, 128), "stretch")
    assert (values["model"], remarks) == ("", [])
