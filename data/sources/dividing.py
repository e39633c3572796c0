"""Sets without splits of their own, divided by the names of their files."""

import hashlib
import os
from collections.abc import Iterable, Sequence

from data import schema
from data.sources import listing


def take_side(
    pairs: Sequence[listing.Pair],
    data_dir: str,
    split: str,
    *,
    is_training: bool,
    train_fraction: float | None,
    seed: int,
) -> tuple[str, list[listing.Pair]]:
    """Returns the name of a part of an undivided set, and its pairs.

    Args:
      pairs: all that there are.
      data_dir: the folder, for messages.
      split: as in `layouts.find_split`, as are the others.
      is_training: whether an empty `split` means the part to train on.
      train_fraction: share to train on, met on average.
      seed: another one divides otherwise.

    Raises:
      schema.DataError: if the set cannot be divided so.
    """
    name, is_train = _choose_side(data_dir, split, is_training, train_fraction)
    side = _divide(pairs, train_fraction, seed)[is_train]
    if pairs and not side:
        raise schema.DataError(
            f"--train_fraction={train_fraction} leaves none of the {len(pairs)} "
            f"examples of {data_dir} for the split {name}; give another fraction "
            "or another --seed."
        )
    return name, side


def _choose_side(
    data_dir: str, split: str, is_training: bool, train_fraction: float | None
) -> tuple[str, bool]:
    """Returns the name of a part of an undivided set, and whether it is for training.

    Raises:
      schema.DataError: if the set cannot be divided so.
    """
    if train_fraction is None:
        purpose = "train on" if is_training else "evaluate on"
        raise schema.DataError(
            f"--data_dir={data_dir} is not divided into splits; give --train_fraction, "
            "e.g. --train_fraction=0.8 to train on about 80% and evaluate on the rest, "
            f"or --{split_flag(is_training)}={schema.ALL_SPLITS} to {purpose} all of "
            "it.",
            kind="undivided",
        )
    name = split or ("train" if is_training else "validation")
    if name not in ("train", "val", "validation", "test"):
        raise schema.DataError(
            f"--train_fraction={train_fraction} divides {data_dir} into train and "
            f"validation; there is no split {name}. Name one of these, or "
            f"`{schema.ALL_SPLITS}`, with --{split_flag(is_training)}."
        )
    return name, name == "train"


def split_flag(is_training: bool) -> str:
    """Returns the name of the flag that names the split of a role."""
    return "train_split" if is_training else "eval_split"


def _divide(
    pairs: Iterable[listing.Pair], train_fraction: float, seed: int
) -> dict[bool, list[listing.Pair]]:
    """Returns the pairs to train on, under True, and the others.

    It is decided for each by a hash of its key and the seed, so that files that are
    added move no other file to the other side.
    """
    sides: dict[bool, list[listing.Pair]] = {True: [], False: []}
    for pair in pairs:
        digest = hashlib.sha256(f"{seed}/".encode() + os.fsencode(pair.key)).digest()
        number = int.from_bytes(digest[:8], "big")
        sides[number < train_fraction * 2**64].append(pair)
    return sides
