"""`--mode=plan`, end to end on the built-in data, and what it refuses."""

import json

import pytest

from data.doctor import facts as facts_lib
from data.sources import synthetic
from tests import shallow, test_doctor
from trainer import children, errors, flags
from trainer.assembly import imagenet, initializing, restoring
from trainer.modes import plan
from trainer.planning import costs, notes, probe
from trainer.running import memory
from trainer.settings import config as config_lib
from trainer.settings import model as model_settings


@pytest.fixture(name="run_plan")
def _run_plan(tmp_path):
    """Returns a function that plans in this process."""

    def run(*arguments):
        config, _ = flags.read_config(
            ["--mode=plan", f"--model_dir={tmp_path / 'plan'}", *arguments]
        )
        plan.run(config)
        return tmp_path / "plan" / "plan.flags"

    return run


def test_a_plan_is_measured_and_can_be_trained(run_plan, monkeypatch, tmp_path, capsys):
    shallow.shorten(monkeypatch)
    shallow.write_weights(tmp_path / "encoder.weights.h5")
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    monkeypatch.setattr(probe, "_MOST_SECS", 0.05)
    monkeypatch.setattr(children, "run", _run_here)
    monkeypatch.chdir(tmp_path)
    path = run_plan(
        "--time_budget=20h",  # Enough on any machine.
        "--image_size=32",
        "--encoder_alpha=0.35",
        "--decoder_filters=8,8,8,8",
        "--encoder_weights=encoder.weights.h5",
        "--mixed_precision=float32",
    )
    text = path.read_text()
    assert text in capsys.readouterr().out
    assert not list((tmp_path / "plan").glob(".*"))

    made, remarks = flags.read_config(["--model_dir=x", f"--flagfile={path}"])
    assert remarks == []
    # As given; a path is one from anywhere.
    assert made.model.encoder_weights == str(tmp_path / "encoder.weights.h5")
    assert made.data.image_size == (32, 32)
    assert made.runtime.mixed_precision == "float32"
    # 24 examples are few: 6 x 50 epochs of 3 steps fit, and more are of no use.
    assert (made.train.batch_size, made.train.train_steps) == (8, 900)
    assert made.train.time_budget == ""
    assert made.augmentation.augment == "light"
    assert (made.optimizer.optimizer, made.loss.loss) == ("adamw", "ce+lovasz")
    assert not made.model.freeze_encoder
    assert "# Predicted: " in text and "GiB of memory" in text


def _run_here(module, arguments):
    """Measures in this process what would be measured in a new one."""
    assert module == "trainer.planning.probe"
    probe.main(arguments)
    return children.Ended(0, "")


@pytest.mark.parametrize(
    ("budget", "step_secs"), [("2m", 4.0), ("10m", 12.0), ("1h", 20.0)]
)
def test_how_long_is_measured_follows_the_budget(budget, step_secs, monkeypatch):
    scripts = []

    def rehearse(setup, folder, script, *, started):
        scripts.append(script)
        return costs.Costs(start=20, step=0.1, evaluation=2, save=0.5, end=1)

    monkeypatch.setattr(probe.rehearsal, "rehearse", rehearse)
    monkeypatch.setattr(probe.training, "prepare_training", lambda *args: None)
    probe.run(
        config_lib.from_dict(
            {"model_dir": "x", "time_budget": budget, "log_steps": 4, "num_gpus": 0}
        )
    )
    (script,) = scripts
    assert (script.step_secs, script.evaluation_secs) == (step_secs, step_secs / 2)
    assert (script.steps_per_call, script.log_steps, script.is_chief) == (20, 4, True)


def _measure(settings):
    measured = costs.Costs(start=20, step=0.1, evaluation=2, save=0.5, end=1)
    return notes.Measured(costs=measured, memory_bytes=2**30)


def test_a_time_is_needed_to_plan(run_plan):
    with pytest.raises(errors.ConfigError, match="--mode=plan plans for a time"):
        run_plan()


def test_a_plan_is_for_one_host(run_plan):
    with pytest.raises(errors.ConfigError, match="multi_worker_mirrored: --mode=plan"):
        run_plan("--time_budget=9m", "--distribution_strategy=multi_worker_mirrored")


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """Returns a clean folder of three classes, without their names."""
    root = tmp_path / "data"
    test_doctor.make_clean(root)
    return root


def _flags_of(folder, *others):
    return ("--dataset=folder", f"--data_dir={folder}", *others)


def test_the_number_of_classes_is_that_of_the_masks(run_plan, folder, monkeypatch):
    monkeypatch.setattr(probe, "measure", _measure)
    path = run_plan("--time_budget=9m", *_flags_of(folder))
    lines = path.read_text().splitlines()
    assert "--num_classes=3" in lines and f"--data_dir={folder}" in lines


