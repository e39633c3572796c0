"""Real trainings at URLs: their bits after a kill, and their use from elsewhere."""

import functools
import importlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests import helpers, shallow, test_doctor
from trainer import flags, main
from trainer.assembly import remote_data, restoring
from trainer.remote import gfile_store, mirrors, stores
from trainer.run_folder import checkpointing
from trainer.settings import data as data_settings
from trainer.settings import modes


class _Killed(BaseException):
    """As SIGKILL: nothing in the program may catch it."""


@pytest.fixture(autouse=True)
def move_to(tmp_path, monkeypatch):
    """Returns a function that moves this process to a machine with another cache."""

    def move(name):
        monkeypatch.setenv("SEGLOOP_CACHE", str(tmp_path / "caches" / name))

    move("first")
    return move


def test_a_training_killed_at_any_upload_ends_with_the_same_bits(move_to, monkeypatch):
    rig = helpers.Rig(helpers.make_store(), optimizer="adam", ema_decay=0.9)
    variables = [*rig.model.variables, *rig.optimizer.variables, *rig.ema.averages]
    variables += [rig.global_step, rig.loss_scale.scale, rig.loss_scale.finite_steps]
    initial = [variable.numpy() for variable in variables]
    changes = []

    def train(url, kill_at=0):
        """Trains two steps, from what is published; returns all variables."""
        changes.clear()
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)
        with monkeypatch.context() as patch, mirrors.session():
            for name in ("_put", "_write", "_delete"):
                change = functools.partial(note, kill_at, getattr(store_kind, name))
                patch.setattr(store_kind, name, lambda *args, c=change: c(*args))
            folder = mirrors.open_run(url)
            with mirrors.publishing(folder, is_chief=True):
                checkpointer = checkpointing.Checkpointer(
                    folder,
                    state=rig.state.to_save(),
                    identity={},
                    max_to_keep=1,
                    publish=functools.partial(mirrors.publish, folder),
                )
                checkpointer.restore()
                step = int(rig.global_step.numpy())
                batches = rig.batches(step) if step < 2 else None
                for _ in range(step, 2):
                    rig.loop.run(batches, tf.constant(1))
                    checkpointer.save()
        return [variable.numpy() for variable in variables]

    def note(kill_at, change, *args):
        changes.append(args)
        if kill_at and len(changes) >= kill_at:
            raise _Killed
        return change(*args)

    store_kind = gfile_store.GfileStore
    expected = train("ram://bits/alone")
    count = len(changes)
    assert count >= 10
    for kill_at in range(1, count + 1, 2):  # `test_remote` kills at each, without bits.
        url = f"ram://bits/{kill_at}"
        move_to(f"killed-{kill_at}")
        with pytest.raises(_Killed):
            train(url, kill_at)
        move_to(f"other-{kill_at}")
        for actual, value in zip(train(url), expected, strict=True):
            np.testing.assert_array_equal(actual, value)


def _run(*arguments):
    with mirrors.session():
        resolved = flags.read_config(arguments)
        importlib.import_module(modes.MODES[resolved.config.run.mode].module).run(
            resolved.config
        )
    return resolved.config


def test_a_run_data_and_weights_at_urls_are_used_from_any_machine(
    move_to, monkeypatch, tmp_path
):
    shallow.shorten(monkeypatch)
    shallow.write_weights(tmp_path / "encoder.weights.h5")
    test_doctor.make_clean(tmp_path / "data")
    there = stores.open_store("memory://cloud", "data_dir")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            there.put(path, str(path.relative_to(tmp_path)))
    run = "memory://cloud/runs/first"
    config = _run(
        "--mode=train",
        f"--model_dir={run}",
        "--dataset=folder",
        "--data_dir=memory://cloud/data",
        "--num_classes=3",
        "--encoder_weights=memory://cloud/encoder.weights.h5",
        "--image_size=32",
        "--encoder_alpha=0.35",
        "--decoder_filters=8,8,8,8",
        "--batch_size=4",
        "--train_epochs=0",
        "--train_steps=2",
        "--distribution_strategy=one_device",
    )
    assert pathlib.Path(config.run.model_dir).is_relative_to(tmp_path / "caches")
    store = stores.open_store(run, "model_dir")
    published = store.list()
    assert "checkpoints/step-00000002/metadata.json" in published
    assert {"run.lock", "metrics.jsonl"} & set(published) == {"metrics.jsonl"}
    saved = json.loads(store.read("config.json"))
    assert saved["data_dir"] == "memory://cloud/data"  # Not where this machine has it.

    move_to("laptop")
    # By the program itself, which publishes in the end.
    monkeypatch.setattr(main, "_exit_at_once", lambda code: pytest.fail(str(code)))
    assert main.main(["--mode=report", f"--model_dir={run}"]) == 0
    assert set(store.list()) - set(published) == {"report.html"}
    page = store.read("report.html").decode()
    assert f"--mode=evaluate --model_dir={run}\n" in page
    move_to("other laptop")
    trained = restoring.load_run(run)
    assert trained.predict(np.zeros([40, 50, 3], np.uint8)).shape == (40, 50)
    mirrors._fetched.clear()


def test_of_the_data_sets_of_tfds_one_is_downloaded(tmp_path):
    for name in ("some_masks", "others"):
        store = stores.open_store("memory://tfds", "data_dir")
        store.write(f"{name}/small/1.0.0/features.json", b"{}")

    def find(folder, dataset="tfds:some_masks/small:1.0.0"):
        return remote_data.find_folder(
            data_settings.DataConfig(dataset=dataset, data_dir=folder)
        )

    folder = pathlib.Path(find("memory://tfds/"))
    assert (folder / "some_masks/small/1.0.0/features.json").read_bytes() == b"{}"
    assert not (folder / "others").exists()
    assert find("gs://tfds") == "gs://tfds"
    assert find("/data/tfds") == "/data/tfds"
    mirrors._fetched.clear()
