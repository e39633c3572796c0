"""The command line, end to end, and every mistake in the user's words."""

import contextlib
import functools
import importlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import schema
from data.sources import registry, synthetic
from data.stores import store
from tests import helpers, shallow
from tests.faults import processes
from trainer import errors, flags, main
from trainer.assembly import training
from trainer.evaluating import scoring
from trainer.loop import verdicts
from trainer.run_folder import checkpoint_folders, checkpointing, run_lock, summaries
from trainer.settings import modes
from trainer.steps import gradients
from trainer.steps import training as training_steps

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_SMALL = (
    "--image_size=32",
    "--encoder_alpha=0.35",
    "--decoder_filters=8,8,8,8",
    "--batch_size=8",
    "--log_steps=2",
    "--steps_per_loop=3",
)
_AUGMENT = (
    "--random_scale=0.5,2.0",
    "--random_brightness=0.4",
    "--random_contrast=0.4",
    "--random_saturation=0.4",
    "--random_noise=0.05",
    "--random_classmix=0.5",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Returns a folder with random weights of the whole encoder and of a short one."""
    folder = tmp_path_factory.mktemp("weights")
    processes.write_encoder_weights(folder / "whole.weights.h5")
    shallow.write_weights(folder / "short.weights.h5")
    return folder


def _shrink(patch):
    patch.setattr(synthetic, "NUM_EXAMPLES", {"train": 24, "test": 10})


def _run(model_dir, weights, *arguments, small=True):
    """Runs the program in this process; returns the run's folder."""
    defaults = (f"--encoder_weights={weights}", *_SMALL) if small else ()
    config, _ = flags.read_config((f"--model_dir={model_dir}", *defaults, *arguments))
    importlib.import_module(modes.MODES[config.run.mode].module).run(config)
    return model_dir


@pytest.fixture
def run_whole(monkeypatch, tmp_path, weights):
    """Returns a function that runs the program in this process."""
    _shrink(monkeypatch)

    def run_in_process(
        *arguments, model_dir=tmp_path / "run", small=True, encoder="whole"
    ):
        path = weights / f"{encoder}.weights.h5"
        return _run(model_dir, path, *arguments, small=small)

    return run_in_process


@pytest.fixture
def run(monkeypatch, run_whole):
    """Returns the same with an encoder that is traced in half the time."""
    shallow.shorten(monkeypatch)
    return functools.partial(run_whole, encoder="short")


def _command(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "trainer.main", *arguments],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        **kwargs,
    )


@pytest.mark.parametrize("name", ["json", "no_such_module"])
def test_garbage_is_collected_again_after_the_import(name, monkeypatch):
    calls = []
    stand_in = types.SimpleNamespace(
        disable=lambda: calls.append("disable"),
        freeze=lambda: calls.append("freeze"),
        enable=lambda: calls.append("enable"),
    )
    monkeypatch.setattr(main, "gc", stand_in)
    import_module = importlib.import_module
    monkeypatch.setattr(
        importlib, "import_module", lambda n: calls.append("import") or import_module(n)
    )
    with contextlib.suppress(ModuleNotFoundError):
        assert main._import_at_once(name) is json
    assert calls == ["disable", "import", "freeze", "enable"]


def test_step_is_traced_while_examples_are_decoded(run, monkeypatch):
    is_prepared = threading.Event()
    prepare, open_store = training_steps.TrainLoop.prepare, store.open_store

    def prepare_and_tell(*args):
        prepare(*args)
        is_prepared.set()

    def wait_and_open(*args, **kwargs):
        assert is_prepared.wait(timeout=600)
        return open_store(*args, **kwargs)

    monkeypatch.setattr(training_steps.TrainLoop, "prepare", prepare_and_tell)
    monkeypatch.setattr(store, "open_store", wait_and_open)
    model_dir = run("--mode=train", "--train_steps=2", "--train_epochs=0")
    assert _points(model_dir, "train")[-1]["step"] == 2


def _points(model_dir, split):
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [point for point in map(json.loads, lines) if point["split"] == split]


