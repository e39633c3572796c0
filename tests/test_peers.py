"""A worker that is lost, at any moment of any mode, is no mistake of this one's."""

import json
import sys
import types
from unittest import mock

import pytest
import tensorflow as tf

from trainer import errors, flags, main
from trainer.assembly import devices
from trainer.distributing import cluster, peers
from trainer.modes import evaluate
from trainer.run_folder import run_settings

_STRATEGY = "multi_worker_mirrored"


def _set_cluster(monkeypatch, *workers):
    config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def _exit_code(monkeypatch, *arguments):
    """Runs the program in this process; returns what it would exit with."""
    monkeypatch.setattr(main, "_exit_at_once", sys.exit)
    with pytest.raises(SystemExit) as info:
        main.main([*arguments, f"--distribution_strategy={_STRATEGY}"])
    return info.value.code


def _lose(*arguments):
    raise tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore")


@pytest.mark.parametrize("mode", ["train", "train_and_evaluate", "benchmark"])
def test_one_lost_while_devices_are_made_ready_is_waited_for_again(
    monkeypatch, tmp_path, capsys, mode
):
    _set_cluster(monkeypatch, "a:1", "b:1")
    monkeypatch.setattr(devices, "prepare_devices", _lose)
    code = _exit_code(monkeypatch, f"--mode={mode}", f"--model_dir={tmp_path}")
    assert code == errors.PeerError.exit_code
    said = capsys.readouterr().err
    assert "Error: Another worker went away" in said
    assert said.endswith("(Connection reset by peer)\n")


def test_one_lost_during_an_evaluation_is_waited_for_again(monkeypatch, tmp_path):
    _set_cluster(monkeypatch, "a:1", "b:1")
    config, _ = flags.read_config(["--mode=train", f"--model_dir={tmp_path}"])
    run_settings.write(str(tmp_path), config)
    monkeypatch.setattr(evaluate, "_score_checkpoint", _lose)
    code = _exit_code(monkeypatch, "--mode=evaluate", f"--model_dir={tmp_path}")
    assert code == errors.PeerError.exit_code


@pytest.mark.parametrize(
    ("index", "expected"), [(0, ["report", "wait"]), (1, ["wait"])]
)
def test_no_worker_of_an_evaluation_is_done_before_its_report(
    monkeypatch, index, expected
):
    """Kubernetes would not start it again, should the chief be killed there."""
    stand_in, calls = mock.MagicMock(), []
    for name in ("restoring", "layers", "devices", "scoring", "evaluations"):
        monkeypatch.setattr(evaluate, name, stand_in)
    prepared = types.SimpleNamespace(prepare_evaluation=lambda *_: (stand_in, "path"))
    monkeypatch.setattr(evaluate, "evaluation", prepared)
    monkeypatch.setattr(cluster, "worker_index", lambda _: index)
    monkeypatch.setattr(cluster, "wait_for_chief", lambda _: calls.append("wait"))
    monkeypatch.setattr(evaluate, "_report", lambda *_: calls.append("report"))
    evaluate._score_checkpoint(stand_in)
    assert calls == expected


def test_workers_that_have_two_exported_files_do_not_score_them_as_one(monkeypatch):
    about = types.SimpleNamespace(step=4, weights="a")
    monkeypatch.setattr(evaluate, "devices", mock.MagicMock())
    monkeypatch.setattr(evaluate.description, "read_model", lambda _: about)
    monkeypatch.setattr(cluster, "num_workers", lambda _: 2)
    monkeypatch.setattr(
        cluster, "gather", lambda _, text: [text, text.replace('"a"', '"b"')]
    )
    message = r'do not agree in its weights \("a" on worker 0, "b" on worker 1\); give'
    with pytest.raises(errors.ConfigError, match=message):
        evaluate._score_file(mock.MagicMock())


@pytest.mark.parametrize(
    ("workers", "strategy"), [(["a:1", "b:1"], "mirrored"), (["a:1"], _STRATEGY)]
)
def test_where_there_is_no_other_the_error_is_left_alone(
    monkeypatch, workers, strategy
):
    _set_cluster(monkeypatch, *workers)
    with pytest.raises(tf.errors.UnavailableError), peers.explaining_loss(strategy):
        _lose()


def test_a_lack_of_memory_is_no_loss(monkeypatch, tmp_path):
    def fill(config):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    _set_cluster(monkeypatch, "a:1", "b:1")
    monkeypatch.setattr(devices, "prepare_devices", fill)
    code = _exit_code(monkeypatch, "--mode=train", f"--model_dir={tmp_path}")
    assert code == errors.OutOfMemoryError.exit_code
