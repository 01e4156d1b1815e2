"""Plots as inline SVG: no script, no style sheet, no request. They take the colour of the text around them.

``--plot`` (set by the page) is the colour of what is measured. Every plot has a text for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

MAIN = "var(--plot, #0b6e4f)"
_ROW, _NAMES, _WIDE, _RIGHT, _HEAD = 24, 230, 360, 130, 22
_SIDE, _EDGE = 300, 44
# More classes than these make cells that nobody can read.
MOST_CELLS = 30


@dataclass(frozen=True)
class Bar:
    """One line of :func:`bars`: a share with its interval and a note; ``mark`` is drawn as a second value."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    mark: float | None = None


def bars(rows: Sequence[Bar], *, title: str) -> str:
    """Shares from 0 to 100 % as horizontal bars with their intervals; a ``mark`` is a dashed line across its bar."""
    height = _HEAD + _ROW * len(rows) + 4
    parts = [_axis(height)]
    for number, row in enumerate(rows):
        top = _HEAD + number * _ROW
        middle = top + _ROW / 2
        parts.append(_text(_NAMES - 8, middle + 4, _cut(row.name, 31), anchor="end", hint=row.name))
        parts.append(f'<rect x="{_NAMES}" y="{top + 5}" width="{_WIDE}" height="{_ROW - 10}" {_TRACK}/>')
        if row.value is not None:
            parts.append(
                f'<rect x="{_NAMES}" y="{top + 5}" width="{_x(row.value) - _NAMES:.1f}" height="{_ROW - 10}" '
                f'fill="{MAIN}" fill-opacity="0.75"/>'
            )
        if row.low is not None and row.high is not None:
            left, right = _x(row.low), _x(row.high)
            parts.append(
                f'<path d="M{left:.1f} {middle - 4}v8M{left:.1f} {middle}H{right:.1f}M{right:.1f} {middle - 4}v8" '
                'stroke="currentColor" stroke-width="1.5" fill="none"/>'
            )
        if row.mark is not None:
            parts.append(
                f'<path d="M{_x(row.mark):.1f} {top + 2}v{_ROW - 4}" stroke="currentColor" stroke-width="1.5" '
                'stroke-dasharray="3 2" fill="none"/>'
            )
        told = "–" if row.value is None else f"{100 * row.value:.1f} %"
        parts.append(_text(_NAMES + _WIDE + 8, middle + 4, f"{told} {row.note}".strip()))
    return _svg(_NAMES + _WIDE + _RIGHT, height, parts, title)


def reliability(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """How often answers of each confidence were right, before calibration (hollow) and after (filled).

    On the diagonal confidence means what it says. A point's area grows with its pictures.
    """
    most = max((row["n"] for row in (*before, *after)), default=0)
    end = _EDGE + _SIDE
    parts = [
        f'<rect x="{_EDGE}" y="8" width="{_SIDE}" height="{_SIDE}" {_TRACK}/>',
        f'<path d="M{_EDGE} {8 + _SIDE}L{end} 8" stroke="currentColor" stroke-dasharray="4 4" stroke-opacity="0.6"/>',
        _text(_EDGE + _SIDE / 2, _SIDE + 42, "how sure it was", anchor="middle"),
        f'<text x="14" y="{8 + _SIDE / 2}" text-anchor="middle" transform="rotate(-90 14 {8 + _SIDE / 2})" '
        f"{_FONT}>how often it was right</text>",
    ]
    for tick in (0, 25, 50, 75, 100):
        place = tick / 100 * _SIDE
        parts.append(_text(_EDGE + place, _SIDE + 24, f"{tick}", anchor="middle"))
        parts.append(_text(_EDGE - 6, 12 + _SIDE - place, f"{tick}", anchor="end"))
    for rows, filled in ((before, False), (after, True)):
        spots = [
            (_EDGE + row["confidence"] * _SIDE, 8 + _SIDE - row["accuracy"] * _SIDE, row)
            for row in rows
            if row["n"] and row["confidence"] is not None
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
        dashes = "" if filled else ' stroke-dasharray="2 3"'
        parts.append(f'<polyline points="{line}" fill="none" stroke="{MAIN}" stroke-opacity="0.5"{dashes}/>')
        for x, y, row in spots:
            radius = 2.5 + 7 * math.sqrt(row["n"] / most)
            fill = f'fill="{MAIN}" fill-opacity="0.7"' if filled else 'fill="none"'
            hint = f"{row['n']} pictures: {100 * row['confidence']:.0f} % sure, {100 * row['accuracy']:.0f} % right"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {fill} stroke="{MAIN}">'
                f"<title>{escape(hint)}</title></circle>"
            )
    legend = end + 14
    parts.append(f'<circle cx="{legend}" cy="20" r="5" fill="none" stroke="{MAIN}"/>')
    parts.append(_text(legend + 10, 24, "before calibration"))
    parts.append(f'<circle cx="{legend}" cy="42" r="5" fill="{MAIN}" fill-opacity="0.7" stroke="{MAIN}"/>')
    parts.append(_text(legend + 10, 46, "after"))
    return _svg(legend + 130, _SIDE + 52, parts, title)


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]], *, title: str) -> str:
    """What each class (row) was taken for (column): the darker, the larger its share of the row.

    Meant for at most ``MOST_CELLS`` classes.
    """
    side = max(14, min(34, 520 // max(1, len(names))))
    left, top = 170, 130
    width = left + side * len(names)
    parts = []
    for number, name in enumerate(names):
        middle = side * number + side / 2
        parts.append(_text(left - 6, top + middle + 4, _cut(name, 24), anchor="end", hint=name))
        x = left + middle
        parts.append(
            f'<text x="{x}" y="{top - 6}" transform="rotate(-50 {x} {top - 6})" {_FONT}>{escape(_cut(name, 18))}'
            f"<title>{escape(name)}</title></text>"
        )
    for row, line in enumerate(counts):
        total = sum(line)
        for column, count in enumerate(line):
            share = count / total if total else 0.0
            hint = f"{names[row]} taken for {names[column]}: {count} of {total}"
            x, y = left + side * column, top + side * row
            colour = MAIN if row == column else "var(--plot-wrong, #b3261e)"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{side - 1}" height="{side - 1}" fill="{colour}" '
                f'fill-opacity="{0.06 + 0.94 * share:.3f}"><title>{escape(hint)}</title></rect>'
            )
            if count and side >= 20:
                parts.append(_text(x + side / 2, y + side / 2 + 4, str(count), anchor="middle"))
    return _svg(width + 70, top + side * len(names) + 6, parts, title)


_FONT = 'font-size="12" fill="currentColor"'
_TRACK = 'fill="currentColor" fill-opacity="0.07"'


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _axis(height: float) -> str:
    lines = []
    for tick in (0, 25, 50, 75, 100):
        x = _x(tick / 100)
        lines.append(f'<path d="M{x:g} {_HEAD - 4}V{height:g}" stroke="currentColor" stroke-opacity="0.15"/>')
        lines.append(_text(x, 12, f"{tick} %", anchor="middle"))
    return "".join(lines)


def _x(share: float) -> float:
    return _NAMES + _WIDE * min(1.0, max(0.0, share))


def _text(x: float, y: float, text: str, *, anchor: str = "start", hint: str = "") -> str:
    more = f"<title>{escape(hint)}</title>" if hint and hint != text else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {_FONT}>{escape(text)}{more}</text>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
