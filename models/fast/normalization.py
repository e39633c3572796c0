"""Norms: of a batch, by one fused kernel or one sum over replicas; of groups."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

_MOST_GROUPS = 32
"""Those of the group norm's paper."""


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm (Ioffe & Szegedy, ICML 2015), by faster means.

    On one replica a training step runs TensorFlow's fused kernel, where Keras takes
    the moments, scales and shifts in passes of their own, in float32 if need be: with
    these, a step of the tutorial's U-Net takes 1.15 times as long (see
    `models.fast.convolutions` for how that was measured).

    On several, the statistics are those of all replicas, by one sum for each layer.
    Keras sums twice, through a wrapper that searches the whole graph at each call:
    tracing MobileNetV2 for two replicas takes minutes. And it takes the variance as
    E[x^2] - E[x]^2 over all pixels, which cancels where the mean is large; here only
    the replicas' means meet in such a difference.

    With r replicas of equal rows, mean m_i and variance v_i each:

        mean = avg(m_i),   variance = avg(v_i) + avg(m_i^2) - mean^2.

    Attributes:
      is_folded: whether the convolution before it does the work in inference mode; see
        `models.fast.convolutions`.
    """

    is_folded = False

    def is_inference(self, training: bool | None) -> bool:
        """Tells whether a call takes the moving statistics and leaves them."""
        return not (training and self.trainable)

    def scale_and_shift(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what inference multiplies by and adds, each float32 [channels]."""
        scale = tf.math.rsqrt(self.moving_variance + self.epsilon)
        scale = scale * self.gamma if self.scale else scale
        shift = self.moving_mean * scale
        return scale, self.beta - shift if self.center else -shift

    def call(self, inputs, training=None, mask=None):
        if self.is_inference(training):
            if self.is_folded:
                return inputs
            if self._has_fused_kernel(inputs):
                return self._apply_fused(inputs)
        elif mask is None and not self._has_renorm():
            if self.synchronized and _has_several_replicas():
                return self._normalize_over_replicas(inputs)
            if self._has_fused_kernel(inputs):
                return self._normalize_fused(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _has_renorm(self) -> bool:
        return getattr(self, "renorm", False)  # Keras has it from version 3.13 on.

    def _has_fused_kernel(self, inputs: tf.Tensor) -> bool:
        return (
            inputs.shape.rank == 4 and self.axis % 4 == 3 and inputs.dtype != tf.float64
        )

    def _apply_fused(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes by the moving statistics."""
        statistics = (self.moving_mean, self.moving_variance)
        outputs, *_ = self._run_kernel(inputs, *statistics, is_training=False)
        return outputs

    def _normalize_fused(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes by the inputs' own statistics and moves the moving ones."""
        nothing = tf.zeros([0])
        outputs, mean, variance, *_ = self._run_kernel(
            inputs, nothing, nothing, is_training=True
        )
        # The kernel gives the unbiased variance (over n - 1); Keras keeps the biased.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1) / count
        self._move_statistics(mean, variance)
        return outputs

    def _run_kernel(
        self,
        inputs: tf.Tensor,
        mean: tf.Tensor,
        variance: tf.Tensor,
        *,
        is_training: bool,
    ) -> Sequence[tf.Tensor]:
        """Runs TensorFlow's fused kernel with the layer's scale and shift."""
        num_channels = inputs.shape[-1]
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else tf.ones([num_channels]),
            offset=self.beta if self.center else tf.zeros([num_channels]),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )

    def _normalize_over_replicas(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalizes by the statistics of all replicas and moves the moving ones."""
        outputs = inputs
        if outputs.dtype in (tf.float16, tf.bfloat16):
            outputs = tf.cast(outputs, tf.float32)
        mean, variance = self._moments_over_replicas(outputs)
        self._move_statistics(mean, variance)
        outputs = keras.ops.batch_normalization(
            outputs,
            mean,
            variance,
            axis=self.axis,
            offset=self.beta if self.center else None,
            scale=self.gamma if self.scale else None,
            epsilon=self.epsilon,
        )
        return tf.cast(outputs, inputs.dtype)

    def _moments_over_replicas(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns mean and variance, each [channels], of all replicas together."""
        channels = self.axis % inputs.shape.rank
        axes = [axis for axis in range(inputs.shape.rank) if axis != channels]
        mean, variance = tf.nn.moments(inputs, axes)
        local = tf.stack([mean, variance, tf.square(mean)])  # [3, channels]
        num_replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        mean, variance, square = tf.unstack(sum_over_replicas(local) / num_replicas)
        return mean, variance + tf.maximum(square - tf.square(mean), 0)

    def _move_statistics(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))


class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' group norm (Wu & He, ECCV 2018, arXiv:1803.08494), twice as fast.

    It takes the moments of each channel of a row, joins those of a group, and scales
    and shifts the channels, where Keras does all that in five dimensions. With n
    channels in a group, of mean m_i and variance v_i each:

        mean = avg(m_i),   variance = avg(v_i) + avg((m_i - mean)^2).

    The statistics are those of one row, so they are the same on any number of replicas,
    in any batch, in training and in inference. Computed in float32, at least.
    """

    def call(self, inputs):
        features = inputs
        if features.dtype in (tf.float16, tf.bfloat16):
            features = tf.cast(features, tf.float32)
        num_channels = features.shape[-1]
        grouped = [-1, self.groups, num_channels // self.groups]
        means, variances = (
            tf.reshape(moment, grouped) for moment in tf.nn.moments(features, [1, 2])
        )
        mean = tf.reduce_mean(means, -1, keepdims=True)  # [rows, groups, 1]
        variance = variances + tf.square(means - mean)
        variance = tf.reduce_mean(variance, -1, keepdims=True)
        gamma, beta = (
            tf.cast(tf.reshape(weight, [1, *grouped[1:]]), features.dtype)
            for weight in (self.gamma, self.beta)
        )
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        shift = beta - mean * scale
        by_channel = [-1, 1, 1, num_channels]
        outputs = features * tf.reshape(scale, by_channel)
        outputs += tf.reshape(shift, by_channel)
        return tf.cast(outputs, inputs.dtype)


def choose_groups(num_channels: int) -> int:
    """Returns how many groups a group norm has: 32, as in the paper, or fewer.

    It is the greatest divisor of the number of channels that is at most 32 and leaves
    two channels to a group: of one channel at one pixel, nothing would be left.

    Args:
      num_channels: of the feature map.
    """
    most = max(1, min(_MOST_GROUPS, num_channels // 2))
    return next(g for g in range(most, 0, -1) if num_channels % g == 0)


@contextlib.contextmanager
def limited_momentum(
    limits: Sequence[tuple[keras.Model, tf.Tensor]],
) -> Iterator[None]:
    """Bounds what the batch norms of models keep of their moving statistics.

    It serves all of them, Keras' own layers too: while the context lasts, their
    attribute `momentum` is a tensor, min(momentum, limit). Enter it where the graph of
    a step is built, outside of replica context: replicas are traced in threads that
    take turns, and would put each other's values back.

    Args:
      limits: built models, and a limit for each, a floating-point scalar in [0, 1]. Of
        a norm that is in several of them, the last limit counts. Norms that are not
        trainable keep all, so they are left out.
    """
    places = {
        norm: place
        for place, (model, _) in enumerate(limits)
        for norm in _trained_norms(model)
    }
    # In the type that Keras computes in; one tensor for all layers that share all this.
    keys = [
        (
            norm.momentum,
            keras.backend.result_type(norm.compute_dtype, "float32"),
            place,
        )
        for norm, place in places.items()
    ]
    limited = {}
    for momentum, dtype, place in dict.fromkeys(keys):
        _, limit = limits[place]
        least = tf.minimum(tf.constant(momentum, limit.dtype), limit)
        limited[momentum, dtype, place] = tf.cast(least, dtype)
    with _having_momenta(list(places), [limited[key] for key in keys]):
        yield


@contextlib.contextmanager
def kept_statistics(model: keras.Model) -> Iterator[None]:
    """Lets the batch norms of a model normalize by a batch, but keep what they know.

    Enter it as `limited_momentum`, inside of that or not.

    Args:
      model: a built model.
    """
    norms = _trained_norms(model)
    with _having_momenta(norms, [1.0] * len(norms)):
        yield


@contextlib.contextmanager
def _having_momenta(
    norms: Sequence[keras.layers.BatchNormalization], momenta: Sequence
) -> Iterator[None]:
    own = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    try:
        yield
    finally:
        for norm, momentum in zip(norms, own, strict=True):
            norm.momentum = momentum


def _trained_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [norm for norm in _find_norms(model) if norm.trainable]


def _find_norms(
    layer: keras.layers.Layer,
) -> Iterator[keras.layers.BatchNormalization]:
    """Yields the batch norms in a model, those inside of layers too."""
    if isinstance(layer, keras.layers.BatchNormalization):
        yield layer
    parts = layer.layers if isinstance(layer, keras.Model) else vars(layer).values()
    for part in parts:
        if isinstance(part, keras.layers.Layer):
            yield from _find_norms(part)


@tf.custom_gradient
def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over the replicas; call it in replica context.

    The gradient is the sum of the replicas' gradients. `ReplicaContext.all_reduce`
    gives the same, but there TensorFlow searches all that the replicas have computed
    so far for variables that the sum might read; that search ends at `stop_gradient`.
    """
    return tf.stop_gradient(_reduce(value)), _reduce


def _reduce(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().merge_call(
        lambda strategy, per_replica: strategy.extended.reduce_to(
            tf.distribute.ReduceOp.SUM, per_replica, per_replica
        ),
        args=(value,),
    )


def _has_several_replicas() -> bool:
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1
