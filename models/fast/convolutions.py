"""Convolutions that do less than Keras' own, for the same result.

Each is the Keras layer of that name with the same variables; what they leave out:

- All: the batch norm that follows, in inference mode on CPUs: it is a factor and a
  shift for each channel, which the kernel and a bias can hold.
- `DepthwiseConv2D`: gradients in bfloat16 on CPUs, where those in float32 are faster.
- `JoinedConv2D` and `Conv2DTranspose`: to join their inputs, and with that the
  gradients of what nobody trains, such as the feature maps of a frozen encoder.
- `Conv2DTranspose`: of small maps, the kernel's gradient is a product of matrices. A
  few channels come as four pixels at once.
- All: rounding. Under a mixed policy the kernel is cast with the batch norm in it, and
  the gradient of the bias is a sum that grows to its end; see `biases.add`.

What each is worth, as the time of a training step without it over the time with all
(the tutorial's U-Net, frozen encoder, batch 64 at 128x128, float32, two cores, best of
ten steps in turn): inputs not joined 1.18, batch norm in the kernel 1.07, four pixels
at once 1.06, products of matrices 1.04. The last three are for CPUs and used there
alone. On an H100, 64 examples took as long as it took to start the step's ops (13.5 ms
for 619, in float32 as in bfloat16), and half of these did nothing but fold.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from models.fast import biases, devices, normalization

_FEW_POSITIONS = 8 * 8
"""Up to so many in a feature map, products of matrices compute kernel gradients. In
larger maps they take as long as TensorFlow's op, and far more memory."""

_FEW_CHANNELS = 4
"""Up to so many, four neighbouring pixels have as many channels as CPUs compute at
once."""


class _Foldable:
    """A convolution that can take the batch norm that follows it into its kernel.

    A subclass has `_convolve`, and `_align`, which reshapes what there is for each
    output channel, [channels], to be multiplied with the kernel.
    """

    _is_folded = None
    _scale_and_shift = None

    def add_weight(self, *args, **kwargs) -> keras.Variable:
        # Else a kernel would be rounded to 16 bits before batch norm is in, and again.
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def fold(self, norm: normalization.BatchNormalization) -> None:
        """Takes over the work of `norm`, which must be the only reader of this layer.

        The variables stay those of `norm` and are folded in anew at each call, so
        checkpoints do not change. It is done on CPUs only: a GPU takes longer to start
        the small ops that fold than for a pass over the feature map.
        """
        if not devices.is_on_cpu():
            return
        norm.is_folded = True
        # Its methods: Keras would take the layer itself for a part of this one.
        self._is_folded = norm.is_inference
        self._scale_and_shift = norm.scale_and_shift

    def call(self, inputs, training=None):
        kernel, bias = self.kernel, self.bias
        if self._is_folded and self._is_folded(training):
            scale, shift = self._scale_and_shift()
            kernel *= self._align(scale)
            bias = shift if bias is None else shift + bias * scale
        dtype = keras.tree.flatten(inputs)[0].dtype
        outputs = self._convolve(inputs, tf.cast(kernel, dtype))
        if bias is not None:
            # A norm that is folded in is not trained.
            is_trained = training is not False and self.trainable
            is_trained = is_trained and self.bias is not None
            outputs = biases.add(outputs, bias, is_trained=is_trained)
        return outputs if self.activation is None else self.activation(outputs)


