"""Charts as plain SVG: nothing to load, and sharp on paper."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 10, 28
_MOST_MARKS = 60
"""Of a line with more points, single ones would hide the line."""
_MOST_TICKS = 5


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      name: as the pointer's tooltip shows it.
      color: of CSS.
      points: (step, value), by step; not empty.
      is_dashed: whether it stands behind the others.
    """

    name: str
    color: str
    points: Sequence[tuple[int, float]]
    is_dashed: bool = False


def draw(title: str, lines: Sequence[Line]) -> str:
    """Draws lines over steps, with axes; each point tells its numbers.

    Args:
      title: what the values are, for screen readers.
      lines: at least one.

    Returns:
      An element of SVG.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_ticks = ticks(0, max(xs))
    y_ticks = ticks(min(ys), max(ys))
    low, high = min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])
    last = max(*xs, 1)

    def place(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + x / last * (_WIDTH - _LEFT - _RIGHT)
        share = (y - low) / ((high - low) or 1)
        return round(right, 1), round(
            _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1
        )

    parts = [_open(title)]
    parts += [_mark_height(place(0, y)[1], y) for y in y_ticks]
    parts += [_mark_place(place(x, low)[0], x) for x in x_ticks if x <= last]
    for line in sorted(lines, key=lambda line: not line.is_dashed):
        places = [place(x, y) for x, y in line.points]
        parts += _draw_line(line, places)
    return "".join([*parts, "</svg>"])


def _draw_line(line: Line, places: Sequence[tuple[float, float]]) -> list[str]:
    """Draws one line, its points and what the pointer finds there."""
    path = " ".join(f"{x},{y}" for x, y in places)
    dash = ' stroke-dasharray="5 4" opacity="0.65"' if line.is_dashed else ""
    parts = [
        f'<polyline points="{path}" fill="none" stroke="{line.color}" '
        f'stroke-width="2" stroke-linejoin="round"{dash}/>'
    ]
    radius = 3 if len(places) <= _MOST_MARKS and not line.is_dashed else 0
    for (x, y), (step, value) in zip(places, line.points, strict=True):
        text = html.escape(f"{line.name}, step {step}: {number(value)}")
        if radius or len(places) == 1:
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{line.color}"/>')
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="7" class="touch"><title>{text}</title>'
            "</circle>"
        )
    return parts


def draw_bars(
    title: str,
    bars: Sequence[float],
    *,
    color: str,
    titles: Sequence[str],
    behind: Sequence[float] = (),
    top: float = 1,
    has_diagonal: bool = False,
) -> str:
    """Draws bars over equal parts of 0..1, with axes; each part tells its numbers.

    Args:
      title: what they are, for screen readers.
      bars: their heights, in 0..1.
      color: of CSS.
      titles: what the pointer finds at each.
      behind: pale bars behind these, in 0..1.
      top: what a height of 1 stands for, on the axis.
      has_diagonal: whether to draw the line of height and place alike.

    Returns:
      An element of SVG.
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bottom, pitch = _HEIGHT - _BOTTOM, width / len(bars)
    parts = [_open(title)]
    for value in ticks(0, top):
        if value <= top:
            y = round(bottom - value / top * height, 1)
            parts.append(_mark_height(y, value))
    for value in ticks(0, 1):
        x = round(_LEFT + value * width, 1)
        parts.append(_mark_place(x, value))

    def draw_one(index: int, share: float, style: str, gap: float) -> str:
        left, tall = _LEFT + index * pitch + gap, share * height
        return (
            f'<rect x="{left:.1f}" y="{bottom - tall:.1f}" '
            f'width="{pitch - 2 * gap:.1f}" height="{tall:.1f}" {style}/>'
        )

    for index, share in enumerate(behind):
        parts.append(draw_one(index, share, f'fill="{color}" opacity="0.35"', 0.5))
    for index, share in enumerate(bars):
        parts.append(draw_one(index, share, f'fill="{color}"', 7 if behind else 1))
    if has_diagonal:
        parts.append(
            f'<line x1="{_LEFT}" y1="{bottom}" x2="{_LEFT + width}" y2="{_TOP}" '
            'class="diagonal"/>'
        )
    for index, text in enumerate(titles):
        touch = draw_one(index, 1, 'class="touch"', 0).removesuffix("/>")
        parts.append(f"{touch}><title>{html.escape(text)}</title></rect>")
    return "".join([*parts, "</svg>"])


def _open(title: str) -> str:
    """Opens a chart."""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">'
    )


def _mark_height(y: float, value: float) -> str:
    """Marks a value of the vertical axis."""
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4}" class="y">{number(value)}</text>'
    )


def _mark_place(x: float, value: float) -> str:
    """Marks a value of the horizontal axis."""
    return f'<text x="{x}" y="{_HEIGHT - 8}" class="x">{number(value)}</text>'


def ticks(low: float, high: float) -> list[float]:
    """Returns round numbers from about `low` to about `high`, both inside.

    They are 1, 2 or 5 times a power of ten apart, and at most six.
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= raw * 0.999)
    first, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, end + 1)]


def number(value: float) -> str:
    """Writes a number in few characters: 12,000; 0.765; 2e-05."""
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:,.0f}"
    if abs(value) < 1e-3 or abs(value) >= 1e9:
        return f"{value:.3g}"
    return f"{value:.4g}"
