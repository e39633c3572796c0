"""The encoders and decoders that there are, and what settings must know of them.

Nothing heavy is imported here: `--help` and a rejected flag answer at once. The
encoders themselves are the rows of `models.encoders.applications`, by the same names;
those of a library are named after its prefix.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple


class Encoder(NamedTuple):
    """What is known of an encoder before it is built.

    Attributes:
      about: what `--help` says of it.
      strides: of its feature maps, powers of 2, finest first.
      options: names of what its builder takes besides; `--encoder_NAME` sets each.
    """

    about: str
    strides: tuple[int, ...]
    options: tuple[str, ...] = ()


class Library(NamedTuple):
    """Encoders of another package, each named `PREFIX:NAME`.

    Attributes:
      name: what stands for the NAME in `--help`.
      about: what `--help` says of it.
    """

    name: str
    about: str


class Decoder(NamedTuple):
    """What is known of a decoder before it is built.

    Attributes:
      module: what to import when a model is built; see `models.decoders`.
      about: what `--help` says of it.
      default_filters: from the strides of an encoder to the numbers of channels that
        it has by default; it takes as many.
      options: names of what its builder takes besides the number of channels;
        `--decoder_NAME` sets each.
    """

    module: str
    about: str
    default_filters: Callable[[Sequence[int]], tuple[int, ...]]
    options: tuple[str, ...] = ()


def _double_with_depth(strides: Sequence[int]) -> tuple[int, ...]:
    """Returns 64 for the block that ends at stride 2, twice as much for each deeper."""
    num_blocks = max(strides).bit_length() - 2  # From stride 32 to 2: 4 blocks.
    return tuple(64 << index for index in reversed(range(num_blocks)))


def _from_32(strides: Sequence[int]) -> tuple[int, ...]:
    """Returns 32 for a U-Net's last level, twice as much for each deeper."""
    num_levels = (max(strides) // min(2, *strides)).bit_length() - 1
    return tuple(32 << index for index in reversed(range(num_levels)))


def _by_stride(strides: Sequence[int]) -> tuple[int, ...]:
    """Returns as much for each stride that there is, but for the greatest."""
    return tuple(16 * stride for stride in sorted(set(strides), reverse=True)[1:])


def _narrow(strides: Sequence[int]) -> tuple[int, ...]:
    """Returns the width of semantic FPN, which is one number."""
    del strides
    return (128,)


def _wide(strides: Sequence[int]) -> tuple[int, ...]:
    """Returns the width of DeepLabv3+, and of SegFormer-B0: one number."""
    del strides
    return (256,)


_FIVE = (2, 4, 8, 16, 32)

ENCODERS = {
    "mobilenet_v2": Encoder(
        "small and fast, 1.8 million parameters",
        _FIVE,
        options=("alpha", "output_stride"),
    ),
    "mobilenet_v3_small": Encoder(
        "0.9 million", _FIVE, options=("alpha", "output_stride")
    ),
    "mobilenet_v3_large": Encoder(
        "2.8 million", _FIVE, options=("alpha", "output_stride")
    ),
    "efficientnetv2_b0": Encoder(
        "5.7 million", _FIVE, options=("drop_connect", "output_stride")
    ),
    "efficientnetv2_b1": Encoder(
        "6.7 million", _FIVE, options=("drop_connect", "output_stride")
    ),
    "efficientnetv2_b2": Encoder(
        "8.5 million", _FIVE, options=("drop_connect", "output_stride")
    ),
    "efficientnetv2_b3": Encoder(
        "12.6 million", _FIVE, options=("drop_connect", "output_stride")
    ),
    "efficientnetv2_s": Encoder(
        "20 million", _FIVE, options=("drop_connect", "output_stride")
    ),
    "resnet50": Encoder("24 million", _FIVE, options=("output_stride",)),
    "resnet101": Encoder("43 million", _FIVE, options=("output_stride",)),
    "resnet50_v2": Encoder("24 million", _FIVE),
    "convnext_tiny": Encoder("28 million", _FIVE[1:]),
    "convnext_small": Encoder("49 million", _FIVE[1:]),
    "densenet121": Encoder("7.0 million", _FIVE),
    "plain": Encoder(
        "the original U-Net's, 19 million, without ImageNet weights",
        (1, 2, 4, 8, 16),
        options=("alpha",),
    ),
}

LIBRARIES = {
    "keras_hub": Library(
        "PRESET",
        "the backbone of a preset of KerasHub that has feature maps, with its "
        "weights; PRESET is one that KerasHub downloads, or a folder",
    ),
}
"""By their prefixes."""

DECODERS = {
    "pix2pix": Decoder(
        "models.decoders.pix2pix",
        "the U-Net of TensorFlow's tutorial",
        default_filters=_double_with_depth,
        options=("norm", "dropout"),
    ),
    "tensorflow_examples": Decoder(
        "models.decoders.tensorflow_examples",
        "the same with the original block, if that package is installed",
        default_filters=_double_with_depth,
    ),
    "fpn": Decoder(
        "models.decoders.fpn",
        "semantic FPN, lighter",
        default_filters=_narrow,
        options=("norm", "dropout"),
    ),
    "unet": Decoder(
        "models.decoders.unet",
        "a U-Net of two convolutions a level",
        default_filters=_from_32,
        options=("norm", "dropout"),
    ),
    "unetpp": Decoder(
        "models.decoders.unetpp",
        "UNet++, with a net of blocks for skips",
        default_filters=_by_stride,
        options=("norm", "dropout"),
    ),
    "deeplabv3plus": Decoder(
        "models.decoders.deeplabv3plus",
        "DeepLabv3+, context by atrous convolutions",
        default_filters=_wide,
        options=("norm", "dropout"),
    ),
    "segformer": Decoder(
        "models.decoders.segformer",
        "SegFormer's, linear layers alone",
        default_filters=_wide,
        options=("norm", "dropout"),
    ),
}


def library_of(encoder: str) -> str:
    """Returns the prefix of an encoder that is one of a library; empty: it is not."""
    prefix, _, name = encoder.partition(":")
    return prefix if prefix in LIBRARIES and name else ""


def options_of(encoder: str) -> tuple[str, ...]:
    """Returns the names of the options of an encoder; those of a library take none."""
    return () if library_of(encoder) else ENCODERS[encoder].options


def strides_of(encoder: str, options: Mapping[str, object]) -> tuple[int, ...]:
    """Returns the strides of an encoder's maps.

    Args:
      encoder: a key of `ENCODERS`.
      options: of it; `output_stride` bounds the strides.
    """
    largest = options.get("output_stride") or max(ENCODERS[encoder].strides)
    return tuple(min(stride, largest) for stride in ENCODERS[encoder].strides)


def default_filters(decoder: str, strides: Sequence[int]) -> tuple[int, ...]:
    """Returns the numbers of channels that a decoder has on such maps by default."""
    return DECODERS[decoder].default_filters(strides)


def encoders_with(option: str) -> tuple[str, ...]:
    """Returns the names of the encoders that take an option."""
    return tuple(name for name, part in ENCODERS.items() if option in part.options)


def decoders_with(option: str) -> tuple[str, ...]:
    """Returns the names of the decoders that take an option."""
    return tuple(name for name, part in DECODERS.items() if option in part.options)


def load_decoder(name: str) -> Callable:
    """Returns the function that a decoder is; see `models.decoders`."""
    return importlib.import_module(DECODERS[name].module).decode


def check_options(name: str, given: Iterable[str], taken: Sequence[str]) -> None:
    """Checks that a part takes all options that it is given.

    Raises:
      ValueError: if it does not.
    """
    if unknown := sorted(set(given) - set(taken)):
        raise ValueError(
            f"{name} does not take {', '.join(unknown)}; it takes "
            f"{', '.join(taken) or 'no options'}"
        )
