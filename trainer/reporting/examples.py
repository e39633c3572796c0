"""The best, typical and worst predictions, as the last evaluation kept them."""

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.reporting import charts, elements, reading

_KINDS = {"worst": "Worst", "typical": "Typical", "best": "Best"}


def section(runs: Sequence[reading.Run]) -> str:
    """Shows photos, truths, predictions and errors, with names and scores."""
    parts = []
    for number, run in enumerate(runs):
        lines = [line for line in run.evaluations if line.get("examples")]
        if not lines:
            continue
        parts.append(f"<h3>{elements.run_name(number, run)}</h3>")
        parts.append(f"<p class='note'>{elements.evaluation(lines[-1])}</p>")
        parts.append(_show(run, lines[-1], elements.color(number)))
    if parts:
        return "".join(parts)
    return (
        "<p>None kept: <code>--mode=evaluate</code> with the run's "
        "<code>--model_dir</code> keeps some, unless the run is one with "
        "<code>--nokeep_golden</code>.</p>"
    )


def _show(run: reading.Run, line: Mapping[str, Any], color: str) -> str:
    """Shows the examples of an evaluation, kind by kind."""
    legend = [elements.class_name(run, i) for i in range(len(run.class_names))]
    legend += ['<i class="ignored"></i>ignored', '<i class="wrong"></i>wrong']
    parts = [
        '<p class="legend">From left to right: photo, truth, prediction, errors. '
        f"<span>{'</span> <span>'.join(legend)}</span></p>"
    ]
    if counts := line.get("images_by_mean_iou"):
        parts.append(_draw_scores(counts, color))
    for kind, title in _KINDS.items():
        figures = [
            _show_example(run, example)
            for example in line["examples"]
            if example.get("kind") == kind
        ]
        if figures:
            parts.append(
                f'<h4>{title}</h4><div class="strips">{"".join(figures)}</div>'
            )
    return "".join(parts)


def _show_example(run: reading.Run, example: Mapping[str, Any]) -> str:
    """Shows an example; of a picture that is gone, its name and score."""
    name, score = str(example.get("name")), example.get("mean_iou")
    caption = f"{html.escape(name)} <b>{elements.score(score)}</b>"
    picture = pathlib.PurePosixPath(str(example.get("picture")))
    is_inside = not picture.is_absolute() and ".." not in picture.parts
    path = run.folder / picture
    if is_inside and path.is_file():
        image = elements.picture(path.read_bytes(), name)
    else:
        image = "<p class='none'>The picture is gone.</p>"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _draw_scores(counts: Sequence[int], color: str) -> str:
    """Draws how many images have which mean IoU."""
    most, number = max(*counts, 1), len(counts)
    titles = [
        f"{count:,} images with {i / number:.2f} to {(i + 1) / number:.2f}"
        for i, count in enumerate(counts)
    ]
    chart = charts.draw_bars(
        "Images by their mean IoU",
        [count / most for count in counts],
        color=color,
        titles=titles,
        top=most,
    )
    return (
        '<figure class="small"><figcaption>Images by their mean IoU</figcaption>'
        f"{chart}</figure>"
    )
