"""Brightness, contrast and saturation of images, in batches."""

import tensorflow as tf

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601). They add up to 1, so grey stays grey."""


def adjust(
    images: tf.Tensor,
    *,
    brightness: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor,
) -> tf.Tensor:
    """Changes brightness, then contrast, then saturation, each by a factor.

    As torchvision defines them, with x a pixel and luma(x) its brightness:

        brightness b:  x -> b x
        contrast c:    x -> c x + (1 - c) (mean of luma over the image)
        saturation s:  x -> s x + (1 - s) luma(x)

    The three make one affine map of each image. The mean after the first step is b
    times the mean of the image as it came, and the second step's constant is grey,
    which the third one keeps:

        x -> b c (s x + (1 - s) luma(x)) + b (1 - c) mean

    What differs from torchvision's `ColorJitter`: its order is drawn, not fixed; it
    clips (and rounds, for uint8) after each step, not once at the end; and its luma
    weighs red with 0.2989. Images in which no step leaves 0..255 come out alike, up to
    rounding.

    Args:
      images: uint8 or float32 [rows, height, width, 3], 0..255.
      brightness: float32 [rows], at least 0; 1 changes nothing, here and below.
      contrast: float32 [rows], at least 0.
      saturation: float32 [rows], at least 0.

    Returns:
      float32 [rows, height, width, 3], 0..255.
    """
    height, width, channels = images.shape[1:]
    images = tf.cast(images, tf.float32)
    # Over one axis at a time: twice as fast as over both.
    means = tf.reduce_mean(tf.reduce_mean(images, 1), 1)  # [rows, 3]
    mean_luma = tf.reduce_sum(means * LUMA_WEIGHTS, 1)
    to_luma = tf.repeat(tf.constant(LUMA_WEIGHTS)[:, tf.newaxis], channels, axis=1)
    saturation = saturation[:, tf.newaxis, tf.newaxis]
    maps = saturation * tf.eye(channels) + (1 - saturation) * to_luma
    maps *= (brightness * contrast)[:, tf.newaxis, tf.newaxis]  # [rows, 3, 3]
    offsets = (brightness * (1 - contrast) * mean_luma)[:, tf.newaxis, tf.newaxis]
    pixels = tf.matmul(tf.reshape(images, [-1, height * width, channels]), maps)
    pixels = tf.clip_by_value(pixels + offsets, 0, 255)
    return tf.reshape(pixels, [-1, height, width, channels])
