"""A report as one HTML file that needs nothing else: style, plots and pictures stand inside it."""

from __future__ import annotations

import base64
from html import escape
from typing import assert_never

from keepsight.training.reports import words
from keepsight.training.reports.document import Block, Checks, Document, Gallery, Plot, Section, Table
from keepsight.training.reports.pictures import Shown

_MARKS = {"pass": ("good", "✓"), "fail": ("bad", "✕"), "cannot_tell": ("unsure", "?"), "told": ("told", "i")}
# Long tables are folded away where a plot says the same.
_LONG = 12

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f23; --soft: #57606a; --page: #fff; --card: #f5f7f6; --line: #d8dedb;
  --plot: #0b6e4f; --plot-wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9e8; --soft: #9aa5a0; --page: #14191a; --card: #1d2424;
  --line: #334040; --plot: #4fbf95; --plot-wrong: #f2847c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem 4rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--page); }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
.sub, small, figcaption { color: var(--soft); }
.summary { font-size: 1.1rem; background: var(--card); border-left: 4px solid var(--plot); padding: 1rem 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .8rem 0; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
ul.checks { list-style: none; padding: 0; } ul.checks li { display: flex; gap: .6rem; margin: .4rem 0; }
.mark { flex: none; width: 1.5rem; height: 1.5rem; border-radius: 50%; text-align: center; color: #fff; }
.good { background: #0b6e4f; } .bad { background: #b3261e; } .unsure { background: #8a6100; }
.told { background: #57606a; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.mistake { margin: 0; background: var(--card); padding: .7rem; break-inside: avoid; }
.pair, .alike { display: flex; gap: .4rem; flex-wrap: wrap; } .pair img { width: calc(50% - .2rem); }
.alike figure { margin: 0; width: 5.2rem; font-size: .75rem; overflow-wrap: anywhere; } .alike img { width: 100%; }
summary { cursor: pointer; color: var(--soft); }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  details:not([open]) { display: none; } svg, table, .mistake { break-inside: avoid; } }
"""


def render(report: Document) -> str:
    """The document as a page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(report.title)}</h1>\n<p class="sub">{escape(report.subtitle)}</p>\n'
        f'<p class="summary">{escape(report.summary)}</p>\n'
        + "\n".join(_section(section) for section in report.sections)
        + "\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    drawn = any(isinstance(block, Plot | Gallery) for block in section.blocks)
    blocks = "\n".join(_block(block, drawn=drawn) for block in section.blocks)
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>"


def _block(block: Block, *, drawn: bool) -> str:
    match block:
        case str():
            return f"<p>{escape(block)}</p>"
        case Table():
            table = _table(block)
            if drawn and len(block.rows) > _LONG:
                return f"<details><summary>As a table</summary>{table}</details>"
            return table
        case Plot():
            return f'<div class="wide">{block.svg}</div>'
        case Checks():
            return '<ul class="checks">' + "".join(_check(*row) for row in block.rows) + "</ul>"
        case Gallery():
            return '<div class="gallery">' + "".join(_mistake(shown) for shown in block.shown) + "</div>"
        case _:
            assert_never(block)


def _table(table: Table) -> str:
    kinds = ['class="number"' if name in table.numbers else "" for name in table.head]
    head = "".join(f"<th {kind}>{escape(name)}</th>" for name, kind in zip(table.head, kinds, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td {kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _check(status: str, reason: str) -> str:
    kind, mark = _MARKS.get(status, _MARKS["cannot_tell"])
    label = escape(words.STATUSES.get(status, status))
    return (
        f'<li><span class="mark {kind}" role="img" aria-label="{label}">{mark}</span><span>{escape(reason)}</span></li>'
    )


def _mistake(shown: Shown) -> str:
    row = shown.mistake
    label, told = str(row["label"]), str(row["predicted"])
    images = _image(shown.picture, f"{label}, taken for {told}")
    if shown.lit is not None:
        images += _image(shown.lit, f"where the model looked for {told}")
    alike = "".join(
        f"<figure>{_image(data, name)}<figcaption>{escape(name)} ({cosine:.2f})</figcaption></figure>"
        for name, cosine, data in shown.nearest
    )
    return (
        f'<figure class="mistake"><div class="pair">{images}</div>'
        f"<p><strong>{escape(label)}</strong> taken for <strong>{escape(told)}</strong><br>"
        f"<small>{words.percent(row['confidence'])} sure; picture {escape(row['sample_id'][:12])}</small></p>"
        f'<div class="alike">{alike}</div></figure>'
    )


def _image(data: bytes, text: str) -> str:
    coded = base64.b64encode(data).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{coded}" alt="{escape(text)}" loading="lazy">'