def _final_weights(model_dir):
    path = sorted((model_dir / "checkpoints").glob("step-????????"))[-1]
    reader = tf.train.load_checkpoint(str(path / "state"))
    names = sorted(reader.get_variable_to_shape_map())
    names = [name for name in names if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.cross_section
def test_train_and_evaluate_end_to_end(run_whole, capsys, caplog, monkeypatch):
    judged = []

    def judge(self, step, training, evaluation):
        judged.append((step, training.sum(), evaluation.sum()))
        return [f"verdict of step {step}"]

    monkeypatch.setattr(verdicts.Watch, "judge", judge)
    caplog.set_level("INFO")
    model_dir = run_whole("--train_epochs=2", "--summary_images=2")
    printed = capsys.readouterr().out
    for title in ("pixel accuracy", "mean IoU", "class", "body", "border"):
        assert re.search(f"^{title} ", printed, re.M)
    assert f"tensorboard --logdir={model_dir}" in printed
    assert tf.io.decode_png((model_dir / "predictions.png").read_bytes()).shape[2] == 3
    # 2 epochs of 24 examples in batches of 8 are 6 steps; evaluated after each epoch.
    assert [p["step"] for p in _points(model_dir, "eval")] == [3, 6]
    assert [p["step"] for p in _points(model_dir, "train")] == [2, 4, 6]
    assert (model_dir / "config.json").exists()
    # At step 3 by the 2 steps until the last report, not by the 1 step since. A step
    # has 8 images of 32 x 32 pixels, the evaluation 10.
    assert judged == [(3, 2 * 8 * 32**2, 10 * 32**2), (6, 2 * 8 * 32**2, 10 * 32**2)]
    assert "Warning at step 6: verdict of step 6" in caplog.text


def test_a_finished_run_says_so_and_prints_its_scores_again(run, capsys):
    run("--train_steps=2")
    first = capsys.readouterr().out
    run("--train_steps=2")
    assert first.split("training")[0] in capsys.readouterr().out


def test_a_finished_run_prints_no_scores_of_other_settings(run, capsys, caplog):
    model_dir = run("--train_steps=2")
    picture = (model_dir / "predictions.png").read_bytes()
    settings = (model_dir / "config.json").read_bytes()
    capsys.readouterr()
    with caplog.at_level("INFO"):
        run("--train_steps=2", "--tta=flip", "--eval_split=train")
    assert "mean IoU" not in capsys.readouterr().out
    assert "--tta was  and is flip now." in caplog.messages
    command = f"--mode=evaluate --model_dir={model_dir} --eval_split=train "
    assert (
        f"its scores are not printed. To score it with that: {command}--tta=flip"
        in (caplog.text)
    )
    assert (model_dir / "predictions.png").read_bytes() == picture
    assert (model_dir / "config.json").read_bytes() == settings  # Of these are scores.


def test_the_written_flagfile_repeats_the_run(run, tmp_path):
    first = run("--mode=train", "--train_steps=3", "--seed=5")
    second = tmp_path / "again"
    run(
        f"--flagfile={first / 'config.flags'}",
        "--mode=train",
        model_dir=second,
        small=False,
    )
    a, b = _final_weights(first), _final_weights(second)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_training_sees_windows_and_evaluation_all_of_an_image(run, monkeypatch):
    sizes = []
    backpropagate = gradients.Gradients.backpropagate

    def record(self, images, labels, scale, sums_of_all=None):
        sizes.append((images.shape, labels.shape))
        return backpropagate(self, images, labels, scale, sums_of_all)

    monkeypatch.setattr(gradients.Gradients, "backpropagate", record)
    folder = run("--train_steps=2", "--crop_size=16,24", "--crop_rare_classes=0.5")
    assert set(sizes) == {((8, 16, 24, 3), (8, 16, 24))}
    run("--mode=evaluate", small=False)
    line = json.loads((folder / "evaluations.jsonl").read_text())
    assert line["image_size"] == [32, 32]


_SEVEN_STEPS = ("--ema_decay=0.9", "--optimizer=adamw", *_AUGMENT)


@pytest.fixture(scope="module")
def seven_steps(weights, tmp_path_factory):
    """Returns the folder of a run of seven steps, with evaluations, on one device."""
    folder = tmp_path_factory.mktemp("seven") / "run"
    with pytest.MonkeyPatch.context() as patch:
        _shrink(patch)
        shallow.shorten(patch)
        path = weights / "short.weights.h5"
        return _run(folder, path, "--train_steps=7", *_SEVEN_STEPS)


def test_a_stopped_run_goes_on_to_the_same_weights(run, seven_steps):
    """Without an evaluation, which leaves no trace in them either."""
    for num_steps in (3, 7):
        parts = run("--mode=train", f"--train_steps={num_steps}", *_SEVEN_STEPS)
    a, b = _final_weights(seven_steps), _final_weights(parts)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_one_device_goes_on_where_two_gave_its_losses(run, seven_steps):
    # An epoch has three steps; the evaluation after the first is made by two devices.
    for num_steps, devices in ((4, 2), (7, 1)):
        elastic = run(
            f"--train_steps={num_steps}",
            f"--virtual_devices={devices}",
            *_SEVEN_STEPS,
        )
    for split, steps in (("train", [2, 4, 6, 7]), ("eval", [3, 6, 7])):
        expected = _points(seven_steps, split)
        assert [point["step"] for point in expected] == steps
        points = {point["step"]: point for point in _points(elastic, split)}
        for name, rtol in (
            ("loss", 1e-4),
            ("gradient_norm", 2e-3),
            ("mean_iou", 2e-3),
            ("pixel_accuracy", 2e-3),
        ):
            if name in expected[0]:
                np.testing.assert_allclose(
                    [points[step][name] for step in steps],
                    [point[name] for point in expected],
                    rtol=rtol,
                )


@pytest.mark.cross_section
def test_evaluate_scores_a_checkpoint_on_the_whole_split(run, capsys):
    run("--train_steps=3")
    trained = capsys.readouterr().out
    run("--mode=evaluate", "--batch_size=4", small=False)
    evaluated = capsys.readouterr().out
    # A line goes on there, with the share of the pixels.
    lines = evaluated.split("evaluation")[0].splitlines()
    for line in trained.split("training")[0].splitlines():
        assert any(other.startswith(line) for other in lines), line


def test_benchmark_times_the_objects_of_training(run_whole, capsys):
    model_dir = run_whole(
        "--mode=benchmark",
        "--against=fit",
        "--benchmark_rounds=1",
        "--benchmark_secs=0.01",
    )
    printed = capsys.readouterr().out
    assert re.search(r"end to end is \d+\.\d\dx as fast as model.fit float32", printed)
    assert "evaluation is" in printed and "Limited by" in printed
    figures = json.loads((model_dir / "benchmark.json").read_text())
    assert set(figures["timings"]) == {
        "input only",
        "step only",
        "step without augmentation",  # Of those of the mirror, which is the default.
        "end to end",
        "evaluation",
        "model.fit float32",
        "model.evaluate float32",
    }
    assert all(timing["best_secs"] > 0 for timing in figures["timings"].values())
    assert figures["step_gflop"] > 0 and figures["peak_gflops"] > 0
    assert not (model_dir / "checkpoints").exists()


def test_benchmark_times_both_phases_of_a_model_that_draws(run):
    model_dir = run(
        "--mode=benchmark",
        "--nofreeze_encoder",
        "--unfreeze_encoder_at=1",
        "--decoder_dropout=0.5",
        "--augment=none",
        "--benchmark_rounds=1",
        "--benchmark_secs=0.01",
    )
    figures = json.loads((model_dir / "benchmark.json").read_text())
    assert figures["step_gflop"] > 0
    assert set(figures["timings"]) == {
        "input only",
        "step only",
        "step only, frozen encoder",
        "end to end",
        "end to end, frozen encoder",
        "evaluation",
    }


def test_benchmark_times_steps_of_windows_that_draw_with_and_without_changes(
    run, capsys
):
    model_dir = run(
        "--mode=benchmark",
        "--decoder_dropout=0.5",
        "--random_noise=0.1",
        "--crop_size=16",
        "--benchmark_rounds=1",
        "--benchmark_secs=0.01",
    )
    printed = capsys.readouterr().out
    figures = json.loads((model_dir / "benchmark.json").read_text())
    assert figures["step_gflop"] > 0
    whole, unchanged = (
        figures["timings"][name]["best_secs"]
        for name in ("step only", "step without augmentation")
    )
    share = figures["augmentation"]["best_share"]
    assert share == pytest.approx(1 - unchanged / whole)
    assert f"random changes take {share:.1%} of a step by the best round" in printed
    assert re.search(r"Limited by .*; random changes take \d+% of the step", printed)


def test_benchmark_against_fit_is_for_one_device(run):
    with pytest.raises(errors.ConfigError, match="--against=fit compares on one dev"):
        run("--mode=benchmark", "--against=fit", "--virtual_devices=2")


def test_every_cache_trains_to_the_same_weights(run, tmp_path):
    memory = run("--train_epochs=2")
    for cache in ("disk", "device", "none"):
        other = run(
            "--train_epochs=2",
            f"--cache={cache}",
            *([f"--cache_dir={tmp_path / 'cache'}"] if cache == "disk" else []),
            model_dir=tmp_path / cache,
        )
        for split in ("train", "eval"):
            a, b = _points(memory, split), _points(other, split)
            for key in ("step", "loss", "mean_iou"):
                assert [p[key] for p in a] == [p[key] for p in b], (cache, key)
        a, b = _final_weights(memory), _final_weights(other)
        assert a.keys() == b.keys(), cache  # Checkpoints hold no examples.
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=f"{cache}, {key}")


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--train_epochs=1", "--virtual_devices=2"),
        ("--time_budget=20s",),
        ("--mode=benchmark", "--benchmark_rounds=1", "--benchmark_secs=0.01"),
    ],
)
def test_a_damaged_file_is_named_when_its_batch_is_due(
    run, tmp_path, monkeypatch, split, arguments
):
    files = {}
    for role in ("train", "eval"):
        (tmp_path / role).mkdir()
        files[role] = helpers.FileSource(tmp_path / role, num_examples=16)

    def open_source(dataset, request):
        return files["train" if request.is_training else "eval"]

    monkeypatch.setattr(registry, "open_source", open_source)
    damaged = pathlib.Path(files[split].images[9])
    damaged.write_bytes(damaged.read_bytes()[:-200])
    message = (
        rf"^files/{split}, example 9 \(9.jpg\): the image: it cannot be decoded \("
    )
    with pytest.raises(schema.DataError, match=message):
        run("--cache=none", *arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("--batch_size=6", "--virtual_devices=2", "--random_cutmix=0.5"),
            errors.ConfigError,
            "--batch_size=6: --random_cutmix=0.5 mixes .* multiple of 4",
        ),
        (
            ("--batch_size=9", "--virtual_devices=2"),
            errors.ConfigError,
            "--batch_size=9 is not divisible by 2 replicas; use 8 or 10",
        ),
        (
            ("--encoder_weights=/nowhere/w.h5",),
            errors.ConfigError,
            "--encoder_weights=/nowhere/w.h5: there is no such file",
        ),
        (
            ("--label_offset=-1",),
            schema.DataError,
            "synthetic/train, example 0 .*--label_offset=-1.*did you mean "
            "--label_offset=0",
        ),
        (
            ("--label_offset=-1", "--cache=none"),
            schema.DataError,
            # The first that is read: the photos that the run keeps.
            r"synthetic/test, example \d+ .*--label_offset=-1.*--mode=doctor looks at "
            "all masks",
        ),
        (
            ("--enable_xla", "--virtual_devices=2"),
            errors.ConfigError,
            "--enable_xla with 2 replicas",
        ),
        (
            ("--warmup_steps=3",),
            errors.ConfigError,
            "--warmup_steps=3 is not less than the 3 steps",
        ),
        (
            ("--nofreeze_encoder", "--unfreeze_encoder_at=1"),
            errors.ConfigError,
            "--unfreeze_encoder_at=1: that is after 3 steps, and the run ends after 3; "
            "unfreeze the encoder earlier, train for longer, or say --freeze_encoder",
        ),
        (
            ("--train_split=nowhere",),
            schema.DataError,
            "nowhere.*train.*test",
        ),
        (
            ("--decoder=tensorflow_examples",),
            errors.ConfigError,
            "--decoder=tensorflow_examples: the package tensorflow_examples is not",
        ),
    ],
)
def test_a_mistake_is_named_before_training(run, arguments, error, message):
    with pytest.raises(error, match=message):
        run("--train_steps=3", *arguments)


