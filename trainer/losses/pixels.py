"""What loss terms share: which pixels count, how much, and a layout that is fast.

TensorFlow's own ops work along the last axis, which with few classes is too short for
the CPU's vector units. In the layout [classes, pixels] loss and gradient take a quarter
of the time with 3 classes, and less with 21 as well.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data import schema


def is_valid(labels: tf.Tensor) -> tf.Tensor:
    """Tells which pixels count.

    Args:
      labels: uint8 [batch, height, width].

    Returns:
      bool [batch, height, width], False where the label is `schema.IGNORE_LABEL`.
    """
    return tf.not_equal(labels, tf.constant(schema.IGNORE_LABEL, labels.dtype))


def weights_of(
    labels: tf.Tensor, class_weights: Sequence[float] | None, dtype: tf.DType
) -> tf.Tensor:
    """Returns the weight of each pixel: that of its class, 0 if it is ignored.

    Args:
      labels: uint8 [batch, height, width].
      class_weights: one factor for each class; None: all are 1.
      dtype: of the result, which has the shape of the labels.
    """
    if class_weights is None:
        return tf.cast(is_valid(labels), dtype)
    # Of every label that a uint8 can be; those that are no class are ignored.
    table = np.zeros([256])
    table[: len(class_weights)] = class_weights
    return tf.gather(tf.constant(table, dtype), tf.cast(labels, tf.int32))


def one_hot(labels: tf.Tensor, num_classes: int, dtype: tf.DType) -> tf.Tensor:
    """Returns 1 where a pixel is of a class and 0 elsewhere, [classes, pixels].

    Args:
      labels: uint8 [batch, height, width].
      num_classes: how many classes there are.
      dtype: of the result.
    """
    flat = tf.reshape(labels, [1, -1])  # [1, pixels]
    is_class = tf.equal(flat, np.arange(num_classes, dtype=np.uint8)[:, None])
    return tf.cast(is_class, dtype)  # [classes, pixels]


def classes_first(logits: tf.Tensor) -> tf.Tensor:
    """Lays out [batch, height, width, classes] as [classes, pixels]."""
    return tf.transpose(tf.reshape(logits, [-1, logits.shape[-1]]))


@tf.custom_gradient
def softmax(logits: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Returns the probabilities of the classes, [classes, pixels].

    Args:
      logits: [batch, height, width, classes].
    """
    powers = classes_first(logits)
    powers = tf.exp(powers - tf.reduce_max(powers, axis=0, keepdims=True))
    probabilities = powers / tf.reduce_sum(powers, axis=0, keepdims=True)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_sum(probabilities * upstream, axis=0, keepdims=True)
        to_powers = probabilities * (upstream - mean)
        return tf.reshape(tf.transpose(to_powers), tf.shape(logits))

    return probabilities, gradient


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Returns the cross-entropy of each pixel, [pixels], those without a class too.

    It is -sum(t[c] log softmax(logits)[c]) over the classes c. With C classes, a share
    s to smooth and g the one-hot label, t[c] = (1 - s) g[c] + s / C, as Keras has it.

    Args:
      logits: [batch, height, width, classes].
      labels: uint8 [batch, height, width].
      label_smoothing: the share s, from 0 to 1.
    """

    @tf.custom_gradient
    def cost_of(logits: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        target = one_hot(labels, logits.shape[-1], logits.dtype)  # [classes, pixels]
        if label_smoothing:
            target *= 1 - label_smoothing
            target += label_smoothing / logits.shape[-1]
        shifted = classes_first(logits)  # [classes, pixels]
        shifted -= tf.reduce_max(shifted, axis=0, keepdims=True)
        powers = tf.exp(shifted)
        sums = tf.reduce_sum(powers, axis=0)  # [pixels]
        costs = tf.math.log(sums) - tf.reduce_sum(target * shifted, axis=0)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Softmax less target.
            to_shifted = powers * (upstream / sums) - target * upstream
            return tf.reshape(tf.transpose(to_shifted), tf.shape(logits))

        return costs, gradient

    return cost_of(logits)
