"""What an exported file cannot do that the model of a run can."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from trainer.settings import variants as variants_lib

ASKED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "evaluate": ("tta", "merge_classes", "metrics"),
        "predict": ("tta", "tile_size", "save"),
    }
)
"""The settings that may ask too much of a file, by the modes that use one."""

_NEED_PROBABILITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "metrics": ("calibration",),
        "save": ("confidence", "probabilities", "npz"),
    }
)
"""Words of settings that only probabilities give a meaning; of others, all do."""


class Limit(NamedTuple):
    """Why a file cannot do what a setting asks for.

    Attributes:
      reason: what the file does, as it follows its name in a sentence.
      remedy: what can be done instead.
    """

    reason: str
    remedy: str


def find(
    name: str, value: Any, image_size: tuple[int, int], *, gives_scores: bool
) -> Limit | None:
    """Finds what of a file keeps it from what a setting asks for.

    Args:
      name: of the setting, one of `ASKED`.
      value: its value.
      image_size: height and width of the images that the file takes.
      gives_scores: whether the file gives the scores of all classes, rather than labels
        alone.

    Returns:
      The limit; None if the file can do it.
    """
    reason = f"takes images of {'x'.join(map(str, image_size))} pixels alone"
    if name == "tta" and _has_scales(value):
        return Limit(reason, "leave the scales out, or use the run")
    if name == "tile_size":
        is_other = value and image_size != (value, value)
        return Limit(reason, "leave it out, or use the run") if is_other else None
    if not gives_scores and set(value) & set(_NEED_PROBABILITIES.get(name, value)):
        return Limit(
            "gives labels alone, and this needs the probabilities of all classes",
            "export with --export_probabilities, or use the run",
        )
    return None


def _has_scales(words: Sequence[str]) -> bool:
    try:
        return bool(variants_lib.parse(words).scales)
    except ValueError:  # The settings refuse such words, and say why.
        return False