def test_an_unwritable_model_dir_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigError, match="--model_dir=.*cannot be written"):
        run("--train_steps=1", model_dir=tmp_path / "file" / "run")


def test_a_model_dir_of_another_configuration_is_named(run, monkeypatch):
    """Before the data are decoded, which may take hours."""
    run("--mode=train", "--train_steps=1")
    monkeypatch.delattr(training, "prepare_training")
    with pytest.raises(errors.CheckpointError, match="batch_size was 8 and is 4"):
        run("--mode=train", "--train_steps=2", "--batch_size=4")


@pytest.mark.cross_section
def test_own_folder_trains_with_merged_classes_until_it_changes(run, tmp_path, capsys):
    random = np.random.default_rng(0)
    for stem in "abcdefghijklmnop":
        for folder, shape, top in (
            ("images", (32, 40, 3), 256),
            ("masks", (32, 40), 3),
        ):
            path = tmp_path / "own" / folder / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = tf.constant(random.integers(0, top, shape), tf.uint8)
            path.write_bytes(tf.io.encode_png(tf.reshape(pixels, [32, 40, -1])).numpy())
    label_map = tmp_path / "map.csv"
    label_map.write_text("0,rest\n1,animal\n2,animal\n")
    arguments = (
        "--dataset=folder",
        f"--data_dir={tmp_path / 'own'}",
        "--train_fraction=0.7",
        f"--label_map={label_map}",
        "--train_split=",
        "--eval_split=",
    )

    run("--train_steps=1", *arguments)

    printed = capsys.readouterr().out
    assert "IoU animal" in printed and re.search("^rest +[0-9]", printed, re.M)
    label_map.write_text("0,rest\n1,animal\n2,rest\n")
    with pytest.raises(errors.CheckpointError, match="training split.*changed since"):
        run("--train_steps=2", *arguments)


