"""The parts of a report, each from runs to HTML; empty where nothing is to say."""

import html
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import errors
from trainer.remote import mirrors
from trainer.reporting import charts, elements, reading
from trainer.settings import config as config_lib

_TRAIN_COLOR = "#8592a3"
CURVES = (
    ("mean_iou", "Mean IoU"),
    ("loss", "Loss"),
    ("pixel_accuracy", "Pixel accuracy"),
    ("mean_dice", "Mean Dice"),
    ("learning_rate", "Learning rate"),
    ("gradient_norm", "Gradient norm"),
    ("images_per_sec", "Images a second"),
    ("input_share", "Share of time waiting for input"),
    ("calibration_error", "Calibration error"),
)
"""What people look at first: tags and titles."""
_CLASS_SCORES = ("iou", "dice", "recall", "precision")


def overview(runs: Sequence[reading.Run]) -> str:
    """Tabulates the scores of the last evaluation in training, and the speed."""
    tags = [
        ("eval", "mean_iou", "Mean IoU"),
        ("eval", "pixel_accuracy", "Pixel accuracy"),
        ("eval", "loss", "Loss"),
        ("train", "images_per_sec", "Training, images/s"),
        ("eval", "images_per_sec", "Evaluation, images/s"),
    ]
    rows = []
    for number, run in enumerate(runs):
        values = [
            run.score(tag) if split == "eval" else run.last(split, tag)
            for split, tag, _ in tags
        ]
        best = max(
            (v for _, v in run.curves.get(("eval", "mean_iou"), ())), default=None
        )
        rows.append(
            [
                elements.run_name(number, run),
                f"{run.last_step:,}",
                *map(elements.score, [best, *values]),
            ]
        )
    heads = ["Run", "Steps", "Best mean IoU", *(title for _, _, title in tags)]
    return elements.table(heads, rows)


def curves(runs: Sequence[reading.Run]) -> str:
    """Draws the curves of training (dashed) and evaluation."""
    drawn = []
    for tag, title in CURVES:
        lines = []
        for number, run in enumerate(runs):
            for split in ("eval", "train"):
                points = run.curves.get((split, tag))
                if not points:
                    continue
                is_train = split == "train"
                color = elements.color(number)
                if is_train and len(runs) == 1:
                    color = _TRAIN_COLOR
                name = f"{run.name}, {'training' if is_train else 'evaluation'}"
                lines.append(charts.Line(name, color, points, is_train))
        if lines:
            chart = charts.draw(title, lines)
            drawn.append(f"<figure><figcaption>{title}</figcaption>{chart}</figure>")
    if not drawn:
        return "<p>No point of a curve is in the folder.</p>"
    legend = " ".join(elements.run_name(number, run) for number, run in enumerate(runs))
    note = "dashed: training; solid: evaluation; horizontally: steps"
    charts_in_grid = f'<div class="grid2">{"".join(drawn)}</div>'
    return f'<p class="legend">{legend} ({note})</p>{charts_in_grid}'


def classes(runs: Sequence[reading.Run]) -> str:
    """Tabulates the scores of each class, as of the last evaluation in training."""
    parts = []
    for number, run in enumerate(runs):
        rows = []
        for index, name in enumerate(run.class_names):
            values = [run.score(f"{score}/{name}") for score in _CLASS_SCORES]
            if any(value is not None for value in values):
                cells = map(elements.bar, [*values, run.share_of_pixels(name)])
                rows.append([elements.class_name(run, index), *cells])
        if rows:
            parts.append(f"<h3>{elements.run_name(number, run)}</h3>")
            heads = ["Class", "IoU", "Dice", "Recall", "Precision", "Share of pixels"]
            parts.append(elements.table(heads, rows))
    note = "<p class='note'>As of the last evaluation in training; shares of pixels as "
    note += "of the last <code>--mode=evaluate</code>.</p>"
    return note + "".join(parts) if parts else ""


def confusion(runs: Sequence[reading.Run]) -> str:
    """Shows what share of each true class is taken for which, of evaluations noted."""
    parts = []
    for number, run in enumerate(runs):
        if run.evaluations and run.evaluations[-1].get("confusion"):
            line = run.evaluations[-1]
            name, what = elements.run_name(number, run), elements.evaluation(line)
            parts.append(f"<h3>{name}</h3><p>{what}</p>")
            parts.append(_matrix(line["class_names"], line["confusion"]))
    if parts:
        return "".join(parts)
    return (
        "<p>No run has a matrix noted: <code>--mode=evaluate</code> with its "
        "<code>--model_dir</code> makes one.</p>"
    )


