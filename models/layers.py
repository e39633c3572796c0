"""Layers of the decoder."""

import keras
import tensorflow as tf

from models import convolutions, normalization


class UpsampleBlock(keras.layers.Layer):
    """Doubles height and width: transposed convolution, batch norm, ReLU.

    The block of pix2pix's generator (Isola et al., CVPR 2017, arXiv:1611.07004) as
    the TensorFlow examples define it: no bias, initial weights from N(0, 0.02).

    The input is a list of feature maps, [batch, height, width, any], taken as joined
    along their channels; the output is [batch, 2 * height, 2 * width, filters].
    """

    def __init__(
        self,
        filters: int,
        *,
        dropout: float = 0.0,
        synchronized: bool = False,
        **kwargs,
    ):
        """Makes a block.

        Args:
          filters: channels of the output.
          dropout: share of the features that a training step sets to 0, as pix2pix
            does before the ReLU.
          synchronized: whether batch norm takes its statistics over all replicas,
            so that they do not depend on how many there are.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self._filters = filters
        self._dropout_rate = dropout
        self._synchronized = synchronized
        self._conv = convolutions.Conv2DTranspose(
            filters,
            kernel_size=3,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="conv",
        )
        self._norm = normalization.BatchNormalization(
            synchronized=synchronized, name="norm"
        )
        self._conv.fold(self._norm)
        self._dropout = ReplicaDropout(dropout, name="dropout") if dropout else None

    def build(self, input_shape):
        self._conv.build(input_shape)
        self._norm.build(self._conv.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs, training=None):
        features = self._conv(inputs, training=training)
        features = self._norm(features, training=training)
        if self._dropout:
            features = self._dropout(features, training=training)
        return keras.ops.relu(features)

    def compute_output_shape(self, input_shape):
        return self._conv.compute_output_shape(input_shape)

    def get_config(self):
        config = super().get_config()
        config.update(
            filters=self._filters,
            dropout=self._dropout_rate,
            synchronized=self._synchronized,
        )
        return config


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
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)
