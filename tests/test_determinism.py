"""An op that cannot be deterministic ends a run in one sentence."""

import sys

import pytest
import tensorflow as tf

from trainer import errors, main
from trainer.assembly import devices
from trainer.running import determinism
from trainer.settings import config

_POOLING = (
    "Graph execution error:\n\nDetected at node gradients/MaxPoolGrad defined at:\n"
    "GPU MaxPool gradient ops do not yet have a deterministic XLA implementation.\n"
    "\t [[{{node gradients/MaxPoolGrad}}]]\n\ttf2xla conversion failed [Op:__inference]"
)
_COUNTING = (
    "{{function_node __wrapped__DenseBincount}} Determinism is not yet supported in "
    "GPU implementation of DenseBincount. [Op:DenseBincount]"
)


def _raise_inside(error, **settings):
    settings = config.from_dict({"model_dir": "x", **settings})
    with determinism.explaining_refusal(settings):
        raise error


@pytest.mark.parametrize(
    ("text", "enable_xla", "expected"),
    [
        (
            _POOLING,
            True,
            "GPU MaxPool gradient ops do not yet have a deterministic XLA "
            "implementation); leave --enable_xla or --deterministic out.",
        ),
        (
            _COUNTING,
            False,
            "Determinism is not yet supported in GPU implementation of DenseBincount); "
            "leave --deterministic out.",
        ),
    ],
)
def test_what_is_refused_is_said_with_the_flags(text, enable_xla, expected):
    error = tf.errors.UnimplementedError(None, None, text)
    with pytest.raises(errors.ConfigError) as info:
        _raise_inside(error, deterministic=True, enable_xla=enable_xla)
    start = (
        "--deterministic: on these devices, TensorFlow cannot compute all of this run "
        "deterministically ("
    )
    assert str(info.value) == start + expected


@pytest.mark.parametrize(
    ("error", "deterministic"),
    [
        (tf.errors.UnimplementedError(None, None, _POOLING), False),
        (tf.errors.UnimplementedError(None, None, "something else"), True),
        (tf.errors.InternalError(None, None, _POOLING), True),
        (errors.CheckpointError("not deterministic"), True),
    ],
)
def test_other_errors_are_left_alone(error, deterministic):
    with pytest.raises(type(error)) as info:
        _raise_inside(error, deterministic=deterministic)
    assert info.value is error


def test_the_program_ends_so(monkeypatch, tmp_path, capsys):
    def refuse(*_):
        raise tf.errors.UnimplementedError(None, None, _COUNTING)

    monkeypatch.setattr(devices, "prepare_devices", refuse)
    monkeypatch.setattr(main, "_exit_at_once", sys.exit)
    with pytest.raises(SystemExit) as info:
        main.main(["--mode=benchmark", "--deterministic", f"--model_dir={tmp_path}"])
    assert info.value.code == errors.ConfigError.exit_code
    assert "leave --deterministic out.\n" in capsys.readouterr().err
