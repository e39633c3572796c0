"""Decoders by name: from feature maps to logits at the size of the images."""

from models.decoders import fpn, pix2pix, tensorflow_examples

DECODERS = {
    "pix2pix": pix2pix.decode,
    "tensorflow_examples": tensorflow_examples.decode,
    "fpn": fpn.decode,
}
"""By the names of `registry.DECODERS`.

Each is a function of feature maps, their strides and the number of classes, and by name
of `filters`, `synchronized` and the decoder's options; it returns logits at the size of
the images.
"""
