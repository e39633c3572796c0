"""Small pieces of a report's page, as HTML."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.reporting import reading
from trainer.settings import fields

_COLORS = ("#2a78d6", "#e4572e", "#159a6c", "#c98500", "#8a5cd1", "#c2417c", "#5b6b7b")
_NONE = '<span class="none">–</span>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def run_name(number: int, run: reading.Run) -> str:
    """Writes the name of a run beside its colour."""
    return f'<i style="background:{color(number)}"></i>{html.escape(run.name)}'


def class_name(run: reading.Run, index: int) -> str:
    """Writes the name of a class of a run beside its colour."""
    color = run.palette[index] if index < len(run.palette) else "transparent"
    return f'<i style="background:{color}"></i>{html.escape(run.class_names[index])}'


def color(number: int) -> str:
    """Returns the colour of a run, as CSS has it."""
    return _COLORS[number % len(_COLORS)]


def score(value: float | None) -> str:
    """Writes a score, or a speed, in few digits."""
    if value is None:
        return _NONE
    return f"{value:.1f}" if abs(value) >= 2 else f"{value:.4f}"


def bar(value: float | None) -> str:
    """Writes a score in 0..1 over a bar of that length."""
    if value is None:
        return _NONE
    width = f"{100 * min(max(value, 0), 1):.1f}%"
    return f'<span class="bar" style="--w:{width}">{value:.4f}</span>'


def setting(value: Any) -> str:
    """Writes the value of a setting as a flag has it."""
    if value is None:
        return _NONE
    return html.escape(fields.format_value(value)) or "<i></i>"


def picture(png: bytes, words: str = "") -> str:
    """Embeds a picture.

    Args:
      png: the file.
      words: what it shows, for those who cannot see it.
    """
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def text(value: Any) -> str:
    """Writes what a file has of anything."""
    if value is None:
        return _NONE
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return html.escape(str(value))


def evaluation(line: Mapping[str, Any]) -> str:
    """Says what an evaluation scored."""
    words = [str(line.get("checkpoint", "")), f"on {line.get('split', '?')}"]
    words.append(f"({line.get('num_examples', '?')} examples)")
    if line.get("tta"):
        words.append("with --tta=" + ",".join(map(str, line["tta"])))
    if line.get("merge_classes"):
        words.append(
            "with --merge_classes=" + ",".join(map(str, line["merge_classes"]))
        )
    return html.escape(" ".join(words))
