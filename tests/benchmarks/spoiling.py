"""Real photos in a folder, some of their masks spoiled on purpose."""

import json
import pathlib
from collections.abc import Callable

import numpy as np

from data.files import images

NUM_PHOTOS = 300
NUM_SPOILED = 20
_NUM_EVAL = 20
"""Of the photos; the others are to train on."""
_PET, _BACKGROUND = 1, 2
"""Values in the masks of Oxford-IIIT Pet; 3 is the border between the two."""
_SHIFT = 0.12, 0.2
"""Of a side, at least and at most, that a mask is shifted in both directions."""


def shift(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Moves a mask, uint8 [height, width]; what comes in is background."""
    moved = np.full_like(mask, _BACKGROUND)
    ways = random.uniform(*_SHIFT, 2) * random.choice([-1, 1], 2)
    into, out_of = [], []
    for side, way in zip(mask.shape, ways, strict=True):
        count = round(side * way)
        into.append(slice(max(count, 0), side + min(count, 0)))
        out_of.append(slice(max(-count, 0), side - max(count, 0)))
    moved[tuple(into)] = mask[tuple(out_of)]
    return moved


def swap(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Calls the pet background, and the background pet."""
    del random
    swapped = mask.copy()
    swapped[mask == _PET] = _BACKGROUND
    swapped[mask == _BACKGROUND] = _PET
    return swapped


def halve(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Leaves out one half of the animal: the left, right, upper or lower one."""
    axis, is_first = random.integers(2), random.integers(2)
    places = np.nonzero(mask != _BACKGROUND)[axis]
    middle = int(np.median(places))
    half = [slice(None), slice(None)]
    half[axis] = slice(None, middle) if is_first else slice(middle, None)
    halved = mask.copy()
    halved[tuple(half)] = _BACKGROUND
    return halved


WAYS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "shifted": shift,
    "swapped": swap,
    "half missing": halve,
}


def choose(seed: int) -> dict[int, str]:
    """Returns the numbers of the photos to spoil, and in which way each; evenly."""
    numbers = np.random.default_rng(seed).permutation(NUM_PHOTOS)[:NUM_SPOILED]
    ways = list(WAYS)
    return {int(n): ways[place % len(ways)] for place, n in enumerate(numbers)}


def write(tfds_dir: str, folder: pathlib.Path, seed: int) -> dict[str, str]:
    """Writes photos and masks as a data set of `--dataset=folder`.

    Args:
      tfds_dir: holds the prepared `oxford_iiit_pet`.
      folder: to write into; `train.txt` and `val.txt` name the splits.
      seed: of the choice of masks, and of how they are spoiled.

    Returns:
      How each spoiled mask was spoiled, by the name of its photo.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    builder = tfds.builder_from_directory(f"{tfds_dir}/oxford_iiit_pet/4.0.0")
    decoders = {
        key: tfds.decode.SkipDecoding() for key in ("image", "segmentation_mask")
    }
    examples = builder.as_dataset(split=f"train[:{NUM_PHOTOS}]", decoders=decoders)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    chosen, spoiled, stems = choose(seed), {}, []
    for number, example in enumerate(examples.as_numpy_iterator()):
        stem = pathlib.Path(example["file_name"].decode()).stem
        stems.append(stem)
        (folder / "images" / f"{stem}.jpg").write_bytes(example["image"])
        mask = np.asarray(images.open_image(example["segmentation_mask"]))
        if way := chosen.get(number):
            mask = WAYS[way](mask, np.random.default_rng([seed, number]))
            spoiled[f"images/{stem}.jpg"] = way
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    for name, part in (("train", stems[_NUM_EVAL:]), ("val", stems[:_NUM_EVAL])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n")
    (folder / "spoiled.json").write_text(json.dumps(spoiled, indent=2) + "\n")
    return spoiled
