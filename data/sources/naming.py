"""How files are named that belong together without sharing their stems."""

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Iterator

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]+")
"""A number, a word, or what separates the two."""

_NO_LABELS = ("color", "colour", "instance", "overlay", "depth", "disparity")
"""Words in the names of files that lie beside masks without holding classes."""

_MASK_WORDS = (
    *("mask", "label", "annot", "gt", "truth", "seg", "lbl", "target", "manual"),
    *("_l", "trimap"),
)


@dataclasses.dataclass(frozen=True)
class Affixes:
    """What stands around the part of their names that an image and its mask share."""

    image_prefix: str
    image_suffix: str
    mask_prefix: str
    mask_suffix: str

    def find_core(self, stem: str) -> str | None:
        """Returns the part of an image's name, without folders, that is the mask's."""
        least = len(self.image_prefix) + len(self.image_suffix) + 1
        if len(stem) < least or not stem.startswith(self.image_prefix):
            return None
        if not stem.endswith(self.image_suffix):
            return None
        return stem[len(self.image_prefix) : len(stem) - len(self.image_suffix)]

    def name_mask(self, stem: str) -> str | None:
        """Returns the stem of the mask of an image, both with their subfolders."""
        folder, name = os.path.split(stem)
        core = self.find_core(name)
        if core is None:
            return None
        return os.path.join(folder, f"{self.mask_prefix}{core}{self.mask_suffix}")


def find_affixes(
    image_stems: Collection[str], mask_stems: Collection[str]
) -> Affixes | None:
    """Finds a way of naming by which every image has a mask.

    Args:
      image_stems: of all images, with their subfolders.
      mask_stems: of all masks; there may be more of them, of other kinds.

    Returns:
      The way that leaves the fewest masks over, and of these the one with the longest
      part in common; None if there is none, or if their stems are the same.
    """
    if not image_stems or len(mask_stems) < len(image_stems):
        return None
    mask_stems = set(mask_stems)
    if mask_stems.issuperset(image_stems):
        return None
    proposals = _propose(min(image_stems), mask_stems)
    found = [p for p in proposals if _suits_all(p, image_stems, mask_stems)]
    return min(found, key=_unlikeliness, default=None)


def make_pattern(folder: str, prefix: str, suffix: str, paths: Iterable[str]) -> str:
    """Makes the pattern of files for `--images` or `--masks`.

    Args:
      folder: that they lie under, already a pattern.
      prefix: of their names.
      suffix: of their names, before the ending.
      paths: of the files, relative to `folder`.
    """
    paths = list(paths)
    endings = {os.path.splitext(path)[1] for path in paths}
    ending = endings.pop() if len(endings) == 1 else ".*"
    below = "**/" if any(os.path.dirname(path) for path in paths) else ""
    name = f"{escape(prefix)}*{escape(suffix)}{ending}"
    return os.path.join(folder, below + name)


def escape(text: str) -> str:
    """Makes a pattern that matches a text and nothing else."""
    return re.sub(r"([*?[])", r"[\1]", text)


def names_masks(text: str) -> bool:
    """Tells whether a folder or an affix has a name that masks have."""
    return any(word in text.lower() for word in _MASK_WORDS)


def _propose(image_stem: str, mask_stems: Collection[str]) -> set[Affixes]:
    """Returns the ways of naming by which one image would have a mask."""
    folder, name = os.path.split(image_stem)
    cores = sorted(_list_runs(name), key=lambda run: len(run[0]), reverse=True)
    proposals = set()
    for stem in mask_stems:
        mask_folder, mask_name = os.path.split(stem)
        if mask_folder != folder:
            continue
        parts = {}
        for core, prefix, suffix in _list_runs(mask_name):
            parts.setdefault(core, []).append((prefix, suffix))
        for core, prefix, suffix in cores:
            proposals |= {
                Affixes(prefix, suffix, *affixes) for affixes in parts.get(core, ())
            }
    return proposals


def _suits_all(
    affixes: Affixes, image_stems: Collection[str], mask_stems: Collection[str]
) -> bool:
    """Tells whether every image has a mask of its own."""
    masks = set()
    for stem in image_stems:
        mask = affixes.name_mask(stem)
        # Two images of one stem would have to share their mask. Of long names there are
        # more proposals than images, and nearly all end here at the second image.
        if mask in masks or mask not in mask_stems:
            return False
        masks.add(mask)
    return True


def _list_runs(name: str) -> Iterator[tuple[str, str, str]]:
    """Yields parts of a name that begin and end with a word or a number.

    Each comes with what stands before and after it.
    """
    tokens = list(_TOKEN.finditer(name))
    ends = [token for token in tokens if token.group()[0].isalnum()]
    for place, first in enumerate(ends):
        for last in ends[place:]:
            start, stop = first.start(), last.end()
            yield name[start:stop], name[:start], name[stop:]


def _unlikeliness(affixes: Affixes) -> tuple:
    mask = (affixes.mask_prefix + affixes.mask_suffix).lower()
    image = affixes.image_prefix + affixes.image_suffix
    return (
        any(word in mask for word in _NO_LABELS),
        len(image) + len(mask),
        dataclasses.astuple(affixes),
    )
