"""A `.tflite` file for LiteRT that computes in 8 bits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.exporting.formats import litert

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from trainer.exporting import network as network_lib

load = litert.load


def write(network: "network_lib.Network", folder: str) -> dict[str, str]:
    """Writes a model whose numbers of 8 bits are laid out by what photos need.

    Arguments as for all formats.
    """

    def prepare(converter: "tf.lite.TFLiteConverter") -> None:
        import tensorflow as tf

        photos = network.read_photos()

        def give() -> "Iterator[dict[str, np.ndarray]]":
            for photo in photos:
                yield {"images": photo[tf.newaxis]}

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = give

    return litert.convert(network, folder, prepare)
