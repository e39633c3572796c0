"""What every mode sets for its whole process, and what only training asks for."""

import types

import pytest

from trainer import errors
from trainer.assembly import devices
from trainer.distributing import cluster, distribution
from trainer.settings import config as config_lib


def _make(**settings):
    given = {"num_gpus": 0, "distribution_strategy": "one_device", **settings}
    return config_lib.from_dict({"model_dir": "x", **given})


def test_parts_of_a_batch_limit_training_alone():
    config = _make(batch_size=2, gradient_accumulation_steps=4)
    with pytest.raises(errors.ConfigError, match="--gradient_accumulation_steps=4"):
        devices.prepare_devices(config)
    assert devices.prepare_devices(config, trains=False).num_replicas_in_sync == 1


def test_what_xla_cannot_compile_limits_training_alone(monkeypatch):
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(distribution, "create_strategy", lambda runtime: strategy)
    monkeypatch.setattr(cluster, "check_settings", lambda *arguments: None)
    config = _make(enable_xla=True)
    with pytest.raises(errors.ConfigError, match="--enable_xla with 2 replicas"):
        devices.prepare_devices(config)
    assert devices.prepare_devices(config, trains=False) is strategy
