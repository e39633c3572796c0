"""Devices: which ones a run uses, and in which number format they compute."""

import glob
import os
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from trainer import errors
from trainer.distributing import arrivals, membership
from trainer.settings import config as config_lib

_BFLOAT16_CAPABILITY = (8, 0)
_FLOAT16_CAPABILITY = (7, 0)
"""The first CUDA compute capabilities with tensor cores for the two formats."""

_VIRTUAL_GPU_MB = 4096
"""A logical GPU must have a bound, and TensorFlow tells no GPU's size before it has
initialised it. This is enough to try distribution with the tutorial's model."""

_DEVICE_FILES = "/dev/nvidia[0-9]*"
_DRIVER_FILES = "/proc/driver/nvidia/gpus/*"
"""Where Linux shows NVIDIA's GPUs: those that a process may open, and, in containers
too, those of the host."""


def find_unused_gpus() -> str | None:
    """Looks for GPUs of the host when TensorFlow sees none.

    Returns:
      What is there, and how to make TensorFlow see it; None if there is nothing, or if
      the environment hides it on purpose.
    """
    device_files = glob.glob(_DEVICE_FILES)
    count = max(len(device_files), len(glob.glob(_DRIVER_FILES)))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not count or hidden in ("", "-1"):
        return None
    if not tf.test.is_built_with_cuda():
        remedy = "it is built without CUDA, so install tensorflow[and-cuda]"
    elif not device_files:
        remedy = "hand them to the container (docker run --gpus=all)"
    elif hidden is not None:
        remedy = f"see whether CUDA_VISIBLE_DEVICES={hidden} names them"
    else:
        remedy = (
            "install their libraries with `pip install '.[gpu]'`, and see whether "
            "nvidia-smi finds the driver"
        )
    return f"TensorFlow sees none of the host's NVIDIA GPUs ({count}); {remedy}"


def create_strategy(config: config_lib.RuntimeConfig) -> tf.distribute.Strategy:
    """Makes the strategy; call it before anything else touches a device.

    Args:
      config: devices and strategy asked for.

    Returns:
      mirrored: over the GPUs asked for, or over the CPU's logical devices if there
      are none; one_device: on the first of them; multi_worker_mirrored: over all
      workers of TF_CONFIG, or of a step of Slurm.

    Raises:
      errors.ConfigError: if there are fewer devices than asked for.
      errors.PeerError: if another worker does not come in time.
    """
    if config.virtual_devices:
        _split_device(config)
    if config.num_gpus == 0:
        tf.config.set_visible_devices([], "GPU")
    elif not tf.config.list_physical_devices("GPU"):
        _say_why_not_on_gpus(config)
    if config.distribution_strategy == "multi_worker_mirrored":
        resolver = membership.resolve()
        membership.share_gpus()
        arrivals.wait_for_all(resolver, config.startup_timeout)
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    devices = _devices(config)
    if config.distribution_strategy == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if devices[0].startswith("CPU"):
        # NCCL, which MirroredStrategy takes by default, knows GPUs only.
        reduction = tf.distribute.ReductionToOneDevice()
        return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
    return tf.distribute.MirroredStrategy(devices)


def _say_why_not_on_gpus(config: config_lib.RuntimeConfig) -> None:
    """Says in the log that all GPUs were asked for, and that TensorFlow sees none.

    Raises:
      errors.ConfigError: if a number of them was asked for.
    """
    reason = find_unused_gpus()
    if config.num_gpus > 0:
        raise errors.ConfigError(
            f"--num_gpus={config.num_gpus}: "
            f"{reason or 'there is no GPU on this host'}, or use --num_gpus=0."
        )
    if reason:
        logging.warning("Training on the CPU: %s, or say --num_gpus=0.", reason)
    else:
        logging.info("No GPU in sight: training on the CPU.")