class Conv2D(_Foldable, keras.layers.Conv2D):
    """Keras' convolution, which can take in the batch norm that follows."""

    def _align(self, scale: tf.Tensor) -> tf.Tensor:
        return scale

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.groups == 1 or not devices.is_on_cpu():
            return self.convolution_op(inputs, kernel)
        # Keras sends groups through XLA, which fails on two CPU replicas.
        pairs = zip(
            tf.split(inputs, self.groups, axis=-1),
            tf.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        return tf.concat([self.convolution_op(*pair) for pair in pairs], axis=-1)


class JoinedConv2D(Conv2D):
    """A convolution of several feature maps, taken as joined along their channels.

    The input is a list of feature maps, float [batch, height, width, any]; why they are
    not joined is said at `Conv2DTranspose`.
    """

    # Keras' own asks for one tensor.
    input_spec = property(lambda self: None, lambda self, value: None)

    def build(self, input_shape):
        super().build(_joined(input_shape))

    def _convolve(self, inputs: Sequence[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
        sizes = [features.shape[-1] for features in inputs]
        kernels = tf.split(kernel, sizes, axis=2)
        parts = zip(inputs, kernels, strict=True)
        return tf.add_n([self.convolution_op(*part) for part in parts])

    def compute_output_shape(self, input_shape):
        # Keras' `build` asks, too, with the shape that it was given.
        is_joined = not isinstance(input_shape[0], Sequence)
        shape = input_shape if is_joined else _joined(input_shape)
        return super().compute_output_shape(shape)


class DepthwiseConv2D(_Foldable, keras.layers.DepthwiseConv2D):
    """Keras' depthwise convolution, which can take in the batch norm that follows."""

    def _align(self, scale: tf.Tensor) -> tf.Tensor:
        return tf.reshape(scale, self.kernel.shape[-2:])

    def _convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        is_plain = self.data_format == "channels_last" and self.dilation_rate == (1, 1)
        if inputs.dtype == tf.bfloat16 and is_plain and devices.is_on_cpu():
            return _depthwise_in_bfloat16(
                [1, *self.strides, 1], self.padding.upper(), kernel, inputs
            )
        return keras.ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


def _depthwise_in_bfloat16(
    strides: Sequence[int], padding: str, kernel: tf.Tensor, inputs: tf.Tensor
) -> tf.Tensor:
    """Convolves each channel in bfloat16, and computes slow gradients in float32.

    oneDNN has no fast kernels for two of them. With strides, the gradient to the input
    takes 7.8 ms in float32 and 100 ms in bfloat16 (64 maps of [64, 64, 96]); that to a
    5x5 kernel 16 and 54 ms ([16, 16, 240]). These two are computed in float32.

    Args:
      strides: as TensorFlow's ops take them.
      padding: SAME or VALID.
      kernel: bfloat16 [height, width, input channels, multiplier].
      inputs: bfloat16 [batch, height, width, input channels].

    Returns:
      bfloat16 [batch, new height, new width, input channels * multiplier].
    """
    settings = {"strides": strides, "padding": padding}
    is_strided, is_large = max(strides) > 1, max(kernel.shape[:2]) > 3

    @tf.custom_gradient
    def convolve(kernel: tf.Tensor, inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dtype = tf.float32 if is_large else tf.bfloat16
            to_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=tf.cast(inputs, dtype),
                filter_sizes=kernel.shape,
                out_backprop=tf.cast(upstream, dtype),
                **settings,
            )
            dtype = tf.float32 if is_strided else tf.bfloat16
            to_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=tf.cast(kernel, dtype),
                out_backprop=tf.cast(upstream, dtype),
                **settings,
            )
            return tf.cast(to_kernel, tf.bfloat16), tf.cast(to_inputs, tf.bfloat16)

        outputs = tf.raw_ops.DepthwiseConv2dNative(
            input=inputs, filter=kernel, **settings
        )
        return outputs, gradient

    return convolve(kernel, inputs)


class Conv2DTranspose(_Foldable, keras.layers.Conv2DTranspose):
    """Keras' transposed convolution, of several feature maps as of one.

    The input is a list of feature maps, float [batch, height, width, any], taken as
    joined along their channels.

    Each is convolved by itself, with its part of the kernel, and the results are added
    up. Joined, they would be one more copy of all of them, which stays until the
    backward pass: a quarter of the memory of a step. And the gradient would be that of
    all channels, though a frozen encoder's are not asked for: 15 % of the arithmetic.
    """

    # Keras' own asks for one tensor.
    input_spec = property(lambda self: None, lambda self, value: None)

    def build(self, input_shape):
        super().build(_joined(input_shape))

    def _align(self, scale: tf.Tensor) -> tf.Tensor:
        return scale[:, tf.newaxis]

    def _convolve(self, inputs: Sequence[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
        sizes = [features.shape[-1] for features in inputs]
        kernels = tf.split(kernel, sizes, axis=-1)
        return tf.add_n(
            [
                _conv2d_transpose(self.strides, kernel, features)
                for kernel, features in zip(kernels, inputs, strict=True)
            ]
        )

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape(_joined(input_shape))


def _joined(shapes: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
    """Returns the shape of feature maps joined along their channels."""
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


def _conv2d_transpose(
    strides: tuple[int, int], kernel: tf.Tensor, inputs: tf.Tensor
) -> tf.Tensor:
    """Convolves like `tf.nn.conv2d_transpose`, padded as to keep all of the result.

    Args:
      strides: vertical and horizontal.
      kernel: [height, width, output channels, input channels].
      inputs: [batch, height, width, input channels].

    Returns:
      [batch, height * strides[0], width * strides[1], output channels].
    """
    is_doubling = (*kernel.shape[:2], *strides) == (3, 3, 2, 2)
    is_thin = kernel.shape[2] <= _FEW_CHANNELS

    @tf.custom_gradient
    def convolve(kernel: tf.Tensor, inputs: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                _kernel_gradient(upstream, inputs, kernel.shape, strides),
                tf.nn.conv2d(upstream, kernel, strides, "SAME"),
            )

        if is_doubling and is_thin and devices.is_on_cpu():
            return _double_to_few_channels(kernel, inputs), gradient
        batch, height, width, _ = keras.ops.shape(inputs)  # Numbers where known.
        shape = [batch, height * strides[0], width * strides[1], kernel.shape[2]]
        return tf.nn.conv2d_transpose(inputs, kernel, shape, strides), gradient

    return convolve(kernel, inputs)


def _double_to_few_channels(kernel: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Convolves with strides of 2 and a 3x3 kernel, by a convolution without strides.

    Its channels are those of four neighbouring pixels of the result (sub-pixel
    convolution; Shi et al., CVPR 2016, arXiv:1609.05158). Nearly half of its kernel
    is zero, but CPUs compute 16 channels as fast as 3: it takes 0.57 of the time.

    Args:
      kernel: [3, 3, output channels, input channels].
      inputs: [batch, height, width, input channels].

    Returns:
      [batch, height * 2, width * 2, output channels].
    """
    corners = tf.pad(kernel, [[0, 1], [0, 1], [0, 0], [0, 0]])
    pixels = tf.nn.space_to_depth(tf.transpose(corners, [3, 0, 1, 2]), 2)
    # A pixel lies before its input times the first of the kernel, after the last.
    pixels = tf.transpose(tf.reverse(pixels, [1, 2]), [1, 2, 0, 3])
    margins = [[0, 0], [1, 0], [1, 0], [0, 0]]
    return tf.nn.depth_to_space(tf.nn.conv2d(inputs, pixels, 1, margins), 2)


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
    is_small = None not in (height, width) and height * width <= _FEW_POSITIONS
    if not (is_small and devices.is_on_cpu()):
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
