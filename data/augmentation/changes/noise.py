"""Gaussian noise."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Pixels:
    """Returns the change that adds noise to each number of an image, by itself.

    Its deviation is drawn for the image, from 0 to `strength` of the range of values;
    what leaves the range is clipped.
    """
    low, high = map(float, image_format.value_range)

    def change(
        images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: kinds.Rows
    ) -> tuple[tf.Tensor, tf.Tensor]:
        deviations = draws[..., tf.newaxis, tf.newaxis] * (strength * (high - low))
        noise = rows.normal(tuple(images.shape)) * deviations
        noisy = tf.cast(images, tf.float32) + noise
        return tf.clip_by_value(noisy, low, high), labels

    return kinds.Pixels(1, change)
