"""Which devices a run uses, and what it says when they are not there."""

import re

import pytest
import tensorflow as tf

from tests import helpers
from trainer import errors, tensorflow_private
from trainer.distributing import distribution
from trainer.settings import config

_HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
on_cpu_host = pytest.mark.skipif(_HAS_GPU, reason="says what a host without GPU does")


@pytest.fixture(autouse=True)
def _set_up_devices():
    """Initialises the four logical CPUs of conftest, which no test may change."""
    assert len(tf.config.list_logical_devices("CPU")) == 4


@pytest.mark.parametrize(
    ("batch_size", "replicas", "options"),
    [
        # 30 = 7 * 4 + 2
        (30, 4, "28 or 32"),
        (7, 2, "6 or 8"),
        # There is no batch of none.
        (3, 4, "4"),
    ],
)
def test_batch_that_replicas_cannot_share_is_refused(batch_size, replicas, options):
    message = (
        rf"^--batch_size={batch_size} is not divisible by {replicas} replicas; use "
        rf"{options}\.$"
    )
    with pytest.raises(errors.ConfigError, match=message):
        distribution.check_batch_size(batch_size, replicas)


def test_batch_that_replicas_cannot_split_into_parts_is_refused():
    message = (
        "^--batch_size=8 is not divisible by 2 replicas times "
        r"--gradient_accumulation_steps=3; use 6 or 12\.$"
    )
    with pytest.raises(errors.ConfigError, match=message):
        distribution.check_batch_size(8, 2, 3)
    distribution.check_batch_size(12, 2, 3)


@pytest.mark.parametrize(("batch_size", "replicas"), [(8, 1), (8, 4), (4, 4)])
def test_batch_that_replicas_can_share_is_allowed(batch_size, replicas):
    distribution.check_batch_size(batch_size, replicas)


def test_xla_with_several_replicas_is_refused():
    message = (
        "^--enable_xla with 2 replicas: .*; use one replica "
        r"\(--distribution_strategy=one_device\) or leave --enable_xla out"
    )
    with pytest.raises(errors.ConfigError, match=message):
        distribution.check_xla(True, 2)


@pytest.mark.parametrize(("enable_xla", "replicas"), [(True, 1), (False, 2)])
def test_xla_on_one_replica_is_allowed(enable_xla, replicas):
    distribution.check_xla(enable_xla, replicas)


@on_cpu_host
def test_auto_precision_of_a_cpu_is_float32():
    assert distribution.resolve_precision("auto") == "float32"


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("float32", "float32"),
        ("bfloat16", "mixed_bfloat16"),
        ("float16", "mixed_float16"),
    ],
)
def test_precision_asked_for_is_the_policy(name, policy):
    assert distribution.resolve_precision(name) == policy


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((0, 0), "float32"),  # Not known.
        ((6, 1), "float32"),  # Pascal.
        ((7, 0), "float16"),  # Volta.
        ((7, 5), "float16"),  # Turing.
        ((8, 0), "bfloat16"),  # Ampere.
        ((8, 9), "bfloat16"),  # Ada.
        ((9, 0), "bfloat16"),  # Hopper.
        ((10, 0), "bfloat16"),  # Blackwell.
    ],
)
def test_fastest_format_of_a_compute_capability(capability, expected):
    assert distribution._fastest_format(capability) == expected


@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        ([(9, 0), (9, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 5)], "mixed_float16"),
        ([(6, 1), (9, 0)], "float32"),
        ([(9, 0), None], "float32"),
    ],
)
def test_auto_precision_is_what_the_oldest_gpu_computes_fast(
    capabilities, policy, monkeypatch
):
    details = [{"compute_capability": c} if c else {} for c in capabilities]
    gpus = list(range(len(details)))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: gpus)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", details.__getitem__
    )
    assert distribution.resolve_precision("auto") == policy


