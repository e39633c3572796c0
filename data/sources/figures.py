"""Figures of rounded limbs: animals, clutter and occluders, as shapes without colour.

A limb is (start, end, start radius, end radius), in picture widths: two discs and what
lies between them. A point is the complex number x + iy, y pointing down.
"""

import cmath
import functools
import math

import numpy as np

Limbs = list[tuple[complex, complex, float, float]]

LIMB_RADIUS = 0.043
"""The thinnest limb, in picture widths: inside the border, some body remains."""


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws from [low, high) with `random`, whose stream NumPy keeps stable."""
    return low + (high - low) * rng.random()


def choose(rng: np.random.Generator, low: int, high: int) -> int:
    """Draws a whole number from `low` to `high` (exclusive)."""
    return int(between(rng, low, high))


@functools.lru_cache(maxsize=8)
def pixels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixel centres, float32 x [1, size] and y [size, 1], in 0..1."""
    centers = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centers[None, :], centers[:, None]


def measure_distance(limbs: Limbs, size: int, *, blend: float = 0.0) -> np.ndarray:
    """Computes the distance to a union of limbs, negative inside.

    Args:
      limbs: at least one.
      size: of the result in pixels.
      blend: within this distance of each other, limbs melt together.

    Returns:
      float32 [size, size], in picture widths.
    """
    x, y = pixels(size)
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


def make_animal(rng: np.random.Generator) -> list[Limbs]:
    """Draws up an animal.

    Returns:
      Limbs behind, trunk with near legs, head, and eye: a list of limbs for each.
    """
    pitch = between(rng, -0.1, 0.5) * choose(rng, 0, 2)
    hip, shoulder = 0j, _aim(between(rng, 0.3, 0.55), pitch)
    girth = between(rng, 0.1, 0.16)
    ground = girth + between(rng, 0.08, 0.3)
    thick = between(rng, 0.05, 0.066)
    legs = []
    for joint in (hip, shoulder, hip, shoulder):
        foot = complex(joint.real + between(rng, -0.09, 0.09), ground)
        legs.append((joint, foot, thick * 1.3, thick * 0.8))
        legs.append((foot, foot + 0.045, thick * 0.8, thick * 0.75))

    neck = girth * 0.8 + between(rng, 0.06, 0.3)
    skull = shoulder + _aim(neck, between(rng, 0.3, 1.4))
    head = between(rng, 0.085, 0.12)
    face, far_ear, eye = _face(rng, skull, head)
    trunk = [
        (hip, shoulder, girth * between(rng, 0.8, 1.1), girth),
        (shoulder, skull, girth * 0.75, head * 0.8),
    ]
    tail = _tail(rng, hip - _aim(0.8 * girth, pitch))
    behind = [*legs[:4], *tail, far_ear]
    return _place(rng, [behind, trunk + legs[4:], face, eye])


def _face(
    rng: np.random.Generator, skull: complex, head: float
) -> tuple[Limbs, tuple[complex, complex, float, float], Limbs]:
    """Draws up head and near ear, the far ear, and the eye with its glint."""
    nod = -between(rng, -0.2, 0.7)
    forward, up = _aim(1, nod), _aim(1, nod + math.pi / 2)
    snout = skull + forward * between(rng, 0.08, 0.17)
    length = between(rng, 0.07, 0.16)
    hangs = rng.random() < 0.25
    droop = between(rng, 2, 2.6) if hangs else between(rng, -0.4, 0.9)
    ear = _aim(length, nod + math.pi / 2 + droop)
    root = skull + head * (0.75 * up - 0.2 * forward)
    widths = (between(rng, 0.036, 0.055), between(rng, 0.02, 0.05))
    near, far = root - 0.03 * forward, root + 0.05 * forward
    pupil = skull + head * (0.25 * up + 0.35 * forward)
    glint = pupil + 0.006 * up
    return (
        [
            (skull, snout, head, head * between(rng, 0.45, 0.75)),
            (near, near + ear, *widths),
        ],
        (far, far + ear, *widths),
        [(pupil, pupil, 0.02, 0.02), (glint, glint, 0.007, 0.007)],
    )


def _tail(rng: np.random.Generator, root: complex) -> Limbs:
    curl = math.pi + between(rng, -1.2, 0.9)
    bend = root + _aim(between(rng, 0.04, 0.16), curl)
    curl += between(rng, -1.2, 1.2)
    tip = bend + _aim(between(rng, 0.04, 0.16), curl)
    thick = between(rng, 0.036, 0.05)
    return [(root, bend, thick, thick), (bend, tip, thick, 0.03)]


def _place(rng: np.random.Generator, groups: list[Limbs]) -> list[Limbs]:
    """Turns, mirrors, scales and moves limbs so that they fill most of the picture."""
    limbs = np.array(sum(groups, []))  # complex [limbs, 4]
    points, radii = limbs[:, :2] * _aim(1, between(rng, -0.2, 0.2)), limbs[:, 2:].real
    if rng.random() < 0.5:
        points = -points.conj()
    spread = np.stack([points.real, points.imag])  # [2, limbs, 2]
    low, high = (spread - radii).min((1, 2)), (spread + radii).max((1, 2))
    scale = between(rng, 0.84, 1.0) / (high - low).max()
    slack = 1 - scale * (high - low)
    corner = slack * (0.1 + 0.8 * rng.random(2))
    points = scale * points + complex(*(corner - scale * low))
    radii = scale * radii
    # The last group is the eye, which may be small.
    body_radii = radii[: len(limbs) - len(groups[-1])]
    np.maximum(body_radii, LIMB_RADIUS, out=body_radii)
    placed = iter(zip(*points.T.tolist(), *radii.T.tolist(), strict=True))
    return [[next(placed) for _ in group] for group in groups]


def make_clutter(rng: np.random.Generator) -> Limbs:
    """Draws up a stone, a log, a cactus: a few limbs that make no animal."""
    center = complex(rng.random(), rng.random())
    limbs = []
    for _ in range(choose(rng, 1, 5)):
        end = center + _aim(between(rng, 0, 0.25), between(rng, 0, 2 * math.pi))
        limbs.append((center, end, between(rng, 0.03, 0.12), 0.04))
        center += (end - center) * rng.random()
    return limbs


def make_occluder(rng: np.random.Generator) -> Limbs:
    """Draws up posts of a fence, a plank, or a bush that grows from below."""
    kind = choose(rng, 0, 3)
    x = between(rng, 0.15, 0.85)
    if kind == 0:
        gap, radius = between(rng, 0.4, 0.55), between(rng, 0.03, 0.045)
        post = (-0.1j, between(rng, -0.1, 0.1) + 1.1j)
        places = [x + gap * i for i in (-2, -1, 0, 1, 2)]
        return [(post[0] + p, post[1] + p, radius, radius) for p in places]
    if kind == 1:
        way = _aim(0.9, between(rng, -0.5, 0.5) + math.pi / 2 * choose(rng, 0, 2))
        middle = complex(x, between(rng, 0.35, 0.75))
        radius = between(rng, 0.04, 0.07)
        return [(middle - way, middle + way, radius, radius)]
    limbs = []
    for _ in range(choose(rng, 3, 6)):
        root = complex(x + between(rng, -0.1, 0.1), 1.05)
        tip = complex(x + between(rng, -0.22, 0.22), between(rng, 0.65, 0.95))
        limbs.append((root, tip, 0.1, between(rng, 0.04, 0.09)))
    return limbs


def _aim(radius: float, angle: float) -> complex:
    """Steps `radius` towards `angle`: 0 is forward, pi / 2 up, though y points down."""
    return cmath.rect(radius, -angle)