@pytest.mark.parametrize(
    ("values", "count"),
    [({0, 1, 2}, 3), ({0, 1, 255}, 2), ({1, 2}, 0), ({0, 255}, 0), ({0, 2}, 0)],
)
def test_classes_are_counted_from_0_without_a_gap(values, count):
    split = facts_lib.Split("a")
    split.value_counts.update(values)
    assert plan._count_classes([split]) == count


def test_there_is_no_plan_for_data_that_training_refuses(run_plan, folder, monkeypatch):
    monkeypatch.setattr(probe, "measure", _measure)
    test_doctor.write(folder, "train/1", image=b"no image")
    with pytest.raises(errors.FindingsError, match="1.png.*There is no plan for"):
        run_plan("--time_budget=9m", *_flags_of(folder, "--num_classes=3"))


def test_too_short_a_time_names_the_shortest(run_plan, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    monkeypatch.setattr(probe, "measure", _measure)
    # 1.1 x (20 + 0.1 + 2 + 0.5 + 1) / 0.97 = 26.8
    with pytest.raises(errors.ConfigError, match="=9s is too short.* needs 27s; give"):
        run_plan("--time_budget=9s")
    # Half a minute for the other parts, and 0.1 s for each of 5001 steps.
    with pytest.raises(
        errors.ConfigError, match="run with --warmup_steps=5000 needs [89]m"
    ):
        run_plan("--time_budget=9s", "--warmup_steps=5000")


def test_too_little_memory_is_said(run_plan, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    monkeypatch.setattr(probe, "measure", lambda config: None)
    with pytest.raises(
        errors.OutOfMemoryError, match="Not even the smallest images.* however the b"
    ):
        run_plan("--time_budget=9m")
    with pytest.raises(errors.OutOfMemoryError, match="memory, with --grad.*=2; give"):
        run_plan("--time_budget=9m", "--gradient_accumulation_steps=2")


@pytest.mark.parametrize(
    ("code", "written", "expected"),
    [
        (-9, None, None),
        (0, {"error": "no memory", "is_short_of_memory": True}, None),
        (0, {"error": "--loss=x: no"}, "^--loss=x: no$"),
        (1, None, "ended with code 1; .* Its last words: Traceback"),
    ],
)
def test_what_becomes_of_a_process_that_fails(
    monkeypatch, tmp_path, code, written, expected
):
    def fail(module, arguments):
        if written:
            (tmp_path / "probe.json").write_text(json.dumps(written))
        return children.Ended(code, "Traceback ...")

    monkeypatch.setattr(children, "run", fail)
    config = config_lib.from_dict({"model_dir": str(tmp_path), "time_budget": "9m"})
    if expected is None:
        assert probe.measure(config) is None
        return
    with pytest.raises(errors.ConfigError, match=expected):
        probe.measure(config)


def test_the_memory_that_is_free_is_some_and_not_more_than_there_is():
    assert 2**26 < memory.free_bytes() < 2**50


@pytest.fixture(name="cache")
def _cache(tmp_path, monkeypatch):
    """Returns a function that puts empty files where Keras keeps weights."""
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def put(*names):
        for name in names:
            (tmp_path / "models" / name).touch()

    return put


def _find(image_sizes=((64, 96),), **settings):
    return imagenet.find(model_settings.ModelConfig(**settings), image_sizes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"encoder": "efficientnetv2_b0"}, True),
        ({"encoder": "efficientnetv2_b1"}, False),
        ({"encoder": "mobilenet_v3_small"}, True),
        ({"encoder": "mobilenet_v3_small", "encoder_alpha": 0.75}, False),
        ({"encoder": "resnet50_v2"}, True),
        ({"encoder": "resnet50"}, False),  # Only its second version.
        ({"encoder": "densenet121"}, False),  # With its top.
        ({"encoder_alpha": 0.5}, False),
        ({"encoder": "resnet50", "encoder_weights": "some.h5"}, True),
        ({"encoder_weights": "none", "freeze_encoder": False}, False),
        # What brings its own weights.
        ({"encoder": "keras_hub:resnet_50_imagenet"}, True),
        (
            {
                "encoder": "keras_hub:resnet_50_imagenet",
                "encoder_weights": "none",
                "freeze_encoder": False,
            },
            False,
        ),
        ({"encoder": "resnet50", "init_checkpoint": "runs/a"}, True),
    ],
)
def test_weights_are_looked_for_where_keras_keeps_them(cache, settings, expected):
    cache(
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "efficientnetv2-b0_notop.h5",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "densenet121_weights_tf_dim_ordering_tf_kernels.h5",
    )
    assert _find(**settings) == (expected, "")


def test_weights_are_needed_of_all_sizes_or_one_file_serves_them(cache, tmp_path):
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{}_no_top.h5"
    file = str(tmp_path / "models" / name)
    cache(name.format(224))
    assert _find([(224, 224), (256, 256), (96, 128), (None, None)]) == (True, "")
    assert _find([(96, 96), (256, 256)]) == (True, file.format(224))
    cache(name.format(96))
    assert _find([(96, 96), (256, 256)]) == (True, "")
    assert _find([(96, 96), (128, 128)]) == (True, file.format(224))


