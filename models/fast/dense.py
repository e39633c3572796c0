"""Linear layers of this package."""

import keras
import tensorflow as tf

from models.fast import biases


class Dense(keras.layers.Dense):
    """Keras' linear layer, but for the gradient of its bias; see `biases.add`."""

    def add_weight(self, *args, **kwargs) -> keras.Variable:
        """Adds a weight as Keras does, in float32 under a mixed policy, too."""
        # In bfloat16, the gradient of the bias would be rounded once more.
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def call(self, inputs, training=None):
        outputs = keras.ops.matmul(inputs, tf.cast(self.kernel, inputs.dtype))
        if self.bias is not None:
            is_trained = training is not False and self.trainable
            outputs = biases.add(outputs, self.bias, is_trained=is_trained)
        return outputs if self.activation is None else self.activation(outputs)
