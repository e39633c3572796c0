"""The variants of an image that `--tta` names: mirrored, and at other sizes."""

from collections.abc import Sequence
from typing import NamedTuple

_MIRROR = "flip"
_SMALLEST, _LARGEST = 0.25, 4.0


class Variants(NamedTuple):
    """What a model is shown of an image, besides the image itself.

    Attributes:
      is_mirrored: whether each variant is shown mirrored left to right, too.
      scales: factors of height and width, without 1, which is always there.
    """

    is_mirrored: bool = False
    scales: tuple[float, ...] = ()


def parse(words: Sequence[str]) -> Variants:
    """Reads the variants that words stand for.

    Args:
      words: `flip`, and numbers for the scales, in any order.

    Raises:
      ValueError: if a word is neither, is out of range, or is there twice.
    """
    is_mirrored, scales = False, []
    for word in words:
        if word == _MIRROR:
            is_twice, is_mirrored = is_mirrored, True
        else:
            scale = _parse_scale(word)
            is_twice = scale in scales
            scales.append(scale)
        if is_twice:
            raise ValueError(f"{word} is there twice; leave one out")
    return Variants(is_mirrored, tuple(scales))


def _parse_scale(word: str) -> float:
    try:
        scale = float(word)
    except ValueError:
        scale = 0.0
    if not _SMALLEST <= scale <= _LARGEST:  # This is so for "nan", too.
        raise ValueError(
            f"{word!r} is neither {_MIRROR} nor a scale; use {_MIRROR}, numbers from "
            f"{_SMALLEST:g} to {_LARGEST:g}, or both, e.g. {_MIRROR},0.75,1.25"
        )
    if scale == 1:
        raise ValueError(
            f"{word!r} is the size of the image itself, which is always among the "
            "variants; leave it out"
        )
    return scale
