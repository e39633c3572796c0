"""All masks of a data set, judged by models, and what is written of that."""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from data import schema
from trainer import files
from trainer.assembly import trained_model
from trainer.drawing import pictures
from trainer.suspecting import (
    confident,
    near_duplicates,
    predicting,
    ranking,
    sheet,
    shifts,
)

NUM_SHOWN = 30
"""Masks on the terminal and on the page."""
_NUM_PAIRS = 10
"""Of near-duplicates, on the terminal."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What models make of the masks of a data set.

    Attributes:
      suspects: all masks, the most doubtful first.
      thresholds: of the classes; see `confident.find_thresholds`.
      pairs: names of photos that look the same.
    """

    suspects: list[ranking.Suspect]
    thresholds: np.ndarray
    pairs: list[tuple[str, str]]

    @property
    def first(self) -> list[ranking.Suspect]:
        """Those to show."""
        return [s for s in self.suspects[:NUM_SHOWN] if s.doubt]


def judge(
    judges: predicting.Judges,
    sources: Sequence[schema.Source],
    *,
    class_names: Sequence[str],
    image_format: schema.ImageFormat,
    seen: Sequence[bool],
) -> Judgement:
    """Judges every mask that can be used.

    Args:
      judges: the models.
      sources: the splits.
      class_names: of the classes.
      image_format: of the images.
      seen: for each split, whether the models were trained on what they judge of it.
    """
    judged, thumbnails = [], []
    for source, is_seen in zip(sources, seen, strict=True):
        bar = tqdm.tqdm(
            judges.predict(source),
            total=len(source),
            desc=f"Judging {source.name}",
            unit=" masks",
            disable=None,
        )
        for example in bar:
            judged.append(
                ranking.Judged(
                    split=source.name,
                    index=example.index,
                    name=example.name,
                    is_seen=is_seen,
                    tally=confident.count(example.label, example.probabilities),
                    shift=shifts.find_shift(example.label, example.probabilities),
                )
            )
            shown = pictures.to_rgb(example.image[np.newaxis], image_format)[0]
            thumbnails.append(near_duplicates.make_thumbnail(shown))
    pairs = [
        tuple(sorted(f"{judged[i].name} ({judged[i].split})" for i in pair))
        for pair in near_duplicates.find_pairs(thumbnails)
    ]
    return Judgement(*ranking.rank(judged, class_names), sorted(pairs))


def write(
    folder: pathlib.Path,
    judgement: Judgement,
    judges: predicting.Judges,
    sources: Sequence[schema.Source],
    trained: trained_model.TrainedModel,
    notes: Sequence[str],
) -> None:
    """Writes ranking.csv, ranking.html and near_duplicates.csv.

    Args:
      folder: to write into.
      judgement: what to write.
      judges: the models, which predict those once more that are drawn.
      sources: the splits.
      trained: a model, whose classes and images these are.
      notes: sentences on the page.

    Raises:
      errors.WriteError: if that fails.
    """
    files.make_folder(folder)
    ranking.write_csv(folder / "ranking.csv", judgement.suspects)
    first = judgement.first
    drawn = dict(_draw(first, judges, sources, trained, judgement.thresholds))
    text = sheet.render(
        first,
        [drawn[suspect.judged.split, suspect.judged.index] for suspect in first],
        notes=notes,
        class_names=trained.class_names,
        palette=trained.palette,
    )
    files.write_text(folder / "ranking.html", text)
    ranking.write_pairs(folder / "near_duplicates.csv", judgement.pairs)


def _draw(
    suspects: Sequence[ranking.Suspect],
    judges: predicting.Judges,
    sources: Sequence[schema.Source],
    trained: trained_model.TrainedModel,
    thresholds: np.ndarray,
) -> Iterator[tuple[tuple[str, int], sheet.Shown]]:
    """Yields what is to be shown of some masks, by split and place there."""
    wanted = collections.defaultdict(list)
    for suspect in suspects:
        wanted[suspect.judged.split].append(suspect.judged.index)
    for source in sources:
        for example in judges.predict_some(source, wanted[source.name]):
            label, probabilities = example.label, example.probabilities
            image = pictures.to_rgb(example.image[np.newaxis], trained.image_format)
            yield (
                (source.name, example.index),
                sheet.Shown(
                    image=image[0],
                    label=label,
                    prediction=probabilities.argmax(axis=-1).astype(np.uint8),
                    is_disputed=confident.find_disputed(
                        label, probabilities, thresholds
                    ),
                ),
            )


def format_judgement(judgement: Judgement) -> str:
    """Lays out the first masks, and photos that look the same, for a terminal."""
    lines = [ranking.format_table(judgement.first)]
    if not judgement.first:
        lines = ["The model disputes no mask."]
    if pairs := judgement.pairs:
        lines.append(f"\nPhotos that look the same ({len(pairs)} pairs):")
        some = itertools.islice(pairs, _NUM_PAIRS)
        lines += [f"    {first} = {second}" for first, second in some]
        if pairs[_NUM_PAIRS:]:
            lines.append(f"    and {len(pairs) - _NUM_PAIRS:,} more")
    return "\n".join(lines)
