"""The contracting path of the original U-Net."""

import keras

_FILTERS = (64, 128, 256, 512, 1024)

MAPS = tuple(f"level{index}_norm1" for index in range(len(_FILTERS)))
"""The norm before the activation that ends each level."""


def make_plain(
    *,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    include_top: bool = False,
    weights: str | None = None,
    alpha: float = 1.0,
) -> keras.Model:
    """Makes the network, as the functions of `keras.applications` do.

    Ronneberger et al. (MICCAI 2015, arXiv:1505.04597): at each level two 3x3
    convolutions with ReLU, then max pooling. Not as in the paper, the convolutions are
    padded, so that maps fit each other, and have batch norm, without which so deep a
    network hardly learns from random weights.

    Args:
      input_tensor: the images, [batch, height, width, channels], float, their sides
        multiples of 16.
      input_shape: [height, width, channels] of an input that is made in its place.
      include_top: must be False: it classifies nothing.
      weights: a `.weights.h5` file of this network; None: random ones.
      alpha: width multiplier of all layers.

    Returns:
      A model to the deepest level's features, [batch, height / 16, width / 16, 1024].

    Raises:
      ValueError: for `imagenet`: nobody has published such weights.
    """
    if weights == "imagenet":
        raise ValueError("there are no ImageNet weights of plain; use none or a file")
    if include_top:
        raise ValueError("plain has no top")
    if input_tensor is None:
        input_tensor = keras.Input(input_shape)
    features = input_tensor
    for level, filters in enumerate(_FILTERS):
        if level:
            features = keras.layers.MaxPooling2D(name=f"level{level}_pool")(features)
        for index in range(2):
            features = keras.layers.Conv2D(
                max(8, round(alpha * filters)),
                3,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",  # As in the paper.
                name=f"level{level}_conv{index}",
            )(features)
            features = keras.layers.BatchNormalization(
                name=f"level{level}_norm{index}"
            )(features)
            features = keras.layers.ReLU(name=f"level{level}_relu{index}")(features)
    model = keras.Model(keras.utils.get_source_inputs(input_tensor), features)
    if weights:
        model.load_weights(weights)
    return model
