"""A data set drawn with NumPy: animal-like figures, partly covered, in busy places.

Every picture is a pure function of (seed, split, id), so nothing is downloaded and
nothing is stored. Figures, clutter and occluders (see `figures`) take their colours and
textures from the same pool, so that shape, not colour, tells what is an animal.
"""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data import schema
from data.sources import figures, registry

if TYPE_CHECKING:
    import tensorflow as tf

VERSION = 1
"""To be raised with every change that alters a pixel: part of the fingerprint."""

NUM_EXAMPLES = {"train": 1000, "test": 200, "validation": 40}

BODY, BACKGROUND, BORDER = range(3)

INFO = schema.DatasetInfo(
    class_names=("body", "background", "border"),
    palette=((244, 162, 97), (38, 70, 83), (255, 243, 214)),
)

BORDER_WIDTH = 6 / 128
"""Width of the border class, half of it inside the figure, in picture widths."""

OCCLUDER_SHARE = 0.4
"""The share of the pictures with something in front of the figure."""

NOISE_LEVEL = 0.035
"""Sensor noise is uniform within +/- this, of a white of 1."""

# Earth, leaf, sky and dusk: furs, bushes and skies all draw from this one pool.
POOL = np.array(
    [
        list(bytes.fromhex(color))
        for color in [
            *("e9c46a", "f4a261", "d66e50", "a86848", "6e4e42"),  # earth
            *("f0e4cd", "c8baa6", "8a8484", "545c6c"),  # stone
            *("60805c", "92ac6e", "becd96"),  # leaf
            *("52828c", "8ebcc4", "bacee2"),  # water, sky
            *("b094ba", "deaab0"),  # dusk
        ]
    ]
)
"""Colours, int [colors, 3], 0..255."""


