"""A page of the most doubtful masks, with the disputed pixels drawn."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.drawing import pictures
from trainer.reporting import elements, page
from trainer.suspecting import ranking

_STYLE = """
.sheet { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px 8px; }
.sheet p { grid-column: 1 / -1; margin: 14px 0 0; } .sheet img { width: 100%; }
.sheet b { color: var(--soft); position: sticky; top: 0; background: var(--paper); }
"""
_TITLES = ("photo", "mask", "prediction", "disputed")


class Shown(NamedTuple):
    """What a row of the page shows.

    Attributes:
      image: uint8 [height, width, 3].
      label: uint8 [height, width].
      prediction: uint8 [height, width].
      is_disputed: bool [height, width].
    """

    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    is_disputed: np.ndarray


def render(
    suspects: Sequence[ranking.Suspect],
    shown: Sequence[Shown],
    *,
    notes: Sequence[str],
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
) -> str:
    """Makes the page: one file, which loads nothing from anywhere.

    Args:
      suspects: in the order of the ranking.
      shown: the same masks.
      notes: sentences that stand above.
      class_names: of the classes.
      palette: the colour of each.
    """
    colors = "".join(
        f'<i style="background:rgb{tuple(color)}"></i>{html.escape(name)} '
        for name, color in zip(class_names, palette, strict=True)
    )
    rows = [f"<b>{title}</b>" for title in _TITLES]
    for place, (suspect, row) in enumerate(zip(suspects, shown, strict=True), start=1):
        judged = suspect.judged
        text = (
            f"{place}. {html.escape(judged.name)} ({html.escape(judged.split)}): "
            f"<strong>{html.escape(suspect.reason)}</strong>, doubt "
            f"{suspect.doubt:.3f}, {suspect.disputed:.1%} of the pixels disputed"
        )
        rows += [f"<p>{text}</p>", *map(_embed, _draw(row, palette))]
    body = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    body += f'<p class="legend">{colors}</p><div class="sheet">{"".join(rows)}</div>'
    return page.compose(
        "Doubtful masks", "Doctor of segloop", [("Ranking", body)], _STYLE
    )


def _draw(shown: Shown, palette: Sequence[tuple[int, int, int]]) -> list[np.ndarray]:
    """Returns the pictures of a row, uint8 [height, width, 3] each."""
    image, label = shown.image[np.newaxis], shown.label[np.newaxis]
    prediction = shown.prediction[np.newaxis]
    disputed = pictures.draw_errors(
        image,
        label,
        # Red is where the two are not the same.
        np.where(shown.is_disputed, label + 1, label),
        num_classes=len(palette),
    )
    drawn = (
        image,
        pictures.blend(image, label, palette),
        pictures.blend(image, prediction, palette),
        disputed,
    )
    return [picture[0] for picture in drawn]


def _embed(picture: np.ndarray) -> str:
    return elements.picture(tf.io.encode_png(picture).numpy())
