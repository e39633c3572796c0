"""Gamma: darker or lighter, with black and white where they were."""

import math

import tensorflow as tf

from data import schema
from data.augmentation import kinds


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Pixels:
    """Returns the change x -> x^g, with x from 0 for black to 1 for white.

    g lies between 1 / (1 + `strength`) and 1 + `strength`; its logarithm is uniform, so
    that images become darker as often as lighter.
    """
    low, high = map(float, image_format.value_range)

    def change(
        images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: kinds.Rows
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del rows
        gammas = tf.exp(kinds.spread(draws, math.log1p(strength)))
        shares = (tf.cast(images, tf.float32) - low) * (1 / (high - low))
        # `pow` takes twenty times the time. The logarithm of black is -inf, and comes
        # back as 0.
        exponents = tf.math.log(shares) * gammas[:, tf.newaxis, tf.newaxis]
        return tf.exp(exponents) * (high - low) + low, labels

    return kinds.Pixels(1, change)
