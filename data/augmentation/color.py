"""Affine changes of the colours of images, in batches.

A map is a pair of matrices, float32 [rows, channels, channels], and offsets, float32
[rows, channels]: for each image a matrix M and an offset o. A pixel x, with a number
for each channel, becomes M x + o.
"""

import tensorflow as tf

Map = tuple[tf.Tensor, tf.Tensor]


def scale_from(centers: tf.Tensor, factors: tf.Tensor) -> Map:
    """Returns the maps x -> f x + (1 - f) c, which scale the distance from c by f.

    Args:
      centers: float32 [rows, channels], the c of each image.
      factors: float32 [rows], the f of each image.
    """
    factors = factors[:, tf.newaxis]
    matrices = factors[..., tf.newaxis] * tf.eye(centers.shape[1])
    return matrices, (1 - factors) * centers


def compose(outer: Map, inner: Map) -> Map:
    """Returns the maps that take a pixel through `inner` and then through `outer`."""
    # No product of matrices: GPUs round its factors to 11 bits.
    products = outer[0][:, :, :, tf.newaxis] * inner[0][:, tf.newaxis]
    return tf.reduce_sum(products, 2), _transform(outer, inner[1])


def _transform(color_map: Map, pixels: tf.Tensor) -> tf.Tensor:
    """Maps one pixel of each image, float32 [rows, channels]."""
    matrices, offsets = color_map
    return tf.reduce_sum(matrices * pixels[:, tf.newaxis], 2) + offsets


def transform_means(color_map: Map, means: tf.Tensor) -> tf.Tensor:
    """Returns what becomes of the mean of each channel, float32 [rows, channels]."""
    return _transform(color_map, means)


def channel_means(images: tf.Tensor) -> tf.Tensor:
    """Returns the mean of each channel of each image, float32 [rows, channels]."""
    # Over one axis at a time: twice as fast as over both.
    return tf.reduce_mean(tf.reduce_mean(tf.cast(images, tf.float32), 1), 1)


def apply(images: tf.Tensor, color_map: Map, value_range: tuple[int, int]) -> tf.Tensor:
    """Maps the pixels of images, and clips them once.

    Args:
      images: uint8 or float32 [rows, height, width, channels].
      color_map: for each image.
      value_range: the least and the greatest value that images have.

    Returns:
      float32 of the same shape, within the range.
    """
    matrices, offsets = color_map
    height, width, channels = images.shape[1:]
    pixels = tf.reshape(tf.cast(images, tf.float32), [-1, height * width, channels])
    pixels = tf.matmul(pixels, matrices, transpose_b=True)
    # A line of offsets for each image: single ones are added in twice the time.
    pixels = tf.reshape(pixels, [-1, height, width * channels])
    pixels += tf.tile(offsets, [1, width])[:, tf.newaxis]
    pixels = tf.clip_by_value(pixels, *map(float, value_range))
    return tf.reshape(pixels, [-1, height, width, channels])


def require_rgb(num_channels: int) -> None:
    """Checks that images have colours.

    Raises:
      ValueError: if they do not have three channels.
    """
    if num_channels != 3:
        raise ValueError(
            "it is for images of 3 channels, red, green and blue, and these have "
            f"{num_channels} (--image_channels); give it 0"
        )