class SyntheticSource:
    """A split of the drawn data set; see `schema.Source`."""

    def __init__(
        self,
        split: str,
        *,
        num_examples: int | None = None,
        size: int = 128,
        seed: int = 0,
    ) -> None:
        """Describes the split; nothing is drawn yet.

        Args:
          split: one of `NUM_EXAMPLES`, which have no example in common, or `all`.
          num_examples: how many of each; by default `NUM_EXAMPLES`.
          size: height and width of the pictures in pixels.
          seed: another seed gives another data set of the same kind.

        Raises:
          schema.DataError: there is no such split.
        """
        splits = list(NUM_EXAMPLES) if split == schema.ALL_SPLITS else [split]
        for part in splits:
            _split_index(part)
        self.name = f"synthetic/{split}"
        self.info = INFO
        self._size, self._seed = size, seed
        self._lengths = {
            part: NUM_EXAMPLES[part] if num_examples is None else num_examples
            for part in splits
        }
        self._len = sum(self._lengths.values())
        self.fingerprint = f"{self.name}-v{VERSION}-{size}px-seed{seed}-n{self._len}"

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._len

    def examples(self, start: int = 0, stop: int | None = None) -> "tf.data.Dataset":
        """Draws examples `start` to `stop` (exclusive), in the order of their ids.

        Returns:
          A `tf.data.Dataset` of dicts: `image` uint8 [size, size, 3], 0..255; `label`
          uint8 [size, size], 0..2; `name`, a string scalar like `synthetic/train/17`
          (of `all`, `synthetic/all/17`).
        """
        # Imported here, as drawing needs no TensorFlow and its import takes seconds.
        import tensorflow as tf

        start, stop, _ = slice(start, stop).indices(self._len)
        ids = tf.data.Dataset.range(start, max(start, stop))
        load = tf.autograph.experimental.do_not_convert(self.load)
        return ids.map(load, num_parallel_calls=2, deterministic=True)

    def load(self, index: "tf.Tensor") -> "dict[str, tf.Tensor]":
        """Draws example `index`, an int64 scalar, in a graph; see `examples`."""
        import tensorflow as tf

        size = self._size

        def draw(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            split, index = self._find(int(index))
            return draw_example(self._seed, split, index, size)

        # Without state, or --deterministic would draw one picture at a time.
        image, label = tf.numpy_function(
            draw, [index], (tf.uint8, tf.uint8), stateful=False
        )
        return {
            "image": tf.ensure_shape(image, [size, size, 3]),
            "label": tf.ensure_shape(label, [size, size]),
            "name": tf.strings.join([self.name, tf.strings.as_string(index)], "/"),
        }

    def _find(self, index: int) -> tuple[str, int]:
        """Returns the split that an example is of, and its id there."""
        for split, length in self._lengths.items():
            if index < length:
                return split, index
            index -= length
        raise IndexError(index)


def open_split(request: registry.SplitRequest) -> SyntheticSource:
    """Opens a split; see `registry`."""
    split = request.split or ("train" if request.is_training else "test")
    return SyntheticSource(split, size=min(request.image_size))


def draw_example(
    seed: int, split: str, id: int, size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a picture and its label, always the same for the same arguments.

    Returns:
      image: uint8 [size, size, 3], 0..255.
      label: uint8 [size, size]: `BODY`, `BACKGROUND` or `BORDER`.
    """
    rng = np.random.Generator(np.random.PCG64([seed, _split_index(split), id]))
    colors = _pick_colors(rng)
    image = _draw_background(rng, size, colors[:3])
    for _ in range(figures.choose(rng, 1, 3)):
        distance = figures.measure_distance(figures.make_clutter(rng), size, blend=0.03)
        fur = colors[3:5] if rng.random() < 0.4 else colors[1:3]
        _paint(image, distance, _texture(rng, size, *fur), bulge=0.015)

    *layers, eye = figures.make_animal(rng)
    distances = [figures.measure_distance(parts, size, blend=0.05) for parts in layers]
    _paint_animal(rng, image, distances, colors[3:6])
    pupil, glint = (figures.measure_distance([limb], size) for limb in eye)
    _paint(image, pupil, 0.25 * colors[6], bulge=0.02)
    _paint(image, glint, np.ones_like(colors[0]), bulge=0.02)

    visible = functools.reduce(np.minimum, distances)
    if rng.random() < OCCLUDER_SHARE:
        cover = figures.measure_distance(figures.make_occluder(rng), size, blend=0.05)
        _paint(image, cover, _texture(rng, size, *colors[6:8]), bulge=0.05)
        visible = np.maximum(visible, -cover)
    return _expose(rng, image), _trimap(visible)


def _split_index(split: str) -> int:
    if split not in NUM_EXAMPLES:
        known = ", ".join([*NUM_EXAMPLES, schema.ALL_SPLITS])
        raise schema.DataError(f"no split {split!r} of synthetic; known: {known}")
    return list(NUM_EXAMPLES).index(split)


def _pick_colors(rng: np.random.Generator) -> np.ndarray:
    """Picks colours, float32 [8, 3, 1, 1]: places 0-2, fur 3-5, occluder 6-7."""
    colors = POOL[rng.random(len(POOL)).argsort()[:8]] / 255
    jitter = rng.random((8, 3)) * 0.12 - 0.06 + (rng.random((8, 1)) * 0.16 - 0.08)
    colors = np.clip(colors + jitter, 0.05, 0.97)
    return colors.astype(np.float32)[..., None, None]


@functools.lru_cache(maxsize=64)
def _spread(size: int, cells: int) -> np.ndarray:
    """Makes the matrix that spreads `cells` + 1 knots smoothly over `size` pixels."""
    place = (np.arange(size) + 0.5) / size * cells
    left = place.astype(int)
    part = place - left
    weight = part * part * (3 - 2 * part)
    knots = np.arange(cells + 1)
    matrix = (knots == left[:, None]) * (1 - weight[:, None])
    matrix += (knots == left[:, None] + 1) * weight[:, None]
    return matrix.astype(np.float32)  # [size, cells + 1]


def _noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Draws value noise, float32 [size, size], 0..1."""
    knots = rng.random((rows + 1, columns + 1)).astype(np.float32)
    return _spread(size, rows) @ knots @ _spread(size, columns).T


def _step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Goes smoothly from 0 at `low` to 1 at `high`."""
    part = np.minimum(np.maximum((values - low) * (1 / (high - low)), 0), 1)
    return part * part * (3 - 2 * part)


def _texture(
    rng: np.random.Generator, size: int, base: np.ndarray, accent: np.ndarray
) -> np.ndarray:
    """Draws a surface of two colours, float32 [3, size, size]."""
    kind = figures.choose(rng, 0, 4)
    cells = figures.choose(rng, 5, 12)
    noise = _noise(rng, size, cells, cells)
    if kind == 0:  # spots
        mask = _step(noise, 0.55, 0.68)
    elif kind == 1:  # stripes, bent by the noise
        x, y = figures.pixels(size)
        angle, waves = figures.between(rng, 0, math.pi), figures.between(rng, 40, 80)
        phase = math.cos(angle) * x + math.sin(angle) * y + 0.06 * noise
        mask = _step(np.sin(waves * phase), -0.2, 0.5)
    elif kind == 2:  # large patches
        mask = _step(_noise(rng, size, 3, 3) + 0.3 * noise, 0.6, 0.72)
    else:  # nearly plain
        mask = 0.4 * noise
    return base + mask * (accent - base)


def _draw_background(
    rng: np.random.Generator, size: int, colors: np.ndarray
) -> np.ndarray:
    """Draws far and near ground with a soft, uneven horizon."""
    _, y = figures.pixels(size)
    far = colors[0] * (0.98 - 0.25 * y + 0.2 * _noise(rng, size, 6, 3))
    near = _texture(rng, size, colors[1], 0.5 * (colors[1] + colors[2]))
    horizon = figures.between(rng, -0.2, 0.75) + 0.25 * _noise(rng, size, 1, 4)
    softness = figures.between(rng, 0.01, 0.2)
    return far + _step(y - horizon, 0, softness) * (near - far)


def _paint(
    image: np.ndarray, distance: np.ndarray, color: np.ndarray, bulge: float
) -> None:
    """Paints a rounded, lit body over `image`, in place.

    Args:
      image: float32 [3, size, size].
      distance: float32 [size, size], negative inside.
      color: float32, broadcast to `image`.
      bulge: how far from the outline the surface still rises, in picture widths.
    """
    size = image.shape[-1]
    dome = np.minimum(np.maximum(distance * (-1 / bulge), 0), 1)
    dome *= 2 - dome
    # Light from the upper left: bright where the surface rises to the lower right.
    shift = np.maximum(np.arange(size) - max(1, size // 43), 0)
    slope = dome - dome[shift][:, shift]
    light = (0.6 + 0.45 * dome) + 0.4 * slope
    alpha = np.minimum(np.maximum(0.5 - distance * size, 0), 1)
    image += alpha * (color * light - image)


def _paint_animal(
    rng: np.random.Generator,
    image: np.ndarray,
    distances: Sequence[np.ndarray],
    colors: np.ndarray,
) -> None:
    """Paints limbs behind, trunk and head, in place, in a coat of three colours."""
    size = image.shape[-1]
    coat = _texture(rng, size, colors[0], colors[1])
    face = coat if rng.random() < 0.7 else _texture(rng, size, colors[2], colors[1])
    for distance, color in zip(distances, (0.82 * coat, coat, face), strict=True):
        _paint(image, distance, color, bulge=0.09)


def _trimap(distance: np.ndarray) -> np.ndarray:
    """Labels a signed distance in picture widths: inside, outside, outline."""
    label = np.where(distance < 0, BODY, BACKGROUND)
    return np.where(np.abs(distance) < BORDER_WIDTH / 2, BORDER, label).astype(np.uint8)


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Lights the scene unevenly, adds sensor noise, rounds to uint8."""
    size = image.shape[-1]
    image = image * (0.8 + 0.4 * _noise(rng, size, 2, 2))
    noise = rng.random(image.shape, dtype=np.float32) - np.float32(0.5)
    image += noise * np.float32(2 * NOISE_LEVEL)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
