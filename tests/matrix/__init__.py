"""Encoders with decoders, precisions and formats, through all that a run does."""

FAMILIES = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnetv2_b0",
    "resnet50",
    "resnet50_v2",
    "convnext_tiny",
    "densenet121",
    "plain",
)
"""The smallest encoder of each architecture: others have more of the same layers."""
