"""The Lovasz-Softmax loss, the mean over images."""

import tensorflow as tf

from trainer.losses import pixels, term


class Lovasz(term.Mean):
    """Lovasz-Softmax of Berman et al. (CVPR 2018, arXiv:1705.08790), of each image.

    With p the softmax of the logits and g the one-hot labels of an image, the errors of
    a class c are m = |g[c] - p[c]| at the valid pixels. In the order of falling m, let
    J(k) be the Jaccard loss, one less the IoU of c, if the first k pixels are wrong and
    the others right. Then

        L[c] = sum over k of m(k) (J(k) - J(k - 1)),

    and the loss of the image is sum(w[c] L[c]) / sum(w[c]) over the classes in its
    labels; w are the class weights, 1 without any. The loss is the mean over the images
    in which a class has a weight above 0.

    The errors are sorted in each image, so the loss of an image does not depend on the
    other images of a replica. Sorting takes time: on the CPU the term takes 15 times as
    long as cross-entropy, with 3 classes as with 21.
    """

    def sums(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the sum over images and their number; see `Term.sums`."""
        shape = tf.shape(labels)
        layout = [self.num_classes, shape[0], shape[1] * shape[2]]
        is_class = pixels.one_hot(labels, self.num_classes, logits.dtype)
        probabilities = tf.reshape(pixels.softmax(logits), layout)
        is_class = tf.reshape(is_class, layout)  # [classes, rows, pixels]
        is_valid = tf.reshape(pixels.is_valid(labels), layout[1:])  # [rows, pixels]
        errors = tf.abs(is_class - probabilities)
        gains = _jaccard_gains(tf.where(is_valid, errors, -1), is_class)
        losses = tf.reduce_sum(errors * tf.stop_gradient(gains), axis=2)
        weights = tf.reduce_max(is_class, axis=2)  # [classes, rows], 1 where present.
        if self.class_weights is not None:
            factors = tf.constant(self.class_weights, logits.dtype)
            weights *= factors[:, tf.newaxis]
        size = tf.reduce_sum(weights, axis=0)  # [rows]
        of_images = tf.math.divide_no_nan(tf.reduce_sum(weights * losses, axis=0), size)
        count = tf.reduce_sum(tf.cast(size > 0, logits.dtype))
        return tf.stack([tf.reduce_sum(of_images), count])

    def num_countable(self, labels: tf.Tensor) -> int:
        """Returns the number of images; see `Mean.num_countable`."""
        return labels.shape[0]


make = Lovasz


def _jaccard_gains(errors: tf.Tensor, is_class: tf.Tensor) -> tf.Tensor:
    """Returns J(k) - J(k - 1) of each pixel, at its own place.

    With I pixels of the class that are right and U in the union after k wrong ones, J
    is 1 - I / U. A wrong pixel of the class takes 1 from I, another adds 1 to U: J
    grows by 1 / U, or by I / (U (U - 1)). These have no difference of almost equal
    numbers, which float32 would not bear.

    Args:
      errors: [classes, rows, pixels], below 0 at ignored pixels.
      is_class: 1 where a pixel is of the class, 0 elsewhere; of the same shape.

    Returns:
      Of the same shape and dtype; 0 at ignored pixels, which come last, and for classes
      that an image does not have, as no pixel is left then that is right.
    """
    num_pixels = tf.shape(errors)[2]
    # The bits of numbers from 0 on are whole numbers of the same order, and these are
    # sorted faster. Errors are at most 1, so the keys have a bit to spare: it carries
    # the flag along. TensorFlow does sums, comparisons and reshapes of int32 on the
    # host, so there are none of large tensors here.
    whole = tf.int64 if errors.dtype == tf.float64 else tf.int32
    keys = tf.bitcast(errors, whole)
    one = tf.ones([], keys.dtype)
    flags = tf.cast(is_class, keys.dtype)
    keys = tf.bitwise.bitwise_or(tf.bitwise.left_shift(keys, one), flags)
    keys, order = tf.math.top_k(tf.where(errors < 0, -2, keys), k=num_pixels)
    is_class = tf.cast(tf.bitwise.bitwise_and(keys, one), tf.bool)
    # In whole numbers, as float32 could not go on from 2^24.
    missed = tf.cumsum(tf.cast(is_class, tf.int32), axis=2)
    missed = tf.cast(missed, errors.dtype)
    size = missed[:, :, -1:]
    right = size - missed
    numbers = tf.range(1, tf.cast(num_pixels, tf.int64) + 1)
    union = right + tf.cast(numbers, errors.dtype)
    gains = tf.where(is_class, 1 / union, right / (union * tf.maximum(union - 1, 1)))
    rows = tf.range(tf.size(errors) // num_pixels)[:, tf.newaxis] * num_pixels
    places = tf.reshape(tf.cast(order, tf.int64), [-1, num_pixels])
    places += tf.cast(rows, tf.int64)
    # Each place gets one: a sum, which unlike `tf.scatter_nd` runs on all cores.
    gains = tf.math.unsorted_segment_sum(
        tf.reshape(gains, [-1]), tf.reshape(places, [-1]), tf.size(errors)
    )
    return tf.reshape(gains, tf.shape(errors))
