"""Cutout: a box of each example is taken away."""

import tensorflow as tf

from data import schema
from data.augmentation import kinds, mixing


def make(strength: float, image_format: schema.ImageFormat) -> kinds.Pixels:
    """Returns the change that fills a box in the image and ignores it in the label.

    Height and width of the box are `strength` of those of the example. Its centre is
    drawn from all of the example, so at the edge a part of the box is outside (DeVries
    and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
    2017).
    """
    fill_value = image_format.fill_value

    def change(
        images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: kinds.Rows
    ) -> tuple[tf.Tensor, tf.Tensor]:
        del rows
        sides = tf.fill(tf.shape(draws)[:1], strength)
        is_cut = mixing.boxes(draws, sides, tuple(images.shape[1:3]))
        filling = tf.fill(tf.shape(images), tf.cast(fill_value, images.dtype))
        ignored = tf.fill(tf.shape(labels), tf.constant(schema.IGNORE_LABEL, tf.uint8))
        return mixing.paste(is_cut, (filling, ignored), (images, labels))

    return kinds.Pixels(2, change)
