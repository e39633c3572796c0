"""Gaussian blur."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds

_LEAST_DEVIATION = 1e-3
"""In pixels; a neighbour then has no weight that a float could hold."""


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Pixels:
    """Returns the change that blurs by a deviation drawn from 0 to `strength` pixels.

    At the edge of an image the weights of the pixels that there are add up to 1.
    """
    del image_format

    def change(
        images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: kinds.Rows
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del rows
        deviations = tf.maximum(draws[:, 0] * strength, _LEAST_DEVIATION)
        return _blur(tf.cast(images, tf.float32), deviations), labels

    return kinds.Pixels(1, change)


def _blur(images: tf.Tensor, deviations: tf.Tensor) -> tf.Tensor:
    """Blurs float32 [rows, height, width, channels] by float32 [rows]."""
    height, width, channels = images.shape[1:]
    # Products with matrices of weights; a convolution has one kernel for all images.
    columns = tf.reshape(images, [-1, height, width * channels])
    columns = tf.matmul(_weights(height, deviations), columns)
    lines = tf.reshape(tf.transpose(columns, [0, 2, 1]), [-1, width, channels * height])
    lines = tf.matmul(_weights(width, deviations), lines)
    lines = tf.reshape(lines, [-1, width * channels, height])
    return tf.reshape(tf.transpose(lines, [0, 2, 1]), [-1, height, width, channels])


def _weights(length: int, deviations: tf.Tensor) -> tf.Tensor:
    """Returns weights, float32 [rows, length, length], of old pixels for new ones."""
    places = tf.range(length, dtype=tf.float32)
    distances = places[:, tf.newaxis] - places
    scaled = distances / deviations[:, tf.newaxis, tf.newaxis]
    weights = tf.exp(-0.5 * scaled * scaled)
    return weights / tf.reduce_sum(weights, 2, keepdims=True)
