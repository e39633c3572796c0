"""Whether a run's probabilities can be believed: the diagram of their reliability."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.reporting import charts, elements, reading

_TAG = "calibration_error"


def section(runs: Sequence[reading.Run]) -> str:
    """Draws a reliability diagram of each run, above the expected calibration error."""
    drawn, rows = [], []
    for number, run in enumerate(runs):
        value = run.score(_TAG)
        for line in run.evaluations:
            value = line["scores"].get(_TAG, value)
        if value is None:
            continue
        name = elements.run_name(number, run)
        rows.append([name, elements.score(value)])
        lines = [line for line in run.evaluations if line.get("calibration")]
        if lines:
            drawn.append(
                f"<figure><figcaption>{name}</figcaption>"
                f"{_draw(lines[-1], elements.color(number))}<p class='note'>"
                f"{elements.evaluation(lines[-1])}</p></figure>"
            )
    if not rows:
        return (
            "<p>Not measured: <code>--mode=evaluate --metrics=calibration</code> notes "
            "the expected calibration error.</p>"
        )
    note = (
        "<p class='note'>Horizontally: how sure the model was of a pixel. Wide bars: "
        "the share of these pixels that is right; on the dashed line the model is as "
        "sure as it is right, below it too sure. Narrow bars: the share of all pixels "
        "that they are.</p>"
        if drawn
        else ""
    )
    table = elements.table(["Run", "Expected calibration error"], rows)
    return f'{table}{note}<div class="grid2">{"".join(drawn)}</div>'


def _draw(line: Mapping[str, Any], color: str) -> str:
    """Draws the bins of an evaluation."""
    bins = line["calibration"]
    total = sum(number for number, _, _ in bins) or 1
    bars, behind, titles = [], [], []
    for index, (number, right, confidence) in enumerate(bins):
        share = right / number if number else 0.0
        behind.append(share)
        bars.append(number / total)
        titles.append(
            f"sure by {index / len(bins):.2f} to {(index + 1) / len(bins):.2f}: "
            f"{number:,} pixels ({number / total:.1%}); {share:.3f} of them right, "
            f"{confidence:.3f} expected"
        )
    return charts.draw_bars(
        "Reliability diagram",
        bars,
        color=color,
        titles=titles,
        behind=behind,
        has_diagonal=True,
    )
