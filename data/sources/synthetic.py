"""A data set drawn with NumPy: animal-like figures, partly covered, in busy places.

Every picture is a pure function of (seed, split, id), so nothing is downloaded and
nothing is stored. A figure is a few rounded limbs, each a signed distance function;
figures, clutter and occluders take their colours and textures from the same pool, so
that shape, not colour, tells what is an animal.
"""

import cmath
import functools
import math

import numpy as np

from data import schema

VERSION = 1
"""To be raised with every change that alters a pixel: part of the fingerprint."""

NUM_EXAMPLES = {"train": 1000, "test": 200}

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

LIMB_RADIUS = 0.043
"""The thinnest limb, in picture widths: inside the border, some body remains."""

# Earth, leaf, sky and dusk: furs, bushes and skies all draw from this one pool.
POOL = np.array(
    [
        list(bytes.fromhex(color))
        for color in (
            "e9c46a f4a261 d66e50 a86848 6e4e42 f0e4cd c8baa6 8a8484 545c6c "
            "60805c 92ac6e becd96 52828c 8ebcc4 bacee2 b094ba deaab0"
        ).split()
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
          split: "train" or "test"; they have no example in common.
          num_examples: how many; by default `NUM_EXAMPLES[split]`.
          size: height and width of the pictures in pixels.
          seed: another seed gives another data set of the same kind.

        Raises:
          schema.DataError: there is no such split.
        """
        _split_index(split)
        self.name = f"synthetic/{split}"
        self.info = INFO
        self._split, self._size, self._seed = split, size, seed
        self._len = NUM_EXAMPLES[split] if num_examples is None else num_examples
        self.fingerprint = f"{self.name}-v{VERSION}-{size}px-seed{seed}-n{self._len}"

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._len

    def examples(self, start: int = 0, stop: int | None = None):
        """Draws examples `start` to `stop` (exclusive), in the order of their ids.

        Returns:
          A `tf.data.Dataset` of dicts: `image` uint8 [size, size, 3], 0..255; `label`
          uint8 [size, size], 0..2; `name`, a string scalar like `synthetic/train/17`.
        """
        # Imported here, as drawing needs no TensorFlow and its import takes seconds.
        import tensorflow as tf

        size = self._size

        def draw(index):
            return draw_example(self._seed, self._split, int(index), size)

        def load(index):
            image, label = tf.numpy_function(draw, [index], (tf.uint8, tf.uint8))
            name = tf.strings.join([self.name, tf.strings.as_string(index)], "/")
            return {
                "image": tf.ensure_shape(image, [size, size, 3]),
                "label": tf.ensure_shape(label, [size, size]),
                "name": name,
            }

        start, stop, _ = slice(start, stop).indices(self._len)
        ids = tf.data.Dataset.range(start, max(start, stop))
        return ids.map(load, num_parallel_calls=2, deterministic=True)


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
    for _ in range(_choose(rng, 1, 3)):
        distance = _union(_clutter(rng), size, blend=0.03)
        fur = colors[3:5] if rng.random() < 0.4 else colors[1:3]
        _paint(image, distance, _texture(rng, size, *fur), bulge=0.015)

    *layers, eye = _animal(rng)
    distances = [_union(parts, size, blend=0.05) for parts in layers]
    _paint_animal(rng, image, distances, colors[3:6])
    _paint(image, _union(eye[:1], size), 0.25 * colors[6], bulge=0.02)
    _paint(image, _union(eye[1:], size), np.ones_like(colors[0]), bulge=0.02)

    visible = functools.reduce(np.minimum, distances)
    if rng.random() < OCCLUDER_SHARE:
        cover = _union(_occluder(rng), size, blend=0.05)
        _paint(image, cover, _texture(rng, size, *colors[6:8]), bulge=0.05)
        visible = np.maximum(visible, -cover)
    return _expose(rng, image), _trimap(visible)


def _split_index(split):
    if split not in NUM_EXAMPLES:
        known = ", ".join(NUM_EXAMPLES)
        raise schema.DataError(f"no split {split!r} of synthetic; known: {known}")
    return list(NUM_EXAMPLES).index(split)


def _between(rng, low, high):
    """Draws from [low, high) with `random`, whose stream NumPy keeps stable."""
    return low + (high - low) * rng.random()


def _choose(rng, low, high):
    return int(_between(rng, low, high))


def _pick_colors(rng):
    """Picks colours, float32 [8, 3, 1, 1]: places 0-2, fur 3-5, occluder 6-7."""
    colors = POOL[rng.random(len(POOL)).argsort()[:8]] / 255
    jitter = rng.random((8, 3)) * 0.12 - 0.06 + (rng.random((8, 1)) * 0.16 - 0.08)
    colors = np.clip(colors + jitter, 0.05, 0.97)
    return colors.astype(np.float32)[..., None, None]


@functools.lru_cache(maxsize=64)
def _spread(size, cells):
    """Makes the matrix that spreads `cells` + 1 knots smoothly over `size` pixels."""
    place = (np.arange(size) + 0.5) / size * cells
    left = place.astype(int)
    part = place - left
    weight = part * part * (3 - 2 * part)
    knots = np.arange(cells + 1)
    matrix = (knots == left[:, None]) * (1 - weight[:, None])
    matrix += (knots == left[:, None] + 1) * weight[:, None]
    return matrix.astype(np.float32)  # [size, cells + 1]


def _noise(rng, size, rows, columns):
    """Draws value noise, float32 [size, size], 0..1."""
    knots = rng.random((rows + 1, columns + 1)).astype(np.float32)
    return _spread(size, rows) @ knots @ _spread(size, columns).T


@functools.lru_cache(maxsize=8)
def _pixels(size):
    """Returns the pixel centres, float32 x [1, size] and y [size, 1], in 0..1."""
    centers = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centers[None, :], centers[:, None]


def _step(values, low, high):
    """Goes smoothly from 0 at `low` to 1 at `high`."""
    part = np.minimum(np.maximum((values - low) * (1 / (high - low)), 0), 1)
    return part * part * (3 - 2 * part)


def _texture(rng, size, base, accent):
    """Draws a surface of two colours, float32 [3, size, size]."""
    kind = _choose(rng, 0, 4)
    cells = _choose(rng, 5, 12)
    noise = _noise(rng, size, cells, cells)
    if kind == 0:  # spots
        mask = _step(noise, 0.55, 0.68)
    elif kind == 1:  # stripes, bent by the noise
        x, y = _pixels(size)
        angle, waves = _between(rng, 0, math.pi), _between(rng, 40, 80)
        phase = math.cos(angle) * x + math.sin(angle) * y + 0.06 * noise
        mask = _step(np.sin(waves * phase), -0.2, 0.5)
    elif kind == 2:  # large patches
        mask = _step(_noise(rng, size, 3, 3) + 0.3 * noise, 0.6, 0.72)
    else:  # nearly plain
        mask = 0.4 * noise
    return base + mask * (accent - base)


def _draw_background(rng, size, colors):
    """Draws far and near ground with a soft, uneven horizon."""
    _, y = _pixels(size)
    far = colors[0] * (0.98 - 0.25 * y + 0.2 * _noise(rng, size, 6, 3))
    near = _texture(rng, size, colors[1], 0.5 * (colors[1] + colors[2]))
    horizon = _between(rng, -0.2, 0.75) + 0.25 * _noise(rng, size, 1, 4)
    softness = _between(rng, 0.01, 0.2)
    return far + _step(y - horizon, 0, softness) * (near - far)


def _union(limbs, size, blend=0.0):
    """Computes the distance to a union of limbs, negative inside.

    Args:
      limbs: (start, end, start radius, end radius) for each, in picture widths; a
        point is the complex number x + iy, y pointing down.
      size: of the result in pixels.
      blend: within this distance of each other, limbs melt together.

    Returns:
      float32 [size, size], in picture widths.
    """
    x, y = _pixels(size)
    union = None
    for start, end, start_radius, end_radius in limbs:
        way = end - start
        scale = 1 / max(abs(way) ** 2, 1e-8)
        off_x, off_y = x - start.real, y - start.imag
        along = off_x * (way.real * scale) + off_y * (way.imag * scale)
        along = np.minimum(np.maximum(along, 0, out=along), 1, out=along)
        off_x, off_y = off_x - way.real * along, off_y - way.imag * along
        distance = np.sqrt(off_x * off_x + off_y * off_y)
        distance -= start_radius + (end_radius - start_radius) * along
        if union is None:
            union = distance
            continue
        nearest = np.minimum(union, distance)
        if blend:
            gap = np.maximum(blend - np.abs(union - distance), 0)
            nearest -= gap * gap * (0.25 / blend)
        union = nearest
    return union


def _aim(radius, angle):
    """Steps `radius` towards `angle`: 0 is forward, pi / 2 up, though y points down."""
    return cmath.rect(radius, -angle)


def _animal(rng):
    """Draws up an animal.

    Returns:
      Limbs behind, trunk with near legs, head, and eye: a list of limbs for each.
    """
    pitch = _between(rng, -0.1, 0.5) * _choose(rng, 0, 2)
    hip, shoulder = 0j, _aim(_between(rng, 0.3, 0.55), pitch)
    girth = _between(rng, 0.1, 0.16)
    ground = girth + _between(rng, 0.08, 0.3)
    thick = _between(rng, 0.05, 0.066)
    legs = []
    for joint in (hip, shoulder, hip, shoulder):
        foot = complex(joint.real + _between(rng, -0.09, 0.09), ground)
        legs.append((joint, foot, thick * 1.3, thick * 0.8))
        legs.append((foot, foot + 0.045, thick * 0.8, thick * 0.75))

    neck = girth * 0.8 + _between(rng, 0.06, 0.3)
    skull = shoulder + _aim(neck, _between(rng, 0.3, 1.4))
    head = _between(rng, 0.085, 0.12)
    face, far_ear, eye = _face(rng, skull, head)
    trunk = [
        (hip, shoulder, girth * _between(rng, 0.8, 1.1), girth),
        (shoulder, skull, girth * 0.75, head * 0.8),
    ]
    tail = _tail(rng, hip - _aim(0.8 * girth, pitch))
    behind = [*legs[:4], *tail, far_ear]
    return _place(rng, [behind, trunk + legs[4:], face, eye])


def _face(rng, skull, head):
    """Draws up head and near ear, the far ear, and the eye with its glint."""
    nod = -_between(rng, -0.2, 0.7)
    forward, up = _aim(1, nod), _aim(1, nod + math.pi / 2)
    snout = skull + forward * _between(rng, 0.08, 0.17)
    length = _between(rng, 0.07, 0.16)
    hangs = rng.random() < 0.25
    droop = _between(rng, 2, 2.6) if hangs else _between(rng, -0.4, 0.9)
    ear = _aim(length, nod + math.pi / 2 + droop)
    root = skull + head * (0.75 * up - 0.2 * forward)
    widths = (_between(rng, 0.036, 0.055), _between(rng, 0.02, 0.05))
    near, far = root - 0.03 * forward, root + 0.05 * forward
    pupil = skull + head * (0.25 * up + 0.35 * forward)
    glint = pupil + 0.006 * up
    return (
        [
            (skull, snout, head, head * _between(rng, 0.45, 0.75)),
            (near, near + ear, *widths),
        ],
        (far, far + ear, *widths),
        [(pupil, pupil, 0.02, 0.02), (glint, glint, 0.007, 0.007)],
    )


def _tail(rng, root):
    curl = math.pi + _between(rng, -1.2, 0.9)
    bend = root + _aim(_between(rng, 0.04, 0.16), curl)
    curl += _between(rng, -1.2, 1.2)
    tip = bend + _aim(_between(rng, 0.04, 0.16), curl)
    thick = _between(rng, 0.036, 0.05)
    return [(root, bend, thick, thick), (bend, tip, thick, 0.03)]


def _place(rng, groups):
    """Turns, mirrors, scales and moves limbs so that they fill most of the picture."""
    limbs = np.array(sum(groups, []))  # complex [limbs, 4]
    points, radii = limbs[:, :2] * _aim(1, _between(rng, -0.2, 0.2)), limbs[:, 2:].real
    if rng.random() < 0.5:
        points = -points.conj()
    spread = np.stack([points.real, points.imag])  # [2, limbs, 2]
    low, high = (spread - radii).min((1, 2)), (spread + radii).max((1, 2))
    scale = _between(rng, 0.84, 1.0) / (high - low).max()
    slack = 1 - scale * (high - low)
    corner = slack * (0.1 + 0.8 * rng.random(2))
    points = scale * points + complex(*(corner - scale * low))
    radii = scale * radii
    # The last group is the eye, which may be small.
    body_radii = radii[: len(limbs) - len(groups[-1])]
    np.maximum(body_radii, LIMB_RADIUS, out=body_radii)
    placed = iter(zip(*points.T.tolist(), *radii.T.tolist(), strict=True))
    return [[next(placed) for _ in group] for group in groups]


def _clutter(rng):
    """Draws up a stone, a log, a cactus: a few limbs that make no animal."""
    center = complex(rng.random(), rng.random())
    limbs = []
    for _ in range(_choose(rng, 1, 5)):
        end = center + _aim(_between(rng, 0, 0.25), _between(rng, 0, 2 * math.pi))
        limbs.append((center, end, _between(rng, 0.03, 0.12), 0.04))
        center += (end - center) * rng.random()
    return limbs


def _occluder(rng):
    """Draws up posts of a fence, a plank, or a bush that grows from below."""
    kind = _choose(rng, 0, 3)
    x = _between(rng, 0.15, 0.85)
    if kind == 0:
        gap, radius = _between(rng, 0.4, 0.55), _between(rng, 0.03, 0.045)
        post = (-0.1j, _between(rng, -0.1, 0.1) + 1.1j)
        places = [x + gap * i for i in (-2, -1, 0, 1, 2)]
        return [(post[0] + p, post[1] + p, radius, radius) for p in places]
    if kind == 1:
        way = _aim(0.9, _between(rng, -0.5, 0.5) + math.pi / 2 * _choose(rng, 0, 2))
        middle = complex(x, _between(rng, 0.35, 0.75))
        radius = _between(rng, 0.04, 0.07)
        return [(middle - way, middle + way, radius, radius)]
    limbs = []
    for _ in range(_choose(rng, 3, 6)):
        root = complex(x + _between(rng, -0.1, 0.1), 1.05)
        tip = complex(x + _between(rng, -0.22, 0.22), _between(rng, 0.65, 0.95))
        limbs.append((root, tip, 0.1, _between(rng, 0.04, 0.09)))
    return limbs


def _paint(image, distance, color, bulge):
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


def _paint_animal(rng, image, distances, colors):
    """Paints limbs behind, trunk and head, in place, in a coat of three colours."""
    size = image.shape[-1]
    coat = _texture(rng, size, colors[0], colors[1])
    face = coat if rng.random() < 0.7 else _texture(rng, size, colors[2], colors[1])
    for distance, color in zip(distances, (0.82 * coat, coat, face), strict=True):
        _paint(image, distance, color, bulge=0.09)


def _trimap(distance):
    """Labels a signed distance in picture widths: inside, outside, outline."""
    label = np.where(distance < 0, BODY, BACKGROUND)
    return np.where(np.abs(distance) < BORDER_WIDTH / 2, BORDER, label).astype(np.uint8)


def _expose(rng, image):
    """Lights the scene unevenly, adds sensor noise, rounds to uint8."""
    size = image.shape[-1]
    image = image * (0.8 + 0.4 * _noise(rng, size, 2, 2))
    noise = rng.random(image.shape, dtype=np.float32) - np.float32(0.5)
    image += noise * np.float32(2 * NOISE_LEVEL)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
