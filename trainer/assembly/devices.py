"""The devices of a run, and what holds for the whole process."""

import keras
import tensorflow as tf
from absl import logging

from trainer.distributing import cluster, distribution
from trainer.settings import config as config_lib


def prepare_devices(
    config: config_lib.Config, *, trains: bool = True
) -> tf.distribute.Strategy:
    """Sets what holds for the whole process, and makes the strategy.

    Args:
      config: all settings.
      trains: whether there will be training steps, which alone split the batch into
        the parts of `--gradient_accumulation_steps` and are compiled by
        `--enable_xla`.

    Raises:
      errors.ConfigError: if settings do not fit the devices, or those of the other
        workers.
    """
    strategy = distribution.create_strategy(config.runtime)
    policy = distribution.resolve_precision(config.runtime.mixed_precision)
    # Workers with other GPUs may not mean the same by `auto`.
    cluster.check_settings(strategy, {**config.as_dict(), "mixed_precision": policy})
    num_replicas = strategy.num_replicas_in_sync
    num_parts = config.train.gradient_accumulation_steps if trains else 1
    distribution.check_batch_size(config.train.batch_size, num_replicas, num_parts)
    distribution.check_xla(trains and config.runtime.enable_xla, num_replicas)
    if config.run.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.run.seed)
    keras.config.set_dtype_policy(policy)
    logging.info("%d replicas, precision %s.", num_replicas, policy)
    return strategy


def describe(strategy: tf.distribute.Strategy) -> list[str]:
    """Names the devices of this process in words: the kind of each GPU, or its name."""
    names = []
    for device in strategy.extended.worker_devices:
        parsed = tf.DeviceSpec.from_string(device)
        name = f"{parsed.device_type}:{parsed.device_index}"
        if parsed.device_type == "GPU":
            gpus = tf.config.list_physical_devices("GPU")
            if parsed.device_index < len(gpus):
                details = tf.config.experimental.get_device_details(
                    gpus[parsed.device_index]
                )
                name += f" {details.get('device_name', '')}".rstrip()
        names.append(name)
    return names
