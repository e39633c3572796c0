"""A few photos of a split, without opening all of it."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
from absl import logging

from data import pipeline, schema
from data.stores import reading
from trainer import errors
from trainer.assembly import inputs, trained_model
from trainer.run_folder import golden
from trainer.settings import config as config_lib

NOT_AT_HAND = (
    schema.DataError,
    errors.ConfigError,
    errors.RemoteError,
    errors.WriteError,
)
"""What opening a split may raise. Of these, only the first is of data on this machine:
a URL may name nothing, not answer, or there is no room to download it."""
_NUM_FOR_CALIBRATION = 32
"""With 16 or 100 of them, as many labels of files in 8 bits were right."""


def find_golden(
    config: config_lib.Config, trained: trained_model.TrainedModel
) -> golden.Golden:
    """Returns the photos that an export is proved by.

    They are those of the run's folder; where it has none, of its evaluation split.

    Args:
      config: all settings.
      trained: the model of the run.

    Raises:
      errors.ExportError: if there are neither.
      errors.RunError: if the folder has none and the data set, behind a URL, does not
        answer or cannot be downloaded; a later try may help.
    """
    if found := golden.read(config.run.model_dir):
        return found
    try:
        return read_some(config, trained, golden.NUM_PHOTOS, is_training=False)
    except (schema.DataError, errors.ConfigError) as error:
        reason = str(error).rstrip(".")
        raise errors.ExportError(
            f"{config.run.model_dir} kept no photos to prove an export by, and its "
            f"data set cannot take their place ({reason}); say where that is, "
            "with --data_dir."
        ) from error


def find_calibration(
    config: config_lib.Config,
    trained: trained_model.TrainedModel,
    instead: golden.Golden,
) -> np.ndarray:
    """Returns photos of the training split; of others where that is not at hand.

    Args:
      config: all settings.
      trained: the model of the run.
      instead: photos to take then.

    Returns:
      Images, [photos, *image_size, channels].
    """
    try:
        some = read_some(config, trained, _NUM_FOR_CALIBRATION, is_training=True)
        return some.images
    except NOT_AT_HAND as error:
        logging.warning(
            "Calibrated by the %d photos of the proof: the training split is not at "
            "hand (%s).",
            len(instead.images),
            str(error).rstrip("."),
        )
        return instead.images


def read_some(
    config: config_lib.Config,
    trained: trained_model.TrainedModel,
    count: int,
    *,
    is_training: bool,
) -> golden.Golden:
    """Reads photos of a split of the run's data set, as they enter its model.

    Args:
      config: all settings.
      trained: the model of the run.
      count: how many, at most; those that cannot be used are left out.
      is_training: whether it is the split to train on.

    Raises:
      errors.RunError: if the split, behind a URL, cannot be had.
      schema.DataError: if the split cannot be opened, or none can be used.
    """
    source = inputs.open_source(config, is_training=is_training)
    info = inputs.resolve_info(config, source, trained.class_names)
    info = dataclasses.replace(info, image_format=trained.image_format)
    as_it_is = tf.autograph.experimental.do_not_convert
    preprocessor = inputs.make_preprocessor(config, info)
    preprocess = as_it_is(functools.partial(preprocessor, catches_errors=True))
    if isinstance(source, schema.RandomAccessSource):
        ids = golden.choose(len(source), count)
        raw = tf.data.Dataset.from_tensor_slices(ids).map(as_it_is(source.load))
    else:
        raw = source.examples(0, min(count, len(source)))
    try:
        rows = pipeline.end_at_once(raw.map(preprocess))
        usable = [row for row in rows if not row["problem"]]
    except reading.READ_ERRORS as error:
        raise schema.DataError(f"{source.name}: {error.message}") from error
    if not usable:
        raise schema.DataError(f"{source.name}: none of {count} examples can be used")
    return golden.Golden(
        images=np.stack([row["image"].numpy() for row in usable]),
        labels=np.stack([row["label"].numpy() for row in usable]),
        names=tuple(reading.name_as_text(row["name"].numpy()) for row in usable),
    )
