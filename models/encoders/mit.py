"""The Mix Transformer, SegFormer's encoder, for images of any size.

Xie et al., NeurIPS 2021, arXiv:2105.15203. KerasHub has it for square images of one
size alone: its layers take maps for rows of pixels, and the root of their number for
the width. Here they are maps throughout, and the weights fit.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from models import layers, scaling
from models.encoders import cloning
from models.fast import convolutions

_DROPOUT = 0.1
"""What KerasHub's layers drop of the attention, and of what it gives."""

_EPSILON = 1e-5
"""Of the norms that end a level, and that follow a convolution; those of blocks have
1e-6."""


class Attention(layers.RowDropout):
    """Lets each place of a map attend to all places of a smaller one.

    The inputs are queries, [batch, height, width, channels], and keys and values, maps
    of one size and as many channels. The output is like the queries. In training, what
    a place attends to is dropped at random.
    """

    def __init__(self, num_heads: int, rate: float, **kwargs):
        """Makes the layer.

        Args:
          num_heads: into how many parts the channels are taken.
          rate: share of the attention that a training step drops.
          **kwargs: of `layers.RowDropout`.
        """
        super().__init__(rate, **kwargs)
        self.num_heads = num_heads

    def call(self, inputs, training=False):
        queries, keys, values = (self._split(maps) for maps in inputs)
        # Scaled before the product: float16 ends at 65,504.
        queries *= queries.shape[-1] ** -0.5
        scores = tf.matmul(queries, keys, transpose_b=True)
        # [batch, heads, places, places of the smaller map]
        if scores.dtype in (tf.float16, tf.bfloat16):
            scores = tf.cast(scores, tf.float32)
        weights = tf.cast(tf.nn.softmax(scores), values.dtype)
        weights = super().call(weights, training=training)
        attended = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
        return tf.reshape(attended, keras.ops.shape(inputs[0]))

    def _split(self, maps: tf.Tensor) -> tf.Tensor:
        """Returns [batch, heads, places, channels of a head]."""
        batch, height, width, channels = keras.ops.shape(maps)
        size = channels // self.num_heads
        parts = tf.reshape(maps, [batch, height * width, self.num_heads, size])
        return tf.transpose(parts, [0, 2, 1, 3])

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


