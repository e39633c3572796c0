"""What an export is made of, and what it is compared with."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from data.preparing import resizing
from models import stock
from trainer.assembly import trained_model
from trainer.exporting import network as network_lib
from trainer.metrics import predictions

_BATCH_SIZE = 4


def make_network(
    trained: trained_model.TrainedModel,
    *,
    gives_probabilities: bool,
    read_photos: Callable[[], np.ndarray],
) -> network_lib.Network:
    """Makes what the formats are written of.

    Args:
      trained: the model of a run, in float32.
      gives_probabilities: see `network.Network`.
      read_photos: see there, too.
    """
    resize = functools.partial(
        resizing.resize_image,
        size=trained.image_size,
        method=trained.resize,
        fill_value=trained.image_format.fill_value,
    )
    return network_lib.Network(
        model=trained.model,
        make_stock=lambda: stock.make_stock_model(trained.model),
        image_size=trained.image_size,
        num_channels=trained.image_format.num_channels,
        dtype=trained.image_format.dtype,
        gives_probabilities=gives_probabilities,
        # Of what was cropped away there are no labels.
        any_size=trained.resize != "crop",
        resize=resize,
        restore=functools.partial(resizing.restore_size, method=trained.resize),
        classify=predictions.most_likely_class,
        read_photos=read_photos,
    )


def label(trained: trained_model.TrainedModel, images: np.ndarray) -> np.ndarray:
    """Returns the labels that a model gives images of its own size.

    Args:
      trained: the model.
      images: [batch, *image_size, channels].

    Returns:
      uint8 [batch, *image_size].
    """
    labels = [
        predictions.most_likely_class(
            trained.model(images[first : first + _BATCH_SIZE], training=False)
        )
        for first in range(0, len(images), _BATCH_SIZE)
    ]
    return tf.concat(labels, axis=0).numpy().astype(np.uint8)
