"""A self-contained page: text that cannot become markup, tables, and rows of inline SVG for light and dark screens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..data.files import whole_file

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5c6675; --line: #d9dee6; --page: #ffffff; --card: #f5f7fa;
  --model: #1f5fd0; --other: #8a94a3; --good: #17794a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a3adba; --line: #343c48; --page: #14181f;
  --card: #1c222b; --model: #7fb0ff; --other: #7d8796; --good: #63d29b; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; max-width: 46rem; } .soft { color: var(--soft); font-size: .875rem; }
.verdict { background: var(--card); border-left: 4px solid var(--model); padding: .75rem 1rem; border-radius: 4px; }
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--page) 40%, transparent) 0 / 2rem 100% no-repeat local,
  linear-gradient(to left, var(--page) 40%, transparent) 100% / 2rem 100% no-repeat local,
  linear-gradient(to right, var(--other), transparent) 0 / .5rem 100% no-repeat,
  linear-gradient(to left, var(--other), transparent) 100% / .5rem 100% no-repeat; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
.wide td { white-space: normal; vertical-align: top; } .wide td:first-child { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
tr.model td { font-weight: 600; }
.row { display: grid; grid-template-columns: 11rem 1fr 12rem; gap: .75rem; align-items: center; padding: .15rem 0;
  font-size: .875rem; } .row > :last-child { font-variant-numeric: tabular-nums; color: var(--soft); }
.row.model > :first-child { font-weight: 600; } .row svg { width: 100%; height: 1.25rem; display: block; }
.axis { color: var(--soft); font-size: .75rem; }
.axis > :nth-child(2) { display: flex; justify-content: space-between; }
.base { stroke: var(--line); } .model .mark { stroke: var(--model); } .other .mark { stroke: var(--other); }
.bar-model { fill: var(--model); } .bar-other { fill: var(--other); }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin: 0 .3rem 0 .75rem; }
.users { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; }
.user { background: var(--card); border-radius: 6px; padding: 1rem; font-size: .875rem; overflow-wrap: anywhere; }
.user ol, .user ul { margin: .25rem 0 .75rem; padding-left: 1.5rem; } .hit { color: var(--good); font-weight: 600; }
.miss { color: var(--bad); } dl { font-size: .875rem; } dt { color: var(--soft); } dd { margin: 0 0 .4rem; }
@media (max-width: 40rem) { .row { grid-template-columns: 1fr; gap: 0; padding: .4rem 0; } .axis > :first-child,
  .axis > :last-child { display: none; } }
"""


@dataclass(frozen=True)
class Interval:
    """A row of an interval plot.

    Args:
        name: Label.
        value, low, high: Mean and ends.
        shown: The figures as text.
        is_model: Whether it is the one that the page is about.
    """

    name: str
    value: float
    low: float
    high: float
    shown: str
    is_model: bool = False


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page, whole or not at all; it asks for nothing from anywhere and runs no script."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    body = "\n".join(parts)
    with whole_file(path) as draft:
        draft.write_text(
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
            encoding="utf-8",
        )


def text(tag: str, content: object, kind: str = "") -> str:
    """An element that holds text alone.

    Example:
        >>> text("p", "<b> & co", "soft")
        '<p class="soft">&lt;b&gt; &amp; co</p>'
    """
    return f"<{tag}{_class(kind)}>{escape(str(content))}</{tag}>"


def prose(content: str, kind: str = "") -> str:
    """A paragraph of ours, with what stands in backticks as code.

    Example:
        >>> prose("use `hfrec blend` & wait")
        '<p>use <code>hfrec blend</code> &amp; wait</p>'
    """
    marked = re.sub("`([^`]+)`", r"<code>\1</code>", escape(content))
    return f"<p{_class(kind)}>{marked}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, model: str | None = None, wide: bool = False) -> str:
    """A table that scrolls by itself on a narrow screen, its edge darker where there is more.

    Args:
        head: Titles of the columns.
        rows: Cells.
        model: The row that begins so stands out.
        wide: Break its cells at their spaces.
    """
    titles = "".join(text("th", name) for name in head)
    body = "".join(
        f"<tr{_class('model' if row[0] == model else '')}>{''.join(text('td', cell) for cell in row)}</tr>"
        for row in rows
    )
    kind = _class("wide" if wide else "")
    return f'<div class="scroll"><table{kind}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def intervals(rows: Sequence[Interval], *, zero: bool = True) -> str:
    """Means with their intervals on one scale, from zero unless said otherwise; a line marks zero."""
    ends = [end for row in rows for end in (row.low, row.high)]
    low, high = min([0.0, *ends] if zero else ends), max([0.0, *ends] if zero else ends)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return 1 + 98 * (value - low) / width

    lines = []
    for row in rows:
        kind = "model" if row.is_model else "other"
        drawn = (
            _line(place(0.0), 0, place(0.0), 20, "base") + _line(place(row.low), 10, place(row.high), 10, "mark", 2)
        ) + _line(place(row.value), 4, place(row.value), 16, "mark", 5)
        lines.append(_row(row.name, drawn, row.shown, kind))
    axis = f"{text('span', f'{low:.3g}')}{text('span', f'{high:.3g}')}"
    return "".join(lines) + f'<div class="row axis"><span></span><span>{axis}</span><span></span></div>'


def bars(rows: Sequence[tuple[str, float, float]]) -> str:
    """Two shares side by side, the first one that of the model, on one scale from zero."""
    highest = max((max(first, second) for _, first, second in rows), default=0.0) or 1.0
    return "".join(
        _row(
            name,
            f'<rect class="bar-model" x="0" y="2" height="7" width="{100 * first / highest:.2f}"/>'
            f'<rect class="bar-other" x="0" y="11" height="7" width="{100 * second / highest:.2f}"/>',
            f"{first:.1%} · {second:.1%}",
            "bars",
        )
        for name, first, second in rows
    )


def _row(name: str, drawn: str, shown: str, kind: str) -> str:
    picture = (
        f'<svg viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label="{escape(shown)}">{drawn}</svg>'
    )
    return f"<div{_class(f'row {kind}')}>{text('span', name)}{picture}{text('span', shown)}</div>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, width: int = 1) -> str:
    place = f'x1="{x1:.2f}" y1="{y1}" x2="{x2:.2f}" y2="{y2}"'
    return f'<line class="{kind}" {place} stroke-width="{width}" vector-effect="non-scaling-stroke"/>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
