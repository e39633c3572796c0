"""The U-Net of the tutorial with the blocks of the `tensorflow_examples` package."""

from collections.abc import Callable, Sequence

import keras

from models.decoders import doubling
from models.fast import normalization


def decode(
    features: Sequence[keras.KerasTensor],
    strides: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int],
    synchronized: bool = False,
) -> keras.KerasTensor:
    """Decodes by the package's upsampling blocks; see `doubling.decode`.

    Args:
      features: maps of any strides.
      strides: of the maps.
      num_classes: channels of the logits.
      filters: output channels of each block, deepest first.
      synchronized: whether batch norm takes its statistics over all replicas.

    Raises:
      ImportError: if the package is not installed, or cannot be used.
    """
    upsample = _import_upsample()

    def make_block(index: int, channels: int) -> Callable:
        del index
        block = upsample(channels, 3)
        if not isinstance(block, keras.Sequential):
            raise ImportError(
                "tensorflow_examples makes its block with another Keras than that of "
                "this package; unset the environment variable TF_USE_LEGACY_KERAS"
            )
        if synchronized:
            block = keras.Sequential([_synchronize(layer) for layer in block.layers])

        def join_and_upsample(maps: list[keras.KerasTensor]) -> keras.KerasTensor:
            if len(maps) > 1:
                maps = [keras.layers.Concatenate()(maps)]
            return block(maps[0])

        return join_and_upsample

    return doubling.decode(
        features, strides, num_classes, filters=filters, make_block=make_block
    )


def _import_upsample() -> Callable[[int, int], keras.Sequential]:
    """Returns the function of the package that makes a block."""
    try:
        from tensorflow_examples.models.pix2pix import pix2pix
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "tensorflow_examples":
            raise ImportError(
                f"the package tensorflow_examples cannot be imported ({error}); mend "
                "that, or use pix2pix, which is the same block"
            ) from error
        raise ImportError(
            "the package tensorflow_examples is not installed. It is not on PyPI: in a "
            "clone of this repository run `pip install '.[examples]'`, which takes it "
            "from GitHub, or use pix2pix, which is the same block"
        ) from error
    return pix2pix.upsample


def _synchronize(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Returns a layer like the given one, whose batch norm is that of all replicas."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return layer
    # This package's, since Keras' own takes minutes to trace on two replicas.
    return normalization.BatchNormalization.from_config(
        {**layer.get_config(), "synchronized": True}
    )
