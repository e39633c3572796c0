"""Layers of the decoder."""

import keras

from models import normalization


class UpsampleBlock(keras.layers.Layer):
    """Doubles height and width: transposed convolution, batch norm, ReLU.

    The block of pix2pix's generator (Isola et al., CVPR 2017, arXiv:1611.07004) as
    the TensorFlow examples define it: no bias, initial weights from N(0, 0.02).
    """

    def __init__(self, filters: int, *, synchronized: bool = False, **kwargs):
        """Makes a block.

        Args:
          filters: channels of the output.
          synchronized: whether batch norm takes its statistics over all replicas,
            so that they do not depend on how many there are.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self._filters = filters
        self._synchronized = synchronized
        self._conv = keras.layers.Conv2DTranspose(
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

    def build(self, input_shape):
        self._conv.build(input_shape)
        self._norm.build(self._conv.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs, training=None):
        return keras.ops.relu(self._norm(self._conv(inputs), training=training))

    def compute_output_shape(self, input_shape):
        return self._conv.compute_output_shape(input_shape)

    def get_config(self):
        config = super().get_config()
        config.update(filters=self._filters, synchronized=self._synchronized)
        return config
