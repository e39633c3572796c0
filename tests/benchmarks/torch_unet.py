"""The tutorial's U-Net in PyTorch: the layers of `models`, written by hand.

Torch pads strided convolutions on both sides where Keras pads on one; the sizes, and
with them the work, are the same.
"""

import torch
from torch import nn

_STAGES = (  # filters, blocks, stride of the first
    (16, 1, 1),
    (24, 2, 2),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)
_SKIP_BLOCKS = (1, 3, 6, 13)
"""Their expanded features, at strides 2, 4, 8 and 16, go to the decoder."""

_SKIP_CHANNELS = (96, 144, 192, 576)


class _Block(nn.Module):
    """An inverted residual."""

    def __init__(self, inputs: int, filters: int, stride: int, number: int):
        super().__init__()
        hidden = 6 * inputs if number else inputs
        self.is_residual = stride == 1 and inputs == filters
        self.expand = _conv_block(inputs, hidden, 1) if number else nn.Identity()
        self.depthwise = _conv_block(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, filters, 1, bias=False)
        # The last one's features are taken before it.
        self.norm = nn.Identity() if number == 16 else _encoder_norm(filters)


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018) of width 1, up to `block_16_project`."""

    def __init__(self):
        """Makes an encoder of random weights."""
        super().__init__()
        self.stem = _conv_block(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        inputs = 32
        for filters, repeats, stride in _STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                self.blocks.append(_Block(inputs, filters, first, len(self.blocks)))
                inputs = filters
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Returns the feature maps at strides 2, 4, 8, 16 and 32."""
        maps = []
        features = self.stem(images)
        for number, block in enumerate(self.blocks):
            expanded = block.expand(features)
            if number in _SKIP_BLOCKS:
                maps.append(expanded)
            projected = block.norm(block.project(block.depthwise(expanded)))
            features = features + projected if block.is_residual else projected
        return [*maps, features]


class UNet(nn.Module):
    """The U-Net on it, with pix2pix's upsampling blocks (arXiv:1611.07004)."""

    def __init__(self, num_classes: int, *, freeze_encoder: bool):
        """Makes a model of random weights.

        Args:
          num_classes: channels of the logits.
          freeze_encoder: whether the encoder stays as it is, batch norm included.
        """
        super().__init__()
        self._is_frozen = freeze_encoder
        self.encoder = MobileNetV2().requires_grad_(not freeze_encoder)
        self.ups = nn.ModuleList()
        inputs = _STAGES[-1][0]
        filters = (512, 256, 128, 64)
        for outputs, skip in zip(filters, reversed(_SKIP_CHANNELS), strict=True):
            self.ups.append(_upsample_block(inputs, outputs))
            inputs = outputs + skip
        self.logits = _transposed_conv(inputs, num_classes, bias=True)
        nn.init.xavier_uniform_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def train(self, mode: bool = True) -> "UNet":
        """Switches batch norm between training and inference; not a frozen one."""
        super().train(mode)
        self.encoder.train(mode and not self._is_frozen)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits.

        Args:
          images: float32 [batch, 3, height, width], -1..1.

        Returns:
          [batch, num_classes, height, width].
        """
        with torch.set_grad_enabled(not self._is_frozen and torch.is_grad_enabled()):
            *skips, features = self.encoder(images)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            features = torch.cat([up(features), skip], dim=1)
        return self.logits(features)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns the numbers of all and of the trained parameters, as Keras counts.

    All includes the moving statistics of batch norm, which are buffers here.
    """
    parameters = list(model.parameters())
    statistics = [b for b in model.buffers() if b.is_floating_point()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return sum(t.numel() for t in (*parameters, *statistics)), trained


def _encoder_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.001)  # Keras' 0.999.


def _conv_block(
    inputs: int, filters: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, filters, size, stride, size // 2, groups=groups, bias=False),
        _encoder_norm(filters),
        nn.ReLU6(inplace=True),
    )


def _transposed_conv(inputs: int, filters: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(
        inputs, filters, 3, stride=2, padding=1, output_padding=1, bias=bias
    )


def _upsample_block(inputs: int, filters: int) -> nn.Sequential:
    conv = _transposed_conv(inputs, filters, bias=False)
    nn.init.normal_(conv.weight, std=0.02)
    norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)  # Keras' 0.99.
    return nn.Sequential(conv, norm, nn.ReLU(inplace=True))
