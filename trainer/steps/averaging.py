"""One prediction from several variants of an image."""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from trainer.settings import variants as variants_lib


class Averaged:
    """A model whose probabilities are the mean over variants of each image.

    With p(x) the softmax of the model's logits for the image x, S(x, s) the image
    resized by the factor s, and M its mirror image from left to right, the result is

        log mean(U p(S(x, s)), M U p(M S(x, s)))    over the scales s, 1 among them,

    where U brings logits back to the size of x before their softmax, and the second
    term is there only if variants are mirrored.
    """

    def __init__(self, model: keras.Model, variants: variants_lib.Variants):
        """Makes the mean.

        Args:
          model: from images to logits; one that takes any size if there are scales.
          variants: what to show it.
        """
        self._model = model
        self._variants = variants

    def __call__(self, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
        """Predicts the classes of images.

        Args:
          images: uint8, uint16 or float [batch, height, width, channels]; height and
            width are known when this is traced.
          training: whether the model runs as in training.

        Returns:
          float32 [batch, height, width, classes], the logarithms of the mean
          probabilities. They are logits of these: their softmax gives them back.
        """
        size = tuple(images.shape[1:3])
        parts = []
        for scale in (1.0, *self._variants.scales):
            shown = _resize(images, scaled_size(size, scale))
            part = self._predict(shown, size, training)
            if self._variants.is_mirrored:
                mirrored = self._predict(_mirror(shown), size, training)
                part = _add_logs(part, _mirror(mirrored))
            parts.append(part)
        count = len(parts) * (2 if self._variants.is_mirrored else 1)
        return functools.reduce(_add_logs, parts) - math.log(count)

    def _predict(
        self, images: tf.Tensor, size: tuple[int, int], training: bool
    ) -> tf.Tensor:
        """Returns the logarithms of the probabilities of images, at a size."""
        logits = tf.cast(self._model(images, training=training), tf.float32)
        if tuple(images.shape[1:3]) != size:
            logits = tf.image.resize(logits, size, "bilinear")
        return tf.nn.log_softmax(logits)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns height and width times a scale, rounded to whole pixels, at least 1."""
    height, width = (max(int(side * scale + 0.5), 1) for side in size)
    return height, width


def _mirror(images: tf.Tensor) -> tf.Tensor:
    if images.dtype == tf.uint16:  # GPUs cannot reverse it.
        return tf.cast(_mirror(tf.cast(images, tf.float32)), images.dtype)
    return tf.reverse(images, axis=[2])


def _add_logs(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns log(exp(first) + exp(second)).

    The logarithm of the sum itself would be -inf, and the loss NaN, where a class has
    a probability that float32 takes for 0.
    """
    larger = tf.maximum(first, second)
    return larger + tf.math.log1p(tf.exp(-tf.abs(first - second)))


def _resize(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes images bilinearly, antialiased where they get smaller.

    `tf.image.resize` with `antialias` runs on CPUs only, which a GPU would wait for.

    Args:
      images: integers or floats [batch, height, width, channels].
      size: height and width of what comes out.

    Returns:
      The images, [batch, *size, channels], of their type: as whole numbers they are
      what the model was trained on, and bfloat16 rounds nothing more away.
    """
    if tuple(images.shape[1:3]) == size:
        return images
    values = tf.cast(images, tf.float32)
    for axis, num_pixels in enumerate(size, start=1):
        values = _resample(values, axis, num_pixels)
    # A weighted mean cannot be out of the type's range.
    is_whole = images.dtype.is_integer
    return tf.cast(tf.round(values) if is_whole else values, images.dtype)


def _resample(images: tf.Tensor, axis: int, num_pixels: int) -> tf.Tensor:
    """Resizes images, float32 [batch, height, width, channels], along one axis."""
    shape = [num_pixels if a == axis else 1 for a in range(4)]
    return tf.add_n(
        [
            tf.gather(images, place, axis=axis) * weight.reshape(shape)
            for place, weight in zip(
                *_taps(images.shape[axis], num_pixels), strict=True
            )
        ]
    )


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which old pixels make up each new one, and their shares.

    The share of an old pixel falls off linearly with its distance from the new one's
    centre, and is 0 at a distance of one pixel, old or new, whichever is larger.

    Args:
      old: how many pixels there are.
      new: how many there shall be.

    Returns:
      Places, int32, and shares, float32, [taps, new].
    """
    step = old / new
    reach = max(step, 1.0)
    centers = (np.arange(new) + 0.5) * step - 0.5
    first = np.floor(centers - reach) + 1
    places = first + np.arange(math.ceil(2 * reach))[:, None]  # [taps, new]
    shares = np.maximum(1 - np.abs(places - centers) / reach, 0)
    shares[(places < 0) | (places >= old)] = 0
    shares /= shares.sum(axis=0)
    return np.clip(places, 0, old - 1).astype(np.int32), shares.astype(np.float32)
