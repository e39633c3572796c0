"""Windows that hold a class of which there may be little.

A window at a random place rarely shows a class that has few pixels. Here a class is
drawn first, all classes of the example being equally likely, and then one of its pixels
(nnU-Net oversamples foreground in this way; Isensee et al., "nnU-Net: a
self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 2021).
"""

import tensorflow as tf

from data.augmentation import kinds, maps

NAME = "crop_rare_classes"
"""Its draws are keyed by this name, as those of a change are by theirs."""

_TOLERANCE = 0.01
"""In lines: floats of some thousands are that far off, and the centre of the outermost
pixel of a window is half a line from its edge."""


def make(
    share: float, window_size: tuple[int, int], num_classes: int
) -> kinds.Placement:
    """Returns the change that moves some windows to a pixel of a class.

    The class is drawn among those of the example, all equally likely, and the pixel
    among those of the class. The window is centred on the pixel; near an edge of the
    example (as it is after all other geometry), it is moved so far that it stays within
    the example. The centre of the pixel becomes the centre of a pixel of the window, so
    it is seen even if an example is made smaller. An example with all pixels ignored
    keeps its window.

    Args:
      share: of the examples whose windows are moved, from 0 to 1.
      window_size: height and width.
      num_classes: labels from here on are no classes.
    """

    def map_back(draws: tf.Tensor, labels: tf.Tensor, composed: tf.Tensor) -> tf.Tensor:
        is_found, pixels = _draw_pixels(draws[:, 1:], labels, num_classes)
        is_moved = is_found & (draws[:, 0] < share)
        shifts = _shift_to(pixels, composed, tuple(labels.shape[1:]), window_size)
        shifts = tf.where(is_moved[:, tf.newaxis], shifts, 0.0)
        ones = tf.ones_like(shifts[:, 0])
        zeros = tf.zeros_like(ones)
        return maps.make(
            [[ones, zeros], [zeros, ones]], tuple(tf.unstack(shifts, axis=1))
        )

    return kinds.Placement(4, map_back)


def _draw_pixels(
    draws: tf.Tensor, labels: tf.Tensor, num_classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a class of each example, and one of its pixels.

    Args:
      draws: float32 [rows, 3], for the class, the line and the pixel in the line.
      labels: uint8 [rows, height, width].
      num_classes: labels from here on are no classes.

    Returns:
      bool [rows], whether there is a pixel of any class, and float32 [rows, 2], the
      centre of the pixel, as maps see it.
    """
    # A comparison for each class: for 19 of them a fifth of the time of one lookup.
    has_class = tf.stack(
        [tf.reduce_any(labels == label, [1, 2]) for label in range(num_classes)], 1
    )
    label = _draw_index(tf.cast(has_class, tf.float32), draws[:, 0])
    label = tf.cast(label, tf.uint8)[:, tf.newaxis, tf.newaxis]
    # Counted in lines: to draw among all pixels at once, each would get a number.
    is_class = tf.cast(labels == label, tf.float32)
    row = _draw_index(tf.reduce_sum(is_class, 2), draws[:, 1])
    line = tf.gather(is_class, tf.cast(row, tf.int32), batch_dims=1)
    column = _draw_index(line, draws[:, 2])
    middle = tf.constant([length / 2 for length in labels.shape[1:]])
    return tf.reduce_any(has_class, 1), tf.stack([row, column], 1) + 0.5 - middle


def _draw_index(counts: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Draws places in proportion to what is counted there.

    Args:
      counts: float32 [rows, places], whole numbers with a sum below 2**24.
      draws: float32 [rows], in [0, 1).

    Returns:
      float32 [rows], from 0 to places - 1; the last place where all counts are 0.
    """
    # The number of the one that is drawn is below the sum: the greatest draw is 1 -
    # 2**-23. It lies in the first place that ends beyond it.
    ends = tf.cumsum(counts, 1)
    drawn = tf.floor(draws[:, tf.newaxis] * ends[:, -1:])
    num_before = tf.reduce_sum(tf.cast(ends <= drawn, tf.float32), 1)
    return tf.minimum(num_before, float(counts.shape[1] - 1))


def _shift_to(
    pixels: tf.Tensor,
    composed: tf.Tensor,
    size: tuple[int, int],
    window_size: tuple[int, int],
) -> tf.Tensor:
    """Returns how far windows must move to hold a pixel, float32 [rows, 2].

    Args:
      pixels: float32 [rows, 2], centres of pixels of the old examples.
      composed: float32 [rows, 2, 3], from the windows back to the old examples.
      size: height and width of the old examples.
      window_size: height and width of the windows.
    """
    inverses = maps.invert(composed)
    places = maps.transform(inverses, pixels)
    matrices, middles = inverses[:, :, :2], inverses[:, :, 2]
    # The box around the example: how far it reaches from its middle.
    reaches = tf.reduce_sum(tf.abs(matrices) * tf.constant(size, tf.float32) / 2, 2)
    length = tf.constant(window_size, tf.float32)
    # So many lines of the window would come before the pixel, with the window at either
    # end of the example. One that is larger than the example holds all of it.
    at_start = places - (middles - reaches) - 0.5
    at_end = at_start - (2 * reaches - length)
    least = tf.math.ceil(tf.minimum(at_start, at_end) - _TOLERANCE)
    most = tf.floor(tf.maximum(at_start, at_end) + _TOLERANCE)
    num_before = tf.maximum(tf.minimum(tf.floor(length / 2), most), least)
    num_before = tf.clip_by_value(num_before, 0.0, length - 1)
    return places - (num_before + 0.5 - length / 2)
