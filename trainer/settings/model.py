"""The network."""

import dataclasses

from trainer import errors
from trainer.settings import fields


@dataclasses.dataclass(frozen=True)
class ModelConfig(fields.Section):
    """The U-Net."""

    encoder: str = fields.setting(
        "mobilenet_v2",
        "The encoder.",
        choices=("mobilenet_v2",),
        identity=True,
        shapes_model=True,
        unused_by=("doctor",),
    )
    encoder_alpha: float = fields.setting(
        1.0,
        "Width multiplier of MobileNetV2; ImageNet weights exist for 0.35, 0.5, 0.75, "
        "1.0, 1.3 and 1.4.",
        minimum=0.1,
        maximum=4.0,
        identity=True,
        shapes_model=True,
        only_with={"encoder": ("mobilenet_v2",)},
        unused_by=("doctor",),
    )
    encoder_weights: str = fields.setting(
        "imagenet",
        "Initial weights of the encoder: imagenet (downloaded by Keras), none "
        "(random), or a file: .weights.h5, or .h5 as Keras downloads it.",
        unused_by=("evaluate", "doctor"),
    )
    freeze_encoder: bool = fields.setting(
        True,
        "Keep the encoder as it is: no gradient, batch norm in inference mode.",
        identity=True,
        unused_by=("evaluate", "doctor"),
    )
    encoder_bn_momentum: float | None = fields.setting(
        None,
        "Momentum of the encoder's moving batch-norm statistics; default: the "
        "encoder's own (0.999 for MobileNetV2, too slow for short runs from scratch).",
        minimum=0.0,
        maximum=1.0,
        identity=True,
        only_with={"freeze_encoder": (False,)},
        unused_by=("evaluate", "doctor"),
    )
    decoder: str = fields.setting(
        "pix2pix",
        "pix2pix: this package's upsampling block; tensorflow_examples: the original "
        "block, if that package is installed.",
        choices=("pix2pix", "tensorflow_examples"),
        identity=True,
        shapes_model=True,
        unused_by=("doctor",),
    )
    decoder_filters: tuple[int, ...] = fields.setting(
        (512, 256, 128, 64),
        "Channels of the four upsampling blocks, deepest first.",
        minimum=1,
        identity=True,
        shapes_model=True,
        maximum=8192,
        unused_by=("doctor",),
    )

    decoder_dropout: float = fields.setting(
        0.0,
        "Share of each upsampling block's features that a training step drops.",
        minimum=0.0,
        maximum=0.95,
        identity=True,
        only_with={"decoder": ("pix2pix",)},
        unused_by=("evaluate", "doctor"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.decoder_filters) != 4:
            fields.reject(
                "decoder_filters",
                self.decoder_filters,
                "give 4 numbers, one for each upsampling block",
            )
        if self.freeze_encoder and self.encoder_weights == "none":
            raise errors.ConfigError(
                "--freeze_encoder with --encoder_weights=none would keep a random "
                "encoder for good; use --nofreeze_encoder, or weights."
            )