def test_imagenet_weights_without_a_network_say_what_to_do(run, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on ...: no route")

    monkeypatch.setattr(
        keras.applications.MobileNetV2.__globals__["file_utils"], "get_file", fail
    )
    with pytest.raises(errors.ConfigError, match="imagenet: .*could not be downloaded"):
        run("--train_steps=1", "--encoder_weights=imagenet")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--train_steps=9",),
        ("--time_budget=20s",),
        ("--mode=benchmark", "--benchmark_rounds=1", "--benchmark_secs=0.01"),
    ],
)
def test_non_finite_loss_ends_the_run_names_the_examples_and_saves_nothing(
    run, tmp_path, arguments
):
    """A step that was not made takes no time, and must not be timed."""
    message = r"step \d+ are not finite .*nothing saved.*synthetic/train/\d+, synth"
    with pytest.raises(errors.NonFiniteError, match=message):
        run("--optimizer=sgd", "--learning_rate=1e30", *arguments)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not names & {"checkpoints", "length.json", "benchmark.json"}


def _fail_to_save_at(monkeypatch, *steps):
    write = checkpointing.Checkpointer._write

    def fail(self, metadata):
        if metadata.step in steps:
            raise OSError(28, "No space left on device")
        write(self, metadata)

    monkeypatch.setattr(checkpointing.Checkpointer, "_write", fail)