def check_batch_size(
    global_batch_size: int, num_replicas: int, num_parts: int = 1
) -> None:
    """Checks that the replicas can share a batch in equal parts.

    Args:
      global_batch_size: rows of a step.
      num_replicas: that share them.
      num_parts: that each replica splits its rows into.

    Raises:
      errors.ConfigError: if they cannot.
    """
    rest = global_batch_size % (num_replicas * num_parts)
    if rest:
        options = [global_batch_size - rest]
        options.append(options[0] + num_replicas * num_parts)
        options = " or ".join(str(option) for option in options if option)
        parts = f" times --gradient_accumulation_steps={num_parts}"
        raise errors.ConfigError(
            f"--batch_size={global_batch_size} is not divisible by {num_replicas} "
            f"replicas{parts * (num_parts > 1)}; use {options}."
        )


def check_xla(enable_xla: bool, num_replicas: int) -> None:
    """Checks that XLA can compile the step.

    Raises:
      errors.ConfigError: if it cannot.
    """
    if enable_xla and num_replicas > 1:
        raise errors.ConfigError(
            f"--enable_xla with {num_replicas} replicas: XLA cannot compile the sums "
            "over replicas in synchronized batch norm; use one replica "
            "(--distribution_strategy=one_device) or leave --enable_xla out."
        )


def resolve_precision(name: str) -> str:
    """Names the Keras dtype policy for `--mixed_precision`.

    Args:
      name: `auto`, `float32`, `bfloat16` or `float16`.

    Returns:
      `float32`, `mixed_bfloat16` or `mixed_float16`. `auto` is the latter two only
      where every visible GPU has tensor cores for them.
    """
    if name == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        visible = tf.config.get_visible_devices("GPU") if gpus else []
        details = [tf.config.experimental.get_device_details(gpu) for gpu in visible]
        capabilities = [d.get("compute_capability", (0, 0)) for d in details]
        name = _fastest_format(min(capabilities, default=(0, 0)))
    return name if name == "float32" else f"mixed_{name}"


def _fastest_format(capability: tuple[int, int]) -> str:
    if capability >= _BFLOAT16_CAPABILITY:
        return "bfloat16"
    return "float16" if capability >= _FLOAT16_CAPABILITY else "float32"


def _split_device(config: config_lib.RuntimeConfig) -> None:
    """Splits the CPU, or the one GPU, into `virtual_devices` logical devices."""
    gpus = [] if config.num_gpus == 0 else tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        raise errors.ConfigError(
            f"--virtual_devices={config.virtual_devices}: this host has {len(gpus)} "
            "GPUs, which need no splitting; leave the flag out or use --num_gpus=0."
        )
    count = config.virtual_devices
    if not gpus:
        options = [tf.config.LogicalDeviceConfiguration()] * count
        _configure(tf.config.list_physical_devices("CPU")[0], options, count)
        return
    options = tf.config.LogicalDeviceConfiguration(memory_limit=_VIRTUAL_GPU_MB)
    options = [options] * count
    _configure(gpus[0], options, count)


def _configure(
    device: tf.config.PhysicalDevice, options: Sequence[dict], count: int
) -> None:
    try:
        tf.config.set_logical_device_configuration(device, options)
    except RuntimeError as error:  # TensorFlow has initialised its devices.
        have = len(tf.config.list_logical_devices(device.device_type))
        if have < count:
            raise errors.ConfigError(
                f"--virtual_devices={count}: this process has set up {have} logical "
                "devices already; start a new one."
            ) from error


def _devices(config: config_lib.RuntimeConfig) -> list[str]:
    """Lists the devices of this host to use, as `GPU:0` or `CPU:0`."""
    gpus = tf.config.list_logical_devices("GPU")
    if config.num_gpus > len(gpus):
        raise errors.ConfigError(
            f"--num_gpus={config.num_gpus}, but TensorFlow sees {len(gpus)} GPUs on "
            "this host; use fewer."
        )
    count = len(gpus) if config.num_gpus == -1 else config.num_gpus
    if count:
        return [f"GPU:{index}" for index in range(count)]
    return [f"CPU:{index}" for index in range(max(config.virtual_devices, 1))]
