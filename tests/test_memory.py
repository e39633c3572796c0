"""Out of memory ends in one sentence; a full disk and other errors are left alone."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import errors
from trainer.running import memory
from trainer.settings import config


def _raise_inside(error, **settings):
    settings = config.from_dict({"model_dir": "x", **settings})
    with memory.explaining_shortage(settings):
        raise error


def _real_errors():
    """Returns what TensorFlow and NumPy raise for more memory than any host has."""
    found = []
    for allocate in (
        lambda: tf.zeros([2**50]),
        lambda: tf.function(lambda n: tf.reduce_sum(tf.random.uniform([n, 2**20])))(
            tf.constant(2**29)
        ),
        lambda: np.empty(2**60, np.uint8),
    ):
        with pytest.raises(Exception) as info:
            allocate()
        found.append(info.value)
    return found


def test_what_is_raised_for_too_much_memory_is_known():
    for error in _real_errors():
        with pytest.raises(errors.OutOfMemoryError) as info:
            _raise_inside(error, batch_size=48, image_size=(96, 64))
        text = str(info.value)
        assert "--batch_size=48 or --image_size=96,64" in text
        assert "--mixed_precision=bfloat16" in text
        assert "{{" not in text and "[Op" not in text and "\n" not in text
        assert text.count("--cache=disk") == isinstance(error, MemoryError)
        assert info.value.exit_code == errors.ConfigError.exit_code


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            tf.errors.ResourceExhaustedError,
            "failed to allocate memory [Op:Conv2D]",
        ),
        (
            tf.errors.ResourceExhaustedError,
            "Out of memory while trying to allocate 8589934592 bytes.",
        ),
        (
            tf.errors.InternalError,
            "Failed copying input tensor from CPU:0 to GPU:0 in order to run Add: Dst "
            "tensor is not initialized. [Op:Add]",
        ),
    ],
)
def test_what_gpus_say_is_known(kind, text):
    with pytest.raises(errors.OutOfMemoryError, match=r"^A device has no memory left"):
        _raise_inside(kind(None, None, text))


def test_a_run_in_16_bits_is_not_told_to_use_them():
    with pytest.raises(errors.OutOfMemoryError) as info:
        _raise_inside(MemoryError("no"), mixed_precision="float16", cache="none")
    assert str(info.value) == (
        "The host has no memory left (no): lower --batch_size=64 or "
        "--image_size=128,128 (--mixed_precision=float16 saves memory already)."
    )


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "/run/x; No space left on device"),
        tf.errors.InternalError(None, None, "something else"),
        errors.CheckpointError("out of memory"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as info:
        _raise_inside(error)
    assert info.value is error


_VERSIONS = {
    "second": ("", "memory.max", "memory.current", ""),
    "first": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
"""Of control groups: a folder, two files, and the beginning of names."""


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize(
    ("limit", "expected"),
    # Of 900 bytes in use, 500 are copies of files that can be read again.
    [("1000", 600), ("950", 550), ("400", 0), ("max", None), (str(2**63), None)],
)
def test_caches_of_a_container_are_free(
    monkeypatch, tmp_path, version, limit, expected
):
    folder, limit_name, used_name, prefix = _VERSIONS[version]
    (tmp_path / folder).mkdir(exist_ok=True)
    sizes = {"anon": 1, "inactive_anon": 10, "active_anon": 20, "shmem": 30}
    sizes |= {"file": 530, "inactive_file": 300, "active_file": 200, "unevictable": 7}
    lines = [f"{prefix}{name} {size}\n" for name, size in sizes.items()]
    if prefix:  # Without the groups inside this one.
        lines += ["inactive_file 1\n", "active_file 2\n"]
    (tmp_path / folder / "memory.stat").write_text("".join(lines))
    (tmp_path / folder / limit_name).write_text(f"{limit}\n")
    (tmp_path / folder / used_name).write_text("900\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    if expected is None:
        assert memory.free_bytes() > 2**26  # What the host has.
    else:
        assert memory.free_bytes() == expected
