"""The U-Net of TensorFlow's segmentation tutorial."""

from collections.abc import Sequence

import keras

from models import layers
from models.decoders import blocks, doubling
from models.fast import convolutions, normalization


def decode(
    features: Sequence[keras.KerasTensor],
    strides: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int],
    norm: str = "batch",
    dropout: float = 0.0,
    synchronized: bool = False,
) -> keras.KerasTensor:
    """Decodes by the upsampling blocks of pix2pix; see `doubling.decode`.

    Args:
      features: maps of any strides.
      strides: of the maps.
      num_classes: channels of the logits.
      filters: output channels of each block, deepest first.
      norm: `batch`, as the tutorial has it, or `group`.
      dropout: share of a block's features that a training step drops.
      synchronized: whether batch norm takes its statistics over all replicas.
    """
    return doubling.decode(
        features,
        strides,
        num_classes,
        filters=filters,
        make_block=lambda index, channels: UpsampleBlock(
            channels,
            norm=norm,
            dropout=dropout,
            dropout_stream=f"upsample_{index}",
            synchronized=synchronized,
        ),
    )


class UpsampleBlock(keras.layers.Layer):
    """Doubles height and width: transposed convolution, norm, ReLU.

    The block of pix2pix's generator (Isola et al., CVPR 2017, arXiv:1611.07004) as
    the TensorFlow examples define it: no bias, initial weights from N(0, 0.02).

    The input is a list of feature maps, [batch, height, width, any], taken as joined
    along their channels; the output is [batch, 2 * height, 2 * width, filters].
    """

    def __init__(
        self,
        filters: int,
        *,
        norm: str = "batch",
        dropout: float = 0.0,
        dropout_stream: str = "upsample",
        synchronized: bool = False,
        **kwargs,
    ):
        """Makes a block.

        Args:
          filters: channels of the output.
          norm: `batch` or `group`.
          dropout: share of the features that a training step sets to 0, as pix2pix
            does before the ReLU.
          dropout_stream: a name that no other block of the model has.
          synchronized: whether batch norm takes its statistics over all replicas,
            so that they do not depend on how many there are.
          **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self._filters = filters
        self._kind_of_norm = norm
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
        self._norm = blocks.Blocks(norm, synchronized=synchronized).make_norm(
            filters, name="norm"
        )
        if isinstance(self._norm, normalization.BatchNormalization):
            self._conv.fold(self._norm)
        self._dropout = layers.RowDropout(
            dropout, stream=dropout_stream, name="dropout"
        )

    @property
    def parts(self) -> tuple[keras.layers.Layer, keras.layers.Layer]:
        """The transposed convolution and the norm; in inference a ReLU ends it."""
        return self._conv, self._norm

    def build(self, input_shape):
        self._conv.build(input_shape)
        self._norm.build(self._conv.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs, training=None):
        features = self._conv(inputs, training=training)
        if isinstance(self._norm, normalization.BatchNormalization):
            features = self._norm(features, training=training)
        else:
            features = self._norm(features)
        features = self._dropout(features, training=training)
        return keras.ops.relu(features)

    def compute_output_shape(self, input_shape):
        return self._conv.compute_output_shape(input_shape)

    def get_config(self):
        config = super().get_config()
        config.update(
            filters=self._filters,
            norm=self._kind_of_norm,
            dropout=self._dropout.rate,
            dropout_stream=self._dropout.stream,
            synchronized=self._synchronized,
        )
        return config
