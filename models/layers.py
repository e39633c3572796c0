"""Layers that several parts of the models share."""

import keras
import tensorflow as tf


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


class Crop(keras.layers.Layer):
    """Cuts logits to the size of the images: the part at the top and left.

    The input is a pair, [batch, at least height, at least width, classes] and
    [batch, height, width, channels].
    """

    def __init__(self, **kwargs):
        """Makes the layer; the arguments are those of `keras.layers.Layer`."""
        super().__init__(autocast=False, **kwargs)  # Logits stay float32.

    def call(self, inputs):
        logits, images = inputs
        height, width = keras.ops.shape(images)[1:3]
        return logits[:, :height, :width]


class ReplicaDropout(keras.layers.Dropout):
    """Dropout (Srivastava et al., JMLR 2014) with another mask on every replica.

    Keras' own draws the same mask on all of them. The state of its seed is a variable
    of the model that `tf.train.Checkpoint(model=...)` passes over; the trainer saves it
    by itself.
    """

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        context = tf.distribute.get_replica_context()
        seed = tf.random.experimental.stateless_fold_in(
            tf.cast(self.seed_generator.next(), tf.int32),
            context.replica_id_in_sync_group if context else 0,
        )
        return tf.nn.experimental.stateless_dropout(
            inputs, self.rate, seed, noise_shape=self._noise_shape_of(inputs)
        )

    def _noise_shape_of(self, inputs) -> list | None:
        """Returns the shape of the mask; None, as large as the inputs."""
        if self.noise_shape is None:
            return None
        sizes = keras.ops.shape(inputs)
        return [
            own if size is None else size
            for size, own in zip(self.noise_shape, sizes, strict=True)
        ]
