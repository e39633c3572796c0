"""The page of a report: one file, which loads nothing from anywhere."""

import datetime
import html
from collections.abc import Sequence

from trainer.reporting import reading, sections

_STYLE = """
:root { color-scheme: light; --line: #dfe4ea; --soft: #5b6b7b; --ink: #1c2733; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 64px; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 40px 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 6px 0; } .note, .legend { color: var(--soft); }
nav a { margin-right: 14px; color: #2a78d6; text-decoration: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 5px 14px 5px 8px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.matrix td { text-align: right; border: 2px solid #fff; min-width: 76px; }
i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; box-shadow: inset 0 0 0 1px rgba(0, 0, 0, .25); }
td > i:only-child:empty:last-child { box-shadow: none; }
.none { color: #a6b0bb; }
.bar { display: block; min-width: 110px; padding: 0 4px; background:
  linear-gradient(#cfe1f7, #cfe1f7) 0 / var(--w) 100% no-repeat; border-radius: 3px; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr));
  gap: 14px 24px; }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
.y { text-anchor: end; } .x { text-anchor: middle; }
.grid { stroke: var(--line); } .touch { fill: transparent; }
img { max-width: 100%; border: 1px solid var(--line); }
pre { background: #f5f7f9; padding: 12px; overflow-x: auto; }
summary { cursor: pointer; margin: 12px 0; color: var(--soft); }
@media print { nav, details { display: none; } figure { break-inside: avoid; } }
"""
_SECTIONS = (
    ("Scores", sections.overview),
    ("Curves", sections.curves),
    ("Classes", sections.classes),
    ("Confusion", sections.confusion),
    ("Calibration", sections.calibration),
    ("Evaluations", sections.evaluations),
    ("Sample", sections.samples),
    ("Machine and versions", sections.environments),
    ("Settings", sections.settings),
    ("Commands", sections.commands),
)


def render(runs: Sequence[reading.Run]) -> str:
    """Makes the page.

    Args:
      runs: at least one.

    Returns:
      A document of HTML.
    """
    title = " | ".join(run.name for run in runs)
    parts = [(name, section(runs)) for name, section in _SECTIONS]
    return compose(title, "Report of segloop", [part for part in parts if part[1]])


def compose(
    title: str, origin: str, parts: Sequence[tuple[str, str]], style: str = ""
) -> str:
    """Makes a page of its parts, with links to them on top.

    Args:
      title: of the page, text.
      origin: what made it, text.
      parts: titles, and what stands below each, both HTML.
      style: CSS besides that of all pages.

    Returns:
      A document of HTML.
    """
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    title = html.escape(title)
    links = [f'<a href="#s{n}">{name}</a>' for n, (name, _) in enumerate(parts)]
    sections_of_page = [
        f'<section id="s{number}"><h2>{name}</h2>{body}</section>'
        for number, (name, body) in enumerate(parts)
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}{style}</style></head><body>"
        f'<h1>{title}</h1><p class="note">{html.escape(origin)}, {made}</p>'
        f"<nav>{''.join(links)}</nav>{''.join(sections_of_page)}</body></html>\n"
    )
