"""Convolutions that do less than Keras' own, for the same result.

Each is the Keras layer of that name with the same variables; what they leave out:

- All: the batch norm that follows, in inference mode: it is a factor and a shift for
  each channel, which the kernel and a bias can hold.
- `Conv2DTranspose`: the gradients of feature maps that nobody asks for, such as those
  of a frozen encoder. Of small maps, the kernel's gradient is a product of matrices.
- All: rounding. Under a mixed policy the kernel is cast with the batch norm in it.
"""

import keras
import tensorflow as tf

from models import normalization

_FEW_POSITIONS = 8 * 8
"""Up to so many in a feature map, products of matrices compute kernel gradients. In
larger maps they take as long as TensorFlow's op, and far more memory."""


class _Foldable:
    """A convolution that can take the batch norm that follows it into its kernel."""

    _is_folded = None
    _scale_and_shift = None

    def add_weight(self, *args, **kwargs):
        # Else a kernel would be rounded to 16 bits before batch norm is in, and again.
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def fold(self, norm: normalization.BatchNormalization) -> None:
        """Takes over what `norm`, which nothing else may feed or follow, does.

        The variables stay those of `norm`, and are folded in anew at each call, so a
        checkpoint is the same as without.
        """
        norm.is_folded = True
        # Its methods: Keras would take the layer itself for a part of this one.
        self._is_folded = norm.is_inference
        self._scale_and_shift = norm.scale_and_shift

    def call(self, inputs, training=None):
        kernel, bias = self.kernel, self.bias
        if self._is_folded and self._is_folded(training):
            scale, shift = self._scale_and_shift()
            kernel *= tf.reshape(scale, self._channels_shape())
            bias = shift if bias is None else shift + bias * scale
        dtype = keras.tree.flatten(inputs)[0].dtype
        outputs = self._convolve(inputs, tf.cast(kernel, dtype))
        if bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.cast(bias, dtype))
        return outputs if self.activation is None else self.activation(outputs)


class Conv2D(_Foldable, keras.layers.Conv2D):
    """Keras' convolution, which can take in the batch norm that follows."""

    def _channels_shape(self) -> list[int]:
        return [self.filters]

    def _convolve(self, inputs, kernel):
        return self.convolution_op(inputs, kernel)


class DepthwiseConv2D(_Foldable, keras.layers.DepthwiseConv2D):
    """Keras' depthwise convolution, which can take in the batch norm that follows."""

    def _channels_shape(self) -> list[int]:
        return list(self.kernel.shape[-2:])

    def _convolve(self, inputs, kernel):
        return keras.ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


class Conv2DTranspose(_Foldable, keras.layers.Conv2DTranspose):
    """Keras' transposed convolution, of several feature maps as of one.

    The input is a list of feature maps, float [batch, height, width, any], taken as
    joined along their channels.
    """

    # Keras' own asks for one tensor.
    input_spec = property(lambda self: None, lambda self, value: None)

    def build(self, input_shape):
        super().build(_joined(input_shape))

    def _channels_shape(self) -> list[int]:
        return [self.filters, 1]

    def _convolve(self, inputs, kernel):
        return _conv2d_transpose(self.strides, kernel, *inputs)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape(_joined(input_shape))


def _joined(shapes) -> tuple[int | None, ...]:
    """Returns the shape of feature maps joined along their channels."""
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


def _conv2d_transpose(
    strides: tuple[int, int], kernel: tf.Tensor, *inputs: tf.Tensor
) -> tf.Tensor:
    """Convolves the joined inputs, with a gradient of its own for each of them.

    TensorFlow's gradient convolves back to all channels at once and slices the result.
    Here each input has a convolution of its own, so that those which nobody needs fall
    out of the graph: 15 % of the arithmetic of a step with a frozen encoder.

    Args:
      strides: vertical and horizontal.
      kernel: [height, width, output channels, input channels].
      *inputs: [batch, height, width, any].

    Returns:
      [batch, height * strides[0], width * strides[1], output channels].
    """

    @tf.custom_gradient
    def convolve(kernel, *inputs):
        joined = inputs[0] if len(inputs) == 1 else tf.concat(inputs, axis=-1)
        batch, height, width, _ = keras.ops.shape(joined)  # Numbers where known.
        outputs = tf.nn.conv2d_transpose(
            joined,
            kernel,
            [batch, height * strides[0], width * strides[1], kernel.shape[2]],
            strides,
        )

        def gradient(upstream):
            kernels = tf.split(kernel, [x.shape[-1] for x in inputs], axis=-1)
            to_inputs = [tf.nn.conv2d(upstream, k, strides, "SAME") for k in kernels]
            to_kernel = _kernel_gradient(upstream, joined, kernel.shape, strides)
            return to_kernel, *to_inputs

        return outputs, gradient

    return convolve(kernel, *inputs)


def _kernel_gradient(
    upstream: tf.Tensor,
    inputs: tf.Tensor,
    kernel_shape: tf.TensorShape,
    strides: tuple[int, int],
) -> tf.Tensor:
    """Returns the gradient of a transposed convolution to its kernel.

    In small feature maps of many channels, one product of matrices does in half the
    time what TensorFlow's own op does, which on CPUs shares out the positions.

    Args:
      upstream: [batch, height * strides[0], width * strides[1], output channels].
      inputs: [batch, height, width, input channels].
      kernel_shape: [kernel height, kernel width, output channels, input channels].
      strides: vertical and horizontal.
    """
    height, width = inputs.shape[1:3]
    if None in (height, width) or height * width > _FEW_POSITIONS:
        return tf.raw_ops.Conv2DBackpropFilter(
            input=upstream,
            filter_sizes=kernel_shape,
            out_backprop=inputs,
            strides=[1, *strides, 1],
            padding="SAME",
        )
    patches = tf.image.extract_patches(
        upstream,
        sizes=[1, *kernel_shape[:2], 1],
        strides=[1, *strides, 1],
        rates=[1, 1, 1, 1],
        padding="SAME",
    )
    product = tf.matmul(
        tf.reshape(patches, [-1, patches.shape[-1]]),
        tf.reshape(inputs, [-1, inputs.shape[-1]]),
        transpose_a=True,
    )
    return tf.reshape(product, kernel_shape)