def evaluations(runs: Sequence[reading.Run]) -> str:
    """Tabulates what `--mode=evaluate` noted."""
    rows = []
    for number, run in enumerate(runs):
        for line in run.evaluations:
            scores = line["scores"]
            cells = [
                elements.score(scores.get(t))
                for t in ("mean_iou", "pixel_accuracy", "loss")
            ]
            cells.append(elements.score(scores.get("images_per_sec")))
            when = html.escape(str(line.get("time", ""))[:16].replace("T", " "))
            what = elements.evaluation(line)
            rows.append([elements.run_name(number, run), when, what, *cells])
    if not rows:
        return ""
    heads = [
        "Run",
        "When (UTC)",
        "What was scored",
        "Mean IoU",
        "Pixel accuracy",
        "Loss",
        "Images/s",
    ]
    return elements.table(heads, rows)


def samples(runs: Sequence[reading.Run]) -> str:
    """Shows the pictures of the end of each run."""
    parts = []
    for number, run in enumerate(runs):
        path = run.folder / "predictions.png"
        if path.is_file():
            words = "Photos, truths, predictions and errors"
            parts.append(
                f"<h3>{elements.run_name(number, run)}</h3>"
                f"{elements.picture(path.read_bytes(), words)}"
            )
    return "".join(parts)


def environments(runs: Sequence[reading.Run]) -> str:
    """Tabulates machine and versions of each run, a column each."""
    names = dict.fromkeys(name for run in runs for name in run.environment)
    if not names:
        return "<p>The runs are older than the file that tells.</p>"
    rows = [
        [name, *(elements.text(run.environment.get(name)) for run in runs)]
        for name in names
    ]
    return elements.table(
        ["", *(elements.run_name(n, run) for n, run in enumerate(runs))], rows
    )


def settings(runs: Sequence[reading.Run]) -> str:
    """Tabulates settings: those that differ, those that are no default, the rest."""
    expected = [_without_typing(run.settings) for run in runs]
    differing, unusual, rest = [], [], []
    for name in runs[0].settings:
        values = [run.settings[name] for run in runs]
        row = [f"<code>--{name}</code>", *map(elements.setting, values)]
        if any(value != values[0] for value in values):
            differing.append(row)
        elif any(values[0] != others[name] for others in expected):
            unusual.append(row)
        else:
            rest.append(row)
    heads = ["Setting", *(elements.run_name(n, run) for n, run in enumerate(runs))]
    parts = []
    if len(runs) > 1:
        parts.append("<h3>Where the runs differ</h3>")
        parts.append(
            elements.table(heads, differing) if differing else "<p>Nowhere.</p>"
        )
    parts.append("<h3>Not the default</h3>" + elements.table(heads, unusual))
    parts.append(
        f"<details><summary>{len(rest)} settings at their default</summary>"
        f"{elements.table(heads, rest)}</details>"
    )
    return "".join(parts)


def _without_typing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what settings would be by defaults and by what follows from others.

    What is derived, as the random changes are from `--augment`, has no default.
    """
    base = config_lib.from_dict({"model_dir": "."}).as_dict()
    given = {
        name: settings[name]
        for name, field in config_lib.fields_by_name().items()
        if field.default is not None and settings.get(name, base[name]) != base[name]
    }
    try:
        derived = config_lib.from_dict({"model_dir": ".", **given}).as_dict()
    except errors.ConfigError:  # A check that needs what was derived.
        return base
    return {**derived, **{name: base[name] for name in given}}


def commands(runs: Sequence[reading.Run]) -> str:
    """Gives the commands that train each run again, score it and look at it."""
    lines = []
    for run in runs:
        folder = shlex.quote(str(run.folder))
        flags = shlex.quote(str(run.folder / "config.flags"))
        again = shlex.quote(f"{run.folder}-again")
        lines += [
            f"# {run.name}: train again, score, watch",
            f"python -m trainer.main --flagfile={flags} --model_dir={again}",
            f"python -m trainer.main --mode=evaluate --model_dir={folder}",
            f"tensorboard --logdir={folder}",
            "",
        ]
    text = mirrors.as_typed("\n".join(lines).strip())
    return f"<pre>{html.escape(text)}</pre>"


def _matrix(class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draws a confusion matrix as a table whose cells are the darker, the more."""
    rows = []
    for name, row in zip(class_names, counts, strict=True):
        total = sum(row)
        cells = [f"<th>{html.escape(name)}</th>"]
        for other, count in zip(class_names, row, strict=True):
            share = count / total if total else 0
            ink = "#fff" if share > 0.5 else "inherit"
            title = html.escape(f"{name} taken for {other}: {count:,} pixels")
            text = f"{share:.1%}" if total else "–"
            cells.append(
                f'<td title="{title}" style="background:rgba(24,84,168,{share:.3f});'
                f'color:{ink}">{text}</td>'
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in class_names)
    head = f"<tr><th>true \\ predicted</th>{heads}</tr>"
    return (
        f'<div class="wide"><table class="matrix">{head}{"".join(rows)}</table></div>'
    )
