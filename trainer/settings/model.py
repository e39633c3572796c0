"""The network."""

import dataclasses
from collections.abc import Mapping, Sequence

from models import registry
from trainer import errors
from trainer.settings import fields

_COMMON_STRIDES = (2, 4, 8, 16, 32)


def _describe(parts: Mapping[str, registry.Encoder | registry.Decoder]) -> str:
    """Returns what `--help` says of the parts of a registry."""
    return "; ".join(f"{name}: {part.about}" for name, part in parts.items())


def _describe_libraries() -> str:
    """Returns what `--help` says of encoders of other packages."""
    return "; ".join(
        f"{prefix}:{library.name}: {library.about}"
        for prefix, library in registry.LIBRARIES.items()
    )


def _describe_filters() -> str:
    """Returns what `--help` says of the decoders' default numbers of channels."""
    names: dict[tuple[int, ...], list[str]] = {}
    for name, part in registry.DECODERS.items():
        names.setdefault(part.default_filters(_COMMON_STRIDES), []).append(name)
    return "; ".join(
        f"{fields.format_value(filters)} ({', '.join(same)})"
        for filters, same in names.items()
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig(fields.Section):
    """Encoder and decoder.

    What the registry names as an option of a part is a setting here, `encoder_OPTION`
    or `decoder_OPTION`, that has a meaning only with the parts that take it.
    """

    encoder: str = fields.setting(
        "mobilenet_v2",
        f"The encoder. {_describe(registry.ENCODERS)}; {_describe_libraries()}.",
        choices=tuple(registry.ENCODERS),
        prefixes={p: library.name for p, library in registry.LIBRARIES.items()},
        identity=True,
        shapes_model=True,
        unused_by=("doctor",),
        in_fit=tuple(registry.ENCODERS),
    )
    encoder_alpha: float = fields.setting(
        1.0,
        "Width multiplier of the encoder's layers; ImageNet weights exist for 0.35, "
        "0.5, 0.75, 1.0, 1.3 and 1.4 of MobileNetV2, and 0.75 and 1.0 of MobileNetV3.",
        minimum=0.1,
        maximum=4.0,
        identity=True,
        shapes_model=True,
        only_with={"encoder": registry.encoders_with("alpha")},
        unused_by=("doctor",),
    )
    encoder_drop_connect: float = fields.setting(
        0.2,
        "Stochastic depth: the share of images for which a training step leaves out "
        "the last residual block of the encoder. Earlier blocks have a smaller share.",
        minimum=0.0,
        maximum=0.95,
        identity=True,
        only_with={
            "encoder": registry.encoders_with("drop_connect"),
            "freeze_encoder": (False,),
        },
        unused_by=("evaluate", "doctor"),
    )
    encoder_output_stride: int = fields.setting(
        32,
        "How many times smaller than the images the smallest feature maps of the "
        "encoder are: 16 or 32, and nothing between. With 16, its last stage has "
        "dilated convolutions in place of a stride, which gives finer maps, and takes "
        "more time and memory.",
        minimum=16,
        maximum=32,
        identity=True,
        shapes_model=True,
        only_with={"encoder": registry.encoders_with("output_stride")},
        unused_by=("doctor",),
        in_fit=(32,),
    )
    encoder_weights: str = fields.setting(
        "imagenet",
        "Initial weights of the encoder: imagenet (downloaded by Keras; of a preset, "
        "the preset's own), none (random), or a file: .weights.h5, or .h5 as Keras "
        "downloads it.",
        only_with={"init_checkpoint": ("",)},
        unused_by=("evaluate", "doctor"),
    )
    init_checkpoint: str = fields.setting(
        "",
        "Another run, with whose weights this one begins, or with its moving "
        "averages, if it kept them. Give its folder (for the last checkpoint), or the "
        "folder of one of its checkpoints. Classes are matched by name. A run that "
        "has checkpoints of its own does not read it.",
        parts=lambda path: ("a run",) if path else (),
        is_local=True,
        unused_by=("evaluate", "doctor"),
        in_fit=("",),
    )
    init_scope: str = fields.setting(
        "all",
        "What to take from --init_checkpoint. all: encoder and decoder, but not the "
        "logits if the classes are others; encoder: only the encoder.",
        choices=("all", "encoder"),
        only_with={"init_checkpoint": ("a run",)},
        is_local=True,
        unused_by=("evaluate", "doctor"),
    )
    image_normalization: str | None = fields.setting(
        None,
        "How channels are normalized inside the model. network: as the pretrained "
        "weights want them, and channels beyond 3 as measured; measured: by the mean "
        "and deviation of each channel over the training split. Default: measured "
        "with --encoder_weights=none, else network.",
        choices=("network", "measured"),
        identity=True,
        legacy="network",
        shapes_model=True,
        unused_by=("doctor",),
    )
    freeze_encoder: bool = fields.setting(
        True,
        "Keep the encoder as it is: no gradients, and batch norm in inference mode.",
        identity=True,
        unused_by=("evaluate", "doctor"),
    )
    freeze_encoder_stages: int = fields.setting(
        0,
        "How many feature maps of a trained encoder stay as they are, beginning with "
        "the finest: all layers that lead to them are kept, with batch norm in "
        "inference mode.",
        minimum=0,
        maximum=max(len(part.strides) for part in registry.ENCODERS.values()),
        identity=True,
        only_with={"freeze_encoder": (False,)},
        unused_by=("evaluate", "doctor"),
        in_fit=(0,),
    )
    unfreeze_encoder_at: int | None = fields.setting(
        None,
        "For so many epochs train only the decoder, as with --freeze_encoder, and "
        "then the encoder, too. The learning rate does not depend on this. Default: "
        "the encoder is trained from the start.",
        minimum=1,
        maximum=100_000,
        identity=True,
        only_with={"freeze_encoder": (False,)},
        unused_by=("evaluate", "doctor"),
        in_fit=(None,),
    )
    encoder_bn_momentum: float | None = fields.setting(
        None,
        "Momentum of the encoder's moving batch-norm statistics; "
        "--moving_average_warmup limits it. Default: the encoder's own (0.999 for "
        "MobileNetV2).",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        only_with={"freeze_encoder": (False,)},
        unused_by=("evaluate", "doctor"),
        in_fit=(None,),
    )
    decoder: str = fields.setting(
        "pix2pix",
        f"The decoder. {_describe(registry.DECODERS)}.",
        choices=tuple(registry.DECODERS),
        identity=True,
        shapes_model=True,
        unused_by=("doctor",),
        in_fit=("pix2pix", "tensorflow_examples"),
    )
    decoder_filters: tuple[int, ...] | None = fields.setting(
        None,
        "Channels inside the decoder: those of a U-Net's blocks, deepest first, or "
        "the one width of fpn, deeplabv3plus and segformer. Default, with strides of "
        f"2 to 32: {_describe_filters()}.",
        minimum=1,
        identity=True,
        shapes_model=True,
        maximum=8192,
        unused_by=("doctor",),
    )
    decoder_norm: str = fields.setting(
        "batch",
        "What normalizes the features of the decoder. batch: batch norm, over all "
        "devices; group: group norm, for batches of a few images (slower).",
        choices=("batch", "group"),
        identity=True,
        shapes_model=True,
        only_with={"decoder": registry.decoders_with("norm")},
        unused_by=("doctor",),
        in_fit=("batch",),
    )
    decoder_dropout: float = fields.setting(
        0.0,
        "Share of features that a training step drops: in each block of a U-Net, in "
        "each branch of fpn, in the joined branches of deeplabv3plus, in the fused "
        "features of segformer.",
        minimum=0.0,
        maximum=0.95,
        identity=True,
        only_with={"decoder": registry.decoders_with("dropout")},
        unused_by=("evaluate", "doctor"),
        in_fit=(0.0,),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder_output_stride not in (16, 32):
            fields.reject(
                "encoder_output_stride", self.encoder_output_stride, "use 16 or 32"
            )
        if self.image_normalization is None:
            is_random = self.encoder_weights == "none"
            default = "measured" if is_random else "network"
            object.__setattr__(self, "image_normalization", default)
        if self.freeze_encoder and self.encoder_weights == "none":
            raise errors.ConfigError(
                "--freeze_encoder with --encoder_weights=none would keep a random "
                "encoder for good; use --nofreeze_encoder, or weights."
            )
        if self.unfreeze_encoder_at and self.encoder_weights == "none":
            fields.reject(
                "unfreeze_encoder_at",
                self.unfreeze_encoder_at,
                "with --encoder_weights=none the decoder would be trained on what a "
                "random encoder gives; leave one of the two out",
            )
        if self.freeze_encoder_stages and self.encoder_weights == "none":
            fields.reject(
                "freeze_encoder_stages",
                self.freeze_encoder_stages,
                "with --encoder_weights=none these would keep random weights for good; "
                "leave one of the two out",
            )
        if not registry.library_of(self.encoder):
            strides = registry.strides_of(self.encoder, self.encoder_options())
            self.check_strides(strides)
            object.__setattr__(self, "decoder_filters", self.filters_for(strides))

    def check_strides(self, strides: Sequence[int]) -> None:
        """Checks what is said of an encoder's maps, once their strides are known.

        Those of a library's encoder are not, before it is opened.

        Raises:
          errors.ConfigError: if it has not so many maps.
        """
        count, num_maps = self.freeze_encoder_stages, len(strides)
        if count >= num_maps:
            fields.reject(
                "freeze_encoder_stages",
                count,
                f"--encoder={self.encoder} has {num_maps} feature maps, so "
                "that this is --freeze_encoder; use that, or a smaller number",
            )

    def filters_for(self, strides: Sequence[int]) -> tuple[int, ...]:
        """Returns `decoder_filters` for an encoder's strides, or their default.

        Raises:
          errors.ConfigError: if they are not so many.
        """
        default = registry.default_filters(self.decoder, strides)
        if self.decoder_filters is None:
            return default
        if len(self.decoder_filters) != len(default):
            fields.reject(
                "decoder_filters",
                self.decoder_filters,
                f"--decoder={self.decoder} on --encoder={self.encoder} takes "
                f"{_count(len(default))}, such as "
                f"--decoder_filters={fields.format_value(default)}",
            )
        return self.decoder_filters

    def encoder_options(self) -> dict[str, object]:
        """Returns what the encoder takes of these settings, by the registry's names."""
        names = registry.options_of(self.encoder)
        return {name: getattr(self, f"encoder_{name}") for name in names}

    def decoder_options(self) -> dict[str, object]:
        """Returns what the decoder takes of these settings, by the registry's names."""
        names = registry.DECODERS[self.decoder].options
        return {name: getattr(self, f"decoder_{name}") for name in names}


def _count(number: int) -> str:
    return "1 number" if number == 1 else f"{number} numbers"
