"""The parts of a report, each from runs to HTML; empty where nothing is to say."""

import base64
import html
import shlex
from collections.abc import Sequence
from typing import Any

from trainer.reporting import charts, reading
from trainer.settings import config as config_lib
from trainer.settings import fields

_COLORS = ("#2a78d6", "#e4572e", "#159a6c", "#c98500", "#8a5cd1", "#c2417c", "#5b6b7b")
_TRAIN_COLOR = "#8592a3"
CURVES = (
    ("mean_iou", "Mean IoU"),
    ("loss", "Loss"),
    ("pixel_accuracy", "Pixel accuracy"),
    ("mean_dice", "Mean Dice"),
    ("learning_rate", "Learning rate"),
    ("gradient_norm", "Gradient norm"),
    ("images_per_sec", "Images a second"),
    ("calibration_error", "Calibration error"),
)
"""What people look at first: tags and titles."""
_CLASS_SCORES = ("iou", "dice", "recall", "precision")
_NONE = '<span class="none">–</span>'


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
        cells = [_score(run.last(split, tag)) for split, tag, _ in tags]
        best = max(
            (v for _, v in run.curves.get(("eval", "mean_iou"), ())), default=None
        )
        rows.append(
            [_run_name(number, run), f"{run.last_step:,}", _score(best), *cells]
        )
    return _table(["Run", "Steps", "Best mean IoU", *(t for _, _, t in tags)], rows)


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
                color = _color(number)
                if is_train and len(runs) == 1:
                    color = _TRAIN_COLOR
                name = f"{run.name}, {'training' if is_train else 'evaluation'}"
                lines.append(charts.Line(name, color, points, is_train))
        if lines:
            chart = charts.draw(title, lines)
            drawn.append(f"<figure><figcaption>{title}</figcaption>{chart}</figure>")
    if not drawn:
        return "<p>No point of a curve is in the folder.</p>"
    legend = " ".join(_run_name(number, run) for number, run in enumerate(runs))
    note = "dashed: training; solid: evaluation; horizontally: steps"
    charts_in_grid = f'<div class="grid2">{"".join(drawn)}</div>'
    return f'<p class="legend">{legend} ({note})</p>{charts_in_grid}'


def classes(runs: Sequence[reading.Run]) -> str:
    """Tabulates the scores of each class, as of the last evaluation in training."""
    parts = []
    for number, run in enumerate(runs):
        rows = []
        for index, name in enumerate(run.class_names):
            values = [run.last("eval", f"{score}/{name}") for score in _CLASS_SCORES]
            if any(value is not None for value in values):
                rows.append([_class_name(run, index), *map(_bar, values)])
        if rows:
            parts.append(f"<h3>{_run_name(number, run)}</h3>")
            parts.append(_table(["Class", "IoU", "Dice", "Recall", "Precision"], rows))
    return "".join(parts)


def confusion(runs: Sequence[reading.Run]) -> str:
    """Shows what share of each true class is taken for which, of evaluations noted."""
    parts = []
    for number, run in enumerate(runs):
        if run.evaluations and run.evaluations[-1].get("confusion"):
            line = run.evaluations[-1]
            parts.append(f"<h3>{_run_name(number, run)}</h3><p>{_what(line)}</p>")
            parts.append(_matrix(line["class_names"], line["confusion"]))
    if parts:
        return "".join(parts)
    return (
        "<p>No run has a matrix noted: <code>--mode=evaluate</code> with its "
        "<code>--model_dir</code> makes one.</p>"
    )


def calibration(runs: Sequence[reading.Run]) -> str:
    """Tells whether the predicted probabilities can be believed."""
    rows = []
    for number, run in enumerate(runs):
        value = run.last("eval", "calibration_error")
        for line in run.evaluations:
            value = line["scores"].get("calibration_error", value)
        if value is not None:
            rows.append([_run_name(number, run), _score(value)])
    if rows:
        return _table(["Run", "Expected calibration error"], rows)
    return (
        "<p>Not measured: <code>--mode=evaluate --metrics=calibration</code> notes the "
        "expected calibration error.</p>"
    )


