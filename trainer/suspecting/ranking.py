"""Masks by how much they are to be doubted, the most doubtful first, with reasons."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Sequence

import numpy as np

from trainer import files
from trainer.suspecting import confident, shifts

_LEAST_SWAPPED = 0.3
"""Two classes count as swapped if of either at least this share of the pixels is
disputed in favour of the other one."""
_LEAST_GAIN = 0.05
"""A mask counts as shifted if a move raises the agreement by at least this much."""
_MOST_MOVED = 0.24
"""Of a side. A mask that fits best after a longer move, at the end of the search, fits
nowhere."""
_LEAST_MISSING = 0.2
"""A class counts as missing if at least this share of the pixels that are predicted to
be of it are not labelled so."""
_COLUMNS = (
    *("rank", "name", "split", "doubt", "disputed", "self_confidence", "reason"),
    *("move_right", "move_down", "model_has_seen_it"),
)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A mask and what a model makes of it.

    Attributes:
      split: the name of its split.
      index: its place there.
      name: of the example.
      is_seen: whether the model was trained on it.
      tally: of its labels.
      shift: of the move with which it fits best.
    """

    split: str
    index: int
    name: str
    is_seen: bool
    tally: confident.Tally
    shift: shifts.Shift


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A mask in its place of the ranking.

    Attributes:
      judged: the mask.
      doubt: see `confident.measure_doubt`.
      disputed: share of the pixels with a label that are disputed and not near a
        border.
      reason: what may be wrong; empty if nothing is disputed.
      is_shifted: whether that is that the mask lies elsewhere.
    """

    judged: Judged
    doubt: float
    disputed: float
    reason: str
    is_shifted: bool


def rank(
    judged: Sequence[Judged], class_names: Sequence[str]
) -> tuple[list[Suspect], np.ndarray]:
    """Ranks masks.

    Args:
      judged: all masks.
      class_names: of the classes.

    Returns:
      The most doubtful first, of equally doubtful ones that of which the model is less
      confident; and the threshold of each class, float64 [classes].
    """
    thresholds = confident.find_thresholds([mask.tally for mask in judged])
    suspects = [_suspect(mask, thresholds, class_names) for mask in judged]
    suspects.sort(
        key=lambda suspect: (-suspect.doubt, suspect.judged.tally.self_confidence)
    )
    return suspects, thresholds


def _suspect(
    judged: Judged, thresholds: np.ndarray, class_names: Sequence[str]
) -> Suspect:
    tally = judged.tally
    disputed = confident.count_disputed(tally, thresholds)
    reason, is_shifted = _explain(disputed, judged, class_names)
    return Suspect(
        judged=judged,
        doubt=confident.measure_doubt(disputed, tally),
        disputed=float(disputed.sum() / max(tally.labelled.sum(), 1)),
        reason=reason,
        is_shifted=is_shifted,
    )


def _explain(
    disputed: np.ndarray, judged: Judged, class_names: Sequence[str]
) -> tuple[str, bool]:
    """Returns what may be wrong with a mask, and whether it is shifted."""
    if not disputed.any():
        return "", False
    tally, shift = judged.tally, judged.shift
    shares = disputed / np.maximum(tally.labelled, 1)[:, np.newaxis]
    mutual = np.minimum(shares, shares.T)
    first, second = np.unravel_index(mutual.argmax(), mutual.shape)
    if mutual[first, second] >= _LEAST_SWAPPED:
        return f"{class_names[first]} and {class_names[second]} swapped", False
    moved = max(abs(shift.down), abs(shift.right))
    if shift.gain >= _LEAST_GAIN and moved <= _MOST_MOVED:
        return f"shifted; fits {_describe_move(shift)}", True
    labelled, predicted = confident.find_shares(disputed, tally)
    is_missing = (predicted >= _LEAST_MISSING) & (labelled < predicted / 4)
    most = (disputed.sum(axis=0) * is_missing).argmax()
    if is_missing[most]:
        return f"{predicted[most]:.0%} of {class_names[most]} missing", False
    label, other = np.unravel_index(disputed.argmax(), disputed.shape)
    return f"{class_names[other]} labelled {class_names[label]}", False


def _describe_move(shift: shifts.Shift) -> str:
    """Says where a mask fits better, in shares of the sides."""
    parts = []
    for share, ahead, back in (
        (shift.right, "right", "left"),
        (shift.down, "down", "up"),
    ):
        if share:
            parts.append(f"{abs(share):.0%} {ahead if share > 0 else back}")
    return " and ".join(parts)


def format_table(suspects: Sequence[Suspect]) -> str:
    """Lays out suspects for a terminal."""
    width = max((len(suspect.reason) for suspect in suspects), default=0)
    lines = [f"rank  doubt  {'what may be wrong':{width}}  mask of"]
    for place, suspect in enumerate(suspects, start=1):
        name = f"{suspect.judged.name} ({suspect.judged.split})"
        lines.append(
            f"{place:4}  {suspect.doubt:.3f}  {suspect.reason:{width}}  {name}"
        )
    return "\n".join(lines)


def write_csv(path: pathlib.Path, suspects: Sequence[Suspect]) -> None:
    """Writes all suspects as a table, the first one first.

    Moves are shares of the sides, there where the reason is that a mask is shifted.

    Raises:
      errors.WriteError: if that fails.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for place, suspect in enumerate(suspects, start=1):
        judged, move = suspect.judged, ("", "")
        if suspect.is_shifted:
            move = (f"{judged.shift.right:.4f}", f"{judged.shift.down:.4f}")
        writer.writerow(
            (
                *(place, judged.name, judged.split, f"{suspect.doubt:.6f}"),
                *(f"{suspect.disputed:.6f}", f"{judged.tally.self_confidence:.6f}"),
                *(suspect.reason, *move, str(judged.is_seen).lower()),
            )
        )
    files.write_text(path, text.getvalue())


def write_pairs(path: pathlib.Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Writes pairs of photos that look the same as a table.

    Raises:
      errors.WriteError: if that fails.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("first", "second"))
    writer.writerows(pairs)
    files.write_text(path, text.getvalue())
