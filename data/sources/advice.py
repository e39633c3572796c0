"""Remedies for images and masks whose names do not fit each other."""

from collections.abc import Sequence

from data import schema
from data.sources import globs, listing, naming


def advise(
    folder: listing.Folder,
    paths: tuple[str, str],
    split: str,
    *,
    splits: Sequence[str],
    files: Sequence[dict[str, list[str]]],
    problems: list[listing.Problem],
) -> list[listing.Problem]:
    """Puts a remedy to files without a partner of their name but with one of another.

    That is patterns, tried on all splits, or else new names for the masks of one.

    Args:
      folder: the folder of the data set.
      paths: folders in it of the images and of the masks; `{split}` in them stands for
        the split.
      split: that has the problems.
      splits: all that there are.
      files: images and masks of the split, by stem.
      problems: of the split.

    Returns:
      The problems, those of missing partners as one if there is a remedy.
    """
    affixes = naming.find_affixes(*files)
    if affixes is None:
        return problems
    named = [p for p in problems if p.kind == "missing_pair"]
    rest = [p for p in problems if p.kind != "missing_pair"]
    all_around = (
        (affixes.image_prefix, affixes.image_suffix),
        (affixes.mask_prefix, affixes.mask_suffix),
    )
    patterns = []
    for path, around, groups in zip(paths, all_around, files, strict=True):
        start = len(path.format(split=split)) + 1
        names = [file[start:] for group in groups.values() for file in group]
        patterns.append(naming.make_pattern(path, *around, names))
    if num_pairs := _count_pairs(folder, paths[0], patterns, splits):
        remedy = (
            f"say --images='{patterns[0]}' --masks='{patterns[1]}', which pairs all "
            f"{num_pairs} images"
        )
    else:
        remedy = _advise_renaming(paths[1].format(split=split), affixes)
    unpaired = tuple(file for problem in named for file in problem.files)
    sentence = " and ".join(problem.sentence for problem in named)
    return [listing.Problem("missing_pair", sentence, unpaired, remedy), *rest]


def _count_pairs(
    folder: listing.Folder,
    images_path: str,
    patterns: Sequence[str],
    splits: Sequence[str],
) -> int:
    """Returns the number of pairs of some splits; 0 if a file is left without."""
    num_pairs = 0
    for split in splits:
        filled = [p.replace("{split}", split) for p in patterns]
        try:
            _, pairs, problems = globs.find_pairs(str(folder.path), *filled)
        except schema.DataError:
            return 0
        images_folder = images_path.format(split=split)
        if problems or len(pairs) < sum(1 for _ in folder.find_images(images_folder)):
            return 0
        num_pairs += len(pairs)
    return num_pairs


def _advise_renaming(mask_folder: str, affixes: naming.Affixes) -> str:
    """Says how the masks of one split are to be named like their images."""
    image = f"{affixes.image_prefix}NAME{affixes.image_suffix}"
    mask = f"{affixes.mask_prefix}NAME{affixes.mask_suffix}"
    return (
        f"in {mask_folder}/ rename the masks from {mask} to {image}, as no pattern "
        "fits all splits"
    )