def evaluations(runs: Sequence[reading.Run]) -> str:
    """Tabulates what `--mode=evaluate` noted."""
    rows = []
    for number, run in enumerate(runs):
        for line in run.evaluations:
            scores = line["scores"]
            cells = [
                _score(scores.get(t)) for t in ("mean_iou", "pixel_accuracy", "loss")
            ]
            cells.append(_score(scores.get("images_per_sec")))
            rows.append([_run_name(number, run), _what(line), *cells])
    if not rows:
        return ""
    heads = ["Run", "What was scored", "Mean IoU", "Pixel accuracy", "Loss", "Images/s"]
    return _table(heads, rows)


def samples(runs: Sequence[reading.Run]) -> str:
    """Shows the pictures of the end of each run."""
    parts = []
    for number, run in enumerate(runs):
        path = run.folder / "predictions.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            parts.append(
                f"<h3>{_run_name(number, run)}</h3><img alt='Photos, truths, "
                f"predictions and errors' src='data:image/png;base64,{data}'>"
            )
    return "".join(parts)


def environments(runs: Sequence[reading.Run]) -> str:
    """Tabulates machine and versions of each run, a column each."""
    names = dict.fromkeys(name for run in runs for name in run.environment)
    if not names:
        return "<p>The runs are older than the file that tells.</p>"
    rows = [
        [name, *(_text(run.environment.get(name)) for run in runs)] for name in names
    ]
    return _table(["", *(_run_name(n, run) for n, run in enumerate(runs))], rows)


def settings(runs: Sequence[reading.Run]) -> str:
    """Tabulates settings: those that differ, those that are no default, the rest."""
    known = config_lib.fields_by_name()
    differing, unusual, rest = [], [], []
    for name in runs[0].settings:
        values = [run.settings[name] for run in runs]
        row = [f"<code>--{name}</code>", *map(_setting, values)]
        if any(value != values[0] for value in values):
            differing.append(row)
        elif values[0] != known[name].default:
            unusual.append(row)
        else:
            rest.append(row)
    heads = ["Setting", *(_run_name(n, run) for n, run in enumerate(runs))]
    parts = []
    if len(runs) > 1:
        parts.append("<h3>Where the runs differ</h3>")
        parts.append(_table(heads, differing) if differing else "<p>Nowhere.</p>")
    parts.append("<h3>Not the default</h3>" + _table(heads, unusual))
    parts.append(
        f"<details><summary>{len(rest)} settings at their default</summary>"
        f"{_table(heads, rest)}</details>"
    )
    return "".join(parts)


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
    return f"<pre>{html.escape(chr(10).join(lines).strip())}</pre>"


def _matrix(class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draws a confusion matrix as a table whose cells are the darker, the more."""
    rows = []
    for name, row in zip(class_names, counts, strict=True):
        total = sum(row)
        cells = [f"<th>{html.escape(name)}</th>"]
        for other, count in zip(class_names, row, strict=True):
            share = count / total if total else 0
            ink = "#fff" if share > 0.5 else "#1c2733"
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


def _what(line: Any) -> str:
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


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _run_name(number: int, run: reading.Run) -> str:
    return f'<i style="background:{_color(number)}"></i>{html.escape(run.name)}'


def _class_name(run: reading.Run, index: int) -> str:
    color = run.palette[index] if index < len(run.palette) else "transparent"
    return f'<i style="background:{color}"></i>{html.escape(run.class_names[index])}'


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _score(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.1f}" if abs(value) >= 2 else f"{value:.4f}"


def _bar(value: float | None) -> str:
    """Writes a score in 0..1 over a bar of that length."""
    if value is None:
        return _NONE
    width = f"{100 * min(max(value, 0), 1):.1f}%"
    return f'<span class="bar" style="--w:{width}">{value:.4f}</span>'


def _setting(value: Any) -> str:
    if value is None:
        return _NONE
    return html.escape(fields.format_value(value)) or "<i></i>"


def _text(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return html.escape(str(value))