@pytest.mark.parametrize(
    ("arguments", "is_named"),
    [((), True), (("--image_size=32",), False), (("--image_size=160",), True)],
)
def test_a_plan_names_the_file_that_serves_its_sizes(
    run_plan, cache, monkeypatch, tmp_path, arguments, is_named
):
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    cache(name)
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    monkeypatch.setattr(probe, "measure", _measure)
    lines = run_plan("--time_budget=9m", *arguments).read_text().splitlines()
    assert "--encoder=mobilenet_v2" in lines
    flag = f"--encoder_weights={tmp_path / 'models' / name}"
    assert (flag in lines) == is_named


def test_maps_are_not_planned_to_keep_random_weights(run_plan, cache, monkeypatch):
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    message = "--freeze_encoder_stages=2: .*no ImageNet weights are there; name some"
    with pytest.raises(errors.ConfigError, match=message):
        run_plan("--time_budget=9m", "--nofreeze_encoder", "--freeze_encoder_stages=2")


@pytest.fixture(name="old_run")
def _old_run(monkeypatch, cache):
    """Makes of every --init_checkpoint a run of a ResNet; no weights are there."""
    monkeypatch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})
    monkeypatch.setattr(probe, "measure", _measure)
    config = config_lib.from_dict(
        {
            "model_dir": "x",
            "encoder": "resnet50",
            "decoder_filters": (9, 8, 7, 6),
            "image_channels": 1,
            "freeze_encoder": True,
        }
    )
    identity = {**config.identity(), "class_names": ["a", "b"]}
    run = restoring.SavedRun([], json.loads(json.dumps(identity)))
    monkeypatch.setattr(restoring, "find_run", lambda *arguments: run)
    monkeypatch.setattr(
        initializing, "_find", lambda name: initializing._Source(name, "last")
    )


def test_a_plan_that_begins_with_a_run_has_its_model(run_plan, old_run):
    path = run_plan("--time_budget=9m", "--init_checkpoint=/a", "--augment=none")
    lines = path.read_text().splitlines()
    parts = ["--encoder=resnet50", "--decoder=pix2pix", "--decoder_filters=9,8,7,6"]
    assert {*parts, "--image_channels=1", "--freeze_encoder=false"} <= {*lines}
    assert lines.index("--init_checkpoint=/a") < lines.index("--encoder=resnet50")
    assert (
        "# as the run of --init_checkpoint has it, whose weights fit no other" in lines
    )
    assert not any(line.startswith("--encoder_weights") for line in lines)
    # Pretrained weights: twice the default of batches of 8.
    assert "--learning_rate=0.000708" in lines
    made, _ = flags.read_config(["--model_dir=x", f"--flagfile={path}"])
    assert made.model.encoder == "resnet50" and made.model.init_checkpoint == "/a"


def test_of_a_run_whose_encoder_alone_is_taken_over_the_decoder_is_free(
    run_plan, old_run
):
    lines = run_plan(
        "--time_budget=9m", "--init_checkpoint=/a", "--init_scope=encoder"
    ).read_text()
    assert "--encoder=resnet50\n" in lines and "--decoder=unet\n" in lines
    assert "--decoder_filters" not in lines


def test_a_plan_contradicts_no_run_that_it_begins_with(run_plan, old_run):
    with pytest.raises(errors.ConfigError, match="--decoder=fpn: the run of.*=pix2pix"):
        run_plan("--time_budget=9m", "--init_checkpoint=/a", "--decoder=fpn")


def test_paths_are_planned_from_anywhere_and_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("voc", "imagenet", "photos", "names", "preset"):
        (tmp_path / name).mkdir()
    for name in ("camvid", "none", "a.csv", "b.txt"):
        (tmp_path / name).touch()

    def resolve(**given):
        return plan._with_absolute_paths(given)

    kept = {
        "encoder": "plain",
        "encoder_weights": "imagenet",
        "data_dir": "s3://bucket/photos",
        "cache_dir": "~/cache",
        "images": "photos/*.jpg",  # Below --data_dir.
        "class_names": ("names",),
        "batch_size": 4,
        "image_size": (32, 32),
        "loss": "voc",
    }
    assert resolve(**kept) == kept
    for palette in ("voc", "camvid"):
        assert resolve(label_colors=palette) == {"label_colors": palette}
    assert resolve(encoder_weights="none") == {"encoder_weights": "none"}
    # A cache is made where there is none.
    assert resolve(data_dir="photos", cache_dir="new", class_names=("b.txt",)) == {
        "data_dir": str(tmp_path / "photos"),
        "cache_dir": str(tmp_path / "new"),
        "class_names": (str(tmp_path / "b.txt"),),
    }
    assert resolve(label_colors="a.csv", encoder="keras_hub:./preset") == {
        "label_colors": str(tmp_path / "a.csv"),
        "encoder": f"keras_hub:{tmp_path / 'preset'}",
    }
