"""The page of a report: one file, which loads nothing from anywhere."""

import datetime
import html
from collections.abc import Sequence

from trainer.reporting import calibration, examples, reading, sections

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --panel: #f5f7f9; --line: #dfe4ea;
  --soft: #5b6b7b; --ink: #1c2733; --link: #2a78d6; --bar: #cfe1f7; --none: #a6b0bb; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14191f;
  --panel: #1e252d; --line: #323c47; --soft: #9aa8b6; --ink: #e3e9ef; --link: #6aaaf2;
  --bar: #264a72; --none: #5d6a77; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 64px; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 40px 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; } h4 { font-size: 14px; margin: 16px 0 6px; }
p { margin: 6px 0; } .note, .legend { color: var(--soft); }
nav a { margin-right: 14px; color: var(--link); text-decoration: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td:first-child { white-space: nowrap; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 5px 14px 5px 8px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.matrix td { text-align: right; border: 2px solid var(--paper); min-width: 76px; }
i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; box-shadow: inset 0 0 0 1px rgba(0, 0, 0, .25); }
td > i:only-child:empty:last-child { box-shadow: none; }
.none { color: var(--none); }
.bar { display: block; min-width: 110px; padding: 0 4px; background:
  linear-gradient(var(--bar), var(--bar)) 0 / var(--w) 100% no-repeat;
  border-radius: 3px; }
.grid2 { display: grid; gap: 14px 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
.y { text-anchor: end; } .x { text-anchor: middle; }
.legend span { white-space: nowrap; margin-left: 10px; }
.ignored { background: #808080; } .wrong { background: #d62728; }
.strips { display: grid; gap: 14px 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); }
.strips img { width: 100%; display: block; }
.strips figcaption { font-weight: 400; font-size: 13px; overflow-wrap: anywhere; }
.small { max-width: 440px; } .diagonal { stroke: var(--soft); stroke-dasharray: 5 4; }
.grid { stroke: var(--line); } .touch { fill: transparent; }
img { max-width: 100%; border: 1px solid var(--line); }
pre { background: var(--panel); padding: 12px; overflow-x: auto; }
summary { cursor: pointer; margin: 12px 0; color: var(--soft); }
@media print { nav, details { display: none; } figure { break-inside: avoid; } }
"""
_SECTIONS = (
    ("Scores", sections.overview),
    ("Curves", sections.curves),
    ("Classes", sections.classes),
    ("Confusion", sections.confusion),
    ("Calibration", calibration.section),
    ("Evaluations", sections.evaluations),
    ("Worst and best", examples.section),
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