@pytest.fixture
def gpu_files(monkeypatch, tmp_path):
    """Lets files in a folder, below `dev` and `proc`, stand for GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("dev", "proc"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(distribution, "_DEVICE_FILES", f"{tmp_path}/dev/nvidia[0-9]*")
    monkeypatch.setattr(distribution, "_DRIVER_FILES", f"{tmp_path}/proc/*")
    return tmp_path


@on_cpu_host
def test_more_gpus_than_there_are_is_refused(gpu_files):
    message = r"^--num_gpus=99: there is no GPU on this host, or use --num_gpus=0\.$"
    with pytest.raises(errors.ConfigError, match=message):
        distribution.create_strategy(config.RuntimeConfig(num_gpus=99))


@on_cpu_host
def test_no_gpu_on_the_host_is_no_warning(gpu_files, caplog):
    (gpu_files / "dev" / "nvidiactl").touch()  # No device, but there with the driver.
    with caplog.at_level("INFO"):
        distribution.create_strategy(config.RuntimeConfig())
    found = [r.levelname for r in caplog.records if r.name == "absl"]
    assert found == ["INFO"]


@on_cpu_host
@pytest.mark.parametrize(
    ("files", "has_cuda", "visible", "remedy"),
    [
        (("dev/nvidia0",), False, None, r"install tensorflow\[and-cuda\]"),
        (("proc/0000:01",), True, None, "docker run --gpus=all"),
        (("dev/nvidia0", "proc/0000:01"), True, "7", "CUDA_VISIBLE_DEVICES=7 names"),
        (("dev/nvidia0", "proc/0000:01"), True, None, "pip install '.\\[gpu\\]'"),
    ],
)
def test_gpus_that_tensorflow_does_not_see_are_a_warning_with_the_remedy(
    gpu_files, caplog, monkeypatch, files, has_cuda, visible, remedy
):
    for name in files:
        (gpu_files / name).touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: has_cuda)

    distribution.create_strategy(config.RuntimeConfig())

    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    message = rf"sees none of the host's NVIDIA GPUs \(1\); .*{remedy}.*--num_gpus=0"
    assert re.search(message, warning)
    with pytest.raises(errors.ConfigError, match=f"^--num_gpus=2: .*{remedy}"):
        distribution.create_strategy(config.RuntimeConfig(num_gpus=2))


@on_cpu_host
@pytest.mark.parametrize(("num_gpus", "visible"), [(0, None), (-1, ""), (-1, "-1")])
def test_gpus_that_are_hidden_on_purpose_are_no_warning(
    gpu_files, caplog, monkeypatch, num_gpus, visible
):
    (gpu_files / "dev" / "nvidia0").touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    distribution.create_strategy(config.RuntimeConfig(num_gpus=num_gpus))
    assert [r for r in caplog.records if r.levelname == "WARNING"] == []


def test_virtual_devices_of_several_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    message = (
        "^--virtual_devices=2: this host has 2 GPUs, .*; leave the flag out or use "
        r"--num_gpus=0\.$"
    )
    with pytest.raises(errors.ConfigError, match=message):
        distribution.create_strategy(config.RuntimeConfig(virtual_devices=2))


@on_cpu_host
def test_more_virtual_devices_than_the_process_has_set_up_are_refused():
    message = "^--virtual_devices=5: this process has set up 4 logical devices already"
    with pytest.raises(errors.ConfigError, match=message):
        distribution.create_strategy(config.RuntimeConfig(virtual_devices=5))


@on_cpu_host
@pytest.mark.parametrize("num_gpus", [-1, 0])
@pytest.mark.parametrize(("virtual_devices", "replicas"), [(0, 1), (2, 2), (4, 4)])
def test_mirrored_runs_on_the_virtual_cpus(num_gpus, virtual_devices, replicas):
    strategy = distribution.create_strategy(
        config.RuntimeConfig(num_gpus=num_gpus, virtual_devices=virtual_devices)
    )
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    names = [device[-5:] for device in strategy.extended.worker_devices]
    assert names == [f"CPU:{index}" for index in range(replicas)]


@on_cpu_host
def test_mirrored_sums_over_virtual_cpus():
    strategy = distribution.create_strategy(config.RuntimeConfig(virtual_devices=3))

    @tf.function
    def total():
        def replica_total():
            context = tf.distribute.get_replica_context()
            index = tf.cast(context.replica_id_in_sync_group, tf.float32)
            return context.all_reduce("SUM", index + 1.0)

        return strategy.experimental_local_results(strategy.run(replica_total))

    # 1 + 2 + 3, on each of them.
    assert [float(value) for value in total()] == [6.0, 6.0, 6.0]


@on_cpu_host
def test_one_device_is_one_replica_on_the_first_cpu():
    strategy = distribution.create_strategy(
        config.RuntimeConfig(distribution_strategy="one_device", virtual_devices=2)
    )
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert strategy.extended.worker_devices[0].endswith("CPU:0")


@pytest.mark.parametrize("replicas", [1, 2])
def test_no_iterator_of_a_strategy_has_an_autotuner(replicas, monkeypatch):
    begun = []
    begin = tf.data.Dataset.__iter__

    def note_and_begin(dataset):
        begun.append(dataset.options().autotune.enabled)
        return begin(dataset)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", note_and_begin)
    iterator = tensorflow_private.distribute(
        helpers.make_strategy(replicas), lambda _: tf.data.Dataset.range(4)
    )
    # That of each device; the host's has the options that it is made with.
    assert begun == [False] * replicas
    next(iterator)


def test_determinism_of_the_process_is_known(monkeypatch):
    assert not tensorflow_private.is_deterministic()
    tf.config.experimental.enable_op_determinism()
    assert tensorflow_private.is_deterministic()
    # Of a TensorFlow that does not tell, the worse is assumed.
    monkeypatch.setattr(tensorflow_private, "config", object())
    assert tensorflow_private.is_deterministic()