def test_a_run_ends_early_and_goes_on_with_more_patience(run, monkeypatch, caplog):
    scores = iter([0.3, 0.5, 0.4, 0.4, 0.3, 0.2])

    def evaluate(setup):
        return {
            "loss": 1.0,
            "pixel_accuracy": 0.5,
            "mean_iou": next(scores),
            "images_per_sec": 1.0,
        }

    monkeypatch.setattr(scoring, "evaluate", evaluate)
    flags = ("--train_epochs=9", "--summary_images=0")
    with caplog.at_level("INFO"):
        model_dir = run(*flags, "--early_stopping_patience=2")
    assert [p["step"] for p in _points(model_dir, "eval")] == [3, 6, 9, 12]
    assert "for 2 evaluations no mean_iou has been better than 0.5000" in caplog.text
    with caplog.at_level("INFO"):
        run(*flags, "--early_stopping_patience=2")
    assert "step 12 of 27. For more, raise --early_stopping_patience." in caplog.text
    assert [p["step"] for p in _points(model_dir, "eval")] == [3, 6, 9, 12]
    run(*flags, "--early_stopping_patience=3")
    assert [p["step"] for p in _points(model_dir, "eval")] == [3, 6, 9, 12, 15]


def test_a_run_without_a_score_ends_early_and_says_so(run, monkeypatch, caplog):
    score = {"loss": 1.0, "pixel_accuracy": 0.5, "images_per_sec": 1.0}
    score["mean_iou"] = float("nan")
    monkeypatch.setattr(scoring, "evaluate", lambda setup: score)
    with caplog.at_level("INFO"):
        run("--train_epochs=9", "--summary_images=0", "--early_stopping_patience=1")
    text = "Stopping early at step 3: for 1 evaluations no mean_iou has been a number."
    assert text in caplog.text


