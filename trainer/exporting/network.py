"""What a format is written of."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # The process that tries a file has neither.
    import keras
    import numpy as np
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained model, to be written in several formats.

    Attributes:
      model: from images, [batch, *image_size, channels], to logits, float32 [batch,
        *image_size, classes].
      make_stock: makes the same model of Keras' own layers.
      image_size: height and width of what it was trained on.
      num_channels: of the images.
      dtype: of the images, `uint8` or `uint16`.
      gives_probabilities: whether to write the probabilities of all classes, too.
      any_size: whether images of other sizes can be brought to that of the model, and
        labels back.
      resize: brings an image, [height, width, channels], to the model's size.
      restore: brings scores at the model's size, [*image_size, classes], to a size.
      classify: gives the likeliest class, int32 [batch, height, width], of logits.
      read_photos: reads photos at the model's size to calibrate numbers of few bits by,
        [photos, *image_size, channels].
    """

    model: "keras.Model"
    make_stock: "Callable[[], keras.Model]"
    image_size: tuple[int, int]
    num_channels: int
    dtype: str
    gives_probabilities: bool
    any_size: bool
    resize: "Callable[[tf.Tensor], tf.Tensor]"
    restore: "Callable[[tf.Tensor, tf.Tensor], tf.Tensor]"
    classify: "Callable[[tf.Tensor], tf.Tensor]"
    read_photos: "Callable[[], np.ndarray]"

    @functools.cached_property
    def stock(self) -> "keras.Model":
        """The model of Keras' own layers."""
        return self.make_stock()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        return (*self.image_size, self.num_channels)

    def outputs(self, logits: "tf.Tensor") -> "dict[str, tf.Tensor]":
        """Returns what a file gives of logits, [batch, height, width, classes].

        Returns:
          `labels`, uint8 [batch, height, width]; where asked for `probabilities`,
          float32 as the logits.
        """
        import tensorflow as tf

        outputs = {"labels": tf.cast(self.classify(logits), tf.uint8)}
        if self.gives_probabilities:
            outputs["probabilities"] = tf.nn.softmax(logits)
        return outputs
