"""Layers that several parts of the models share."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from models import randomness


class Resize(keras.layers.Layer):
    """Enlarges feature maps by a whole number, bilinearly.

    Keras' `UpSampling2D` fails where height and width are not known beforehand. It
    computes in float32, which all devices have kernels and gradients for.
    """

    def __init__(self, factor: int, **kwargs):
        """Makes the layer.

        Args:
          factor: how many times as high and wide the output is.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        height, width = keras.ops.shape(inputs)[1:3]  # Numbers where known.
        outputs = tf.image.resize(
            tf.cast(inputs, tf.float32), [height * self.factor, width * self.factor]
        )
        return tf.cast(outputs, inputs.dtype)


class ImageMean(keras.layers.Layer):
    """Takes the mean of a feature map over each image.

    The output is [batch, 1, 1, channels], a map that a convolution can follow. The mean
    is taken in float32: sums of many pixels leave the range of float16.
    """

    def call(self, inputs):
        features = inputs
        if features.dtype in (tf.float16, tf.bfloat16):
            features = tf.cast(features, tf.float32)
        mean = tf.reduce_mean(features, [1, 2], keepdims=True)
        return tf.cast(mean, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, 1, input_shape[-1])


class Spread(keras.layers.Layer):
    """Repeats the one value that each image has at all pixels of a feature map.

    The input is a pair: the values, [batch, 1, 1, channels], and the feature map,
    [batch, height, width, any]. The output is [batch, height, width, channels].
    """

    def call(self, inputs):
        values, features = inputs
        batch, height, width = keras.ops.shape(features)[:3]  # Numbers where known.
        return tf.broadcast_to(values, [batch, height, width, values.shape[-1]])


class Crop(keras.layers.Layer):
    """Cuts logits to the size of the images: keeps the part at the top and left.

    The input is a pair: logits, [batch, at least height, at least width, classes], and
    images, [batch, height, width, channels]. The output is [batch, height, width,
    classes].
    """

    def __init__(self, **kwargs):
        """Makes the layer; the arguments are those of `keras.layers.Layer`."""
        super().__init__(autocast=False, **kwargs)  # Logits stay float32.

    def call(self, inputs):
        logits, images = inputs
        height, width = keras.ops.shape(images)[1:3]
        return logits[:, :height, :width]


class RowDropout(keras.layers.Layer):
    """Dropout (Srivastava et al., JMLR 2014), the same on any number of replicas.

    The mask of a row depends on seed, step, `stream` and the row's place in the global
    batch alone; see `models.randomness`. Keras' own draws the same mask on all replicas
    and keeps a state. A frozen layer drops nothing, as a frozen encoder runs in
    inference mode.

    With a noise shape of (None, 1, 1, 1) it drops whole rows: in front of the sum of a
    residual block that is stochastic depth (Huang et al., ECCV 2016, arXiv:1603.09382).
    """

    def __init__(
        self,
        rate: float,
        *,
        stream: str,
        noise_shape: Sequence[int | None] | None = None,
        **kwargs,
    ):
        """Makes the layer.

        Args:
          rate: share of the inputs that a training step sets to 0; what is left is
            scaled by 1 / (1 - rate). From 0 on, below 1.
          stream: a name that no other layer of the model has.
          noise_shape: shape of the mask, None where it is as the inputs'; the first
            one is that of the rows. None: all as the inputs'.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.rate = rate
        self.stream = stream
        self.noise_shape = noise_shape

    def call(self, inputs, training=False):
        if not training or not self.trainable or self.rate == 0:
            return inputs
        num_rows, *sizes = keras.ops.shape(inputs)  # Numbers where known.
        if self.noise_shape is not None:
            sizes = [
                own if size is None else size
                for size, own in zip(self.noise_shape[1:], sizes, strict=True)
            ]
        draws = randomness.uniform(num_rows, sizes, stream=self.stream)
        scaled = inputs * tf.cast(1 / (1 - self.rate), inputs.dtype)
        return tf.where(draws >= self.rate, scaled, tf.zeros([], inputs.dtype))

    def get_config(self):
        config = super().get_config()
        config.update(rate=self.rate, stream=self.stream, noise_shape=self.noise_shape)
        return config


class DroppingReLU(RowDropout):
    """Dropout and then ReLU, in one layer.

    So a model has the same layers, and the same checkpoints, whatever the rate is.
    """

    def call(self, inputs, training=False):
        return tf.nn.relu(super().call(inputs, training=training))