def test_the_best_is_chosen_by_the_score_asked_for(run):
    message = "^--best_metric=iou: no score of this evaluation; use one of .*iou/body"
    with pytest.raises(errors.ConfigError, match=message):
        run("--best_metric=iou", "--train_steps=1")
    model_dir = run("--best_metric=loss", "--train_steps=1")
    (folder,) = (model_dir / "checkpoints").iterdir()
    metadata = json.loads((folder / "metadata.json").read_text())
    (point,) = _points(model_dir, "eval")
    assert metadata["best_metric"] == "loss"
    assert metadata["best_score"] == pytest.approx(point["loss"])


def test_a_failed_save_skips_no_evaluation(run, monkeypatch):
    _fail_to_save_at(monkeypatch, 3)
    model_dir = run("--train_epochs=2")
    assert [p["step"] for p in _points(model_dir, "eval")] == [3, 6]


def test_a_run_whose_last_save_failed_is_not_done(run, monkeypatch):
    _fail_to_save_at(monkeypatch, 6)
    with pytest.raises(errors.CheckpointError, match="last checkpoint is of step 3"):
        run("--train_epochs=2")


def test_what_a_killed_save_did_not_come_to_remove_goes_with_the_end(run):
    flags = ("--mode=train", "--train_steps=2", "--max_to_keep=1")
    folder = run(*flags) / "checkpoints"
    (newest,) = folder.iterdir()
    shutil.copytree(newest, folder / "step-00000001")
    run(*flags)
    assert list(folder.iterdir()) == [newest]


def test_a_new_run_uses_nothing_of_an_earlier_one_in_its_folder(run):
    """A message says how to begin anew: by moving the folder of checkpoints away."""
    flags = ("--train_steps=1", "--summary_images=0")
    model_dir = run(*flags)
    photos = model_dir / "golden" / "photos.npz"
    own = photos.read_bytes()

    def watch_and_start(steps):
        photos.write_bytes(b"other photos")
        writer = summaries.SummaryWriter(model_dir, keeps_points=False)
        writer.write_scalars("watch", 1, {"loss": 2.0})
        writer.close()
        run(*flags, steps)
        splits = {split for split, *_ in processes.read_events(model_dir)}
        return photos.read_bytes(), "watch" in splits

    # A run that goes on keeps both.
    assert watch_and_start("--train_steps=2") == (b"other photos", True)
    shutil.rmtree(model_dir / "checkpoints")
    assert watch_and_start("--train_steps=1") == (own, False)


