"""The loss of training, as the settings say."""

import concurrent.futures
import functools

import numpy as np
from absl import logging

from data import schema
from data.stores import balance
from trainer import errors
from trainer.losses import registry as loss_registry
from trainer.losses import weighted_sum
from trainer.settings import config as config_lib
from trainer.settings import fields


def make_loss(
    config: config_lib.Config,
    info: schema.DatasetInfo,
    opening: concurrent.futures.Future,
) -> weighted_sum.WeightedSum:
    """Returns the loss of training, its class weights worked out.

    Args:
      config: all settings.
      info: the classes.
      opening: gives the examples, which are waited for if their labels count.

    Raises:
      errors.ConfigError: if there are not as many weights as classes.
    """
    given = config.loss.class_weights
    make = functools.partial(
        loss_registry.make,
        config.loss.loss,
        info.num_classes,
        options=config.loss.options(),
    )
    if not given:
        return make()
    if given[0] in balance.METHODS:
        counts = balance.count_labels(opening.result())[: info.num_classes]
        weights = balance.class_weights(counts, given[0])
    elif len(given) == info.num_classes:
        weights = np.array(given, np.float64)
    else:
        raise errors.ConfigError(
            f"--class_weights={fields.format_value(given)}: these are {len(given)} "
            f"numbers for {info.num_classes} classes "
            f"({', '.join(info.class_names[:5])}{', ...' * (info.num_classes > 5)}); "
            "give one for each."
        )
    named = zip(info.class_names, weights, strict=True)
    text = ", ".join(f"{name} {weight:.4g}" for name, weight in named)
    logging.info("Class weights: %s.", text)
    return make(class_weights=weights)