class _Block(NamedTuple):
    """What a transformer block is.

    Attributes:
      name: of KerasHub's layer.
      channels: of its maps.
      num_heads: of its attention.
      reduction: how much smaller the map is that it attends to.
      drop_path: the rate of its stochastic depth.
    """

    name: str
    channels: int
    num_heads: int
    reduction: int
    drop_path: float

    def apply(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Applies attention and a small network, each with a way past it."""
        attended = self._attend(self._normalize("norm1", 1e-6)(features))
        features = self._add(features, attended, "attention")
        mixed = self._mix(self._normalize("norm2", 1e-6)(features))
        return self._add(features, mixed, "mlp")

    def _attend(self, features: keras.KerasTensor) -> keras.KerasTensor:
        keys = features
        if self.reduction > 1:
            reduce = convolutions.Conv2D(
                self.channels,
                self.reduction,
                strides=self.reduction,
                name=f"{self.name}.attn.sr",
            )
            keys = self._normalize("attn.norm", _EPSILON)(reduce(features))
        attention = Attention(
            self.num_heads,
            _DROPOUT,
            stream=f"{self.name}.attention",
            name=f"{self.name}.attention",
        )
        attended = attention(
            [
                self._dense(f"attn.{name}")(maps)
                for name, maps in (("q", features), ("k", keys), ("v", keys))
            ]
        )
        projected = self._dense("attn.proj")(attended)
        return self._drop(_DROPOUT, "projection")(projected)

    def _mix(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Applies two linear layers, and a depthwise convolution between them."""
        features = self._dense("mlp.fc1", 4)(features)
        features = convolutions.DepthwiseConv2D(
            3, padding="same", name=f"{self.name}.mlp.dwconv"
        )(features)
        return self._dense("mlp.fc2")(keras.ops.gelu(features))

    def _add(
        self, features: keras.KerasTensor, branch: keras.KerasTensor, name: str
    ) -> keras.KerasTensor:
        """Adds a branch, which a training step leaves out for some of the images."""
        drop = self._drop(self.drop_path, f"{name}_path", (None, 1, 1, 1))
        add = keras.layers.Add(name=f"{self.name}.{name}_add")
        return add([features, drop(branch)])

    def _drop(
        self,
        rate: float,
        name: str,
        noise_shape: tuple[int | None, ...] | None = None,
    ) -> layers.RowDropout:
        name = f"{self.name}.{name}_drop"
        return layers.RowDropout(rate, stream=name, noise_shape=noise_shape, name=name)

    def _dense(self, name: str, multiple: int = 1) -> convolutions.Conv2D:
        # A linear layer of maps. Its kernel has two axes more than KerasHub's.
        return convolutions.Conv2D(
            multiple * self.channels, 1, name=f"{self.name}.{name}"
        )

    def _normalize(self, name: str, epsilon: float) -> keras.layers.LayerNormalization:
        return keras.layers.LayerNormalization(
            epsilon=epsilon, name=f"{self.name}.{name}"
        )


def build_mit(
    images: keras.KerasTensor,
    image_scaling: scaling.ImageScaling,
    config: Mapping[str, Any],
) -> keras.Model:
    """Builds the encoder, with random weights.

    Layers with weights have the names of KerasHub's, `BLOCK.PART.PART`. Stochastic
    depth has the rates of the config, and dropout KerasHub's.

    Args:
      images: the input.
      image_scaling: the first layer; its output's sides are multiples of `multiple_of`.
      config: of a `keras_hub.models.MiTBackbone`.

    Returns:
      A model from the images to a map for each level, finest first.
    """
    features, maps = image_scaling(images), []
    depths = config["layerwise_depths"]
    rates = iter(_spread(config["max_drop_path_rate"], sum(depths)))
    for level, depth in enumerate(depths):
        channels = config["hidden_dims"][level]
        features = _embed(
            features,
            channels,
            patch_size=config["layerwise_patch_sizes"][level],
            stride=config["layerwise_strides"][level],
            name=f"patch_and_embed_{level}",
        )
        for index in range(depth):
            block = _Block(
                f"hierarchical_encoder_{level}_{index}",
                channels,
                config["layerwise_num_heads"][level],
                config["layerwise_sr_ratios"][level],
                next(rates),
            )
            features = block.apply(features)
        norm = keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"norm_{level}")
        features = norm(features)
        maps.append(features)
    return keras.Model(images, maps, name="mit")


def multiple_of(config: Mapping[str, Any]) -> int:
    """Returns what the sides of images must be multiples of, so that no place is lost.

    Args:
      config: as for `build_mit`.
    """
    multiple, stride = 1, 1
    ratios = config["layerwise_sr_ratios"]
    for own, ratio in zip(config["layerwise_strides"], ratios, strict=True):
        stride *= own
        multiple = math.lcm(multiple, stride * ratio)
    return multiple


def pair(network: keras.Model, model: keras.Model) -> cloning.Pairs:
    """Returns the layers of KerasHub's network and those that `build_mit` made."""
    # What ends a level has no name of its own there.
    norms = iter(
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.LayerNormalization)
    )
    pairs = []
    for layer in model.layers:
        owner, _, path = layer.name.partition(".")
        if not layer.weights or isinstance(layer, scaling.ImageScaling):
            continue
        if owner.startswith("norm_"):
            pairs.append((next(norms), layer))
        else:
            pairs.append((operator.attrgetter(path)(network.get_layer(owner)), layer))
    return pairs


def _spread(last: float, count: int) -> Sequence[float]:
    """Returns numbers at even steps, from 0 to the last one."""
    return [last * index / max(count - 1, 1) for index in range(count)]


def _embed(
    features: keras.KerasTensor,
    channels: int,
    *,
    patch_size: int,
    stride: int,
    name: str,
) -> keras.KerasTensor:
    """Makes a map smaller, by patches that overlap."""
    pad = keras.layers.ZeroPadding2D(patch_size // 2, name=f"{name}.pad")
    project = convolutions.Conv2D(
        channels, patch_size, strides=stride, name=f"{name}.proj"
    )
    norm = keras.layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}.norm")
    return norm(project(pad(features)))