def test_a_finished_run_keeps_its_best_when_it_is_started_otherwise(
    run, monkeypatch, caplog
):
    flags = ("--train_epochs=2", "--max_to_keep=1", "--summary_images=0")
    score = {"loss": 1.0, "pixel_accuracy": 0.5, "images_per_sec": 1.0}
    ious = iter((0.9, 0.1))
    monkeypatch.setattr(
        scoring, "evaluate", lambda setup: {**score, "mean_iou": next(ious)}
    )
    folder = run(*flags) / "checkpoints"
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["step-00000003", "step-00000006"]
    others = {"--best_metric=loss": "by loss, it", "--tta=flip": "another evaluation"}
    for more in (*others, "--mode=train"):
        caplog.clear()
        with caplog.at_level("INFO"):
            run(*flags, more)
        assert sorted(path.name for path in folder.iterdir()) == kept
        assert others.get(more, "The run is done") in caplog.text


def test_a_second_training_is_refused_and_an_evaluation_is_not(run, capsys):
    model_dir = run("--mode=train", "--train_steps=1")
    with run_lock.holding(model_dir, is_chief=True):
        run("--mode=evaluate", "--train_steps=1")
        with pytest.raises(errors.ConfigError, match="another run is training there"):
            run("--train_steps=2")


def test_changed_settings_are_said_when_a_run_goes_on(run, caplog):
    model_dir = run("--mode=train", "--train_steps=1")
    caplog.clear()
    with caplog.at_level("INFO"):
        run("--mode=train", "--train_steps=2", "--learning_rate=0.5")
    said = [m for m in caplog.messages if " was " in m and "now" in m]
    assert said == [
        "--learning_rate was 0.000354 and is 0.5 now.",
        "--train_steps was 1 and is 2 now.",
    ]
    assert not (model_dir / run_lock.FILE_NAME).exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (schema.DataError("x"), 5),
        (schema.DataError("x", kind="cache_dir"), errors.ConfigError.exit_code),
        (schema.DataError("x", kind="cache_full"), errors.WriteError.exit_code),
        (errors.LockLostError("x"), 3),
        (OSError(28, "No space left on device"), errors.WriteError.exit_code),
        (RuntimeError("file.x; No space left on device"), errors.WriteError.exit_code),
        (OSError(13, "Permission denied"), 1),
    ],
)
def test_errors_end_with_their_exit_code(error, code):
    assert main._exit_code(error) == code


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\u2028b", "a\udcffb", "a "])
def test_what_a_flagfile_cannot_hold_is_refused(run, name):
    with pytest.raises(errors.ConfigError, match="^--model_dir='a.*into a flagfile"):
        run(model_dir=name)


def test_help_of_the_program_lists_flags_and_exit_codes_work():
    result = _command("--model_dir=x", "--batch_sizes=8")
    assert result.returncode == errors.ConfigError.exit_code
    assert "Unknown command line flag 'batch_sizes'" in result.stderr
    result = _command("--model_dir=x", "--train_epochs=2", "--train_steps=2")
    assert result.returncode == errors.ConfigError.exit_code
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: --train_epochs=2 and --train_steps=2 both")


@pytest.mark.cross_section
@helpers.needs_pets
@helpers.needs_weights
def test_real_photos_with_the_tutorials_flagfile_for_a_few_steps(run_whole, tmp_path):
    weights = helpers.SHARED / "weights" / "mobilenet_v2_1.0_no_top.weights.h5"
    model_dir = run_whole(
        f"--flagfile={_ROOT / 'launch/flagfiles/pets_tutorial.flags'}",
        f"--data_dir={helpers.SHARED / 'tfds'}",
        f"--encoder_weights={weights}",
        "--train_epochs=0",
        "--train_steps=2",
        "--batch_size=8",
        "--eval_split=test[:16]",
        "--train_split=train[:16]",
        small=False,
    )
    (point,) = _points(model_dir, "eval")
    assert {"iou/pet", "iou/background", "iou/border"} <= point.keys()
    path = checkpoint_folders.list_checkpoints(model_dir / "checkpoints")[-1]
    assert checkpoint_folders.read_metadata(path).identity["class_names"] == [
        "pet",
        "background",
        "border",
    ]
