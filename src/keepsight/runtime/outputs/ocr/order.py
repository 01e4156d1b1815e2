"""The order in which a person reads lines: columns from left to right, in each from top to bottom.

A recursive cut (Nagy and Seth 1984): a page is cut along its widest empty band across, or down where both sides of the
gap hold several lines that go on side by side; a gap inside rows, such as between an item and its price, is no column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = Sequence[float]

# A gap between columns is at least this many line heights wide, and has this many lines on both sides.
_GAP = 1.0
_LINES = 4
# Two boxes are in a row where their centres are nearer than this share of the lower height.
_SAME_ROW = 0.5
# Share of rows that stand on one side of a gap only, or whose two sides are both long texts: a column, not a table.
_LONG = 2.5
_MOSTLY = 0.6


def reading_order(boxes: Sequence[Box]) -> list[int]:
    """The places of ``boxes`` (x1, y1, x2, y2) in the order of reading."""
    if not boxes:
        return []
    array = np.asarray(boxes, np.float64)
    return _ordered(array, np.arange(len(array)))


def _ordered(boxes: NDArray[np.float64], places: NDArray[np.int64]) -> list[int]:
    at = _column_gap(boxes[places])
    if at is not None:
        centre = (boxes[places, 0] + boxes[places, 2]) / 2
        return _ordered(boxes, places[centre < at]) + _ordered(boxes, places[centre >= at])
    band = _band(boxes[places])
    if band is not None:
        return _ordered(boxes, places[boxes[places, 1] < band]) + _ordered(boxes, places[boxes[places, 1] >= band])
    return [place for row in _rows(boxes, places) for place in row]


def _rows(boxes: NDArray[np.float64], places: NDArray[np.int64]) -> list[list[int]]:
    rows: list[tuple[float, float, list[int]]] = []
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    high = boxes[:, 3] - boxes[:, 1]
    for place in sorted(places.tolist(), key=lambda item: (middle[item], boxes[item, 0])):
        if rows and abs(middle[place] - rows[-1][0]) <= _SAME_ROW * min(high[place], rows[-1][1]):
            rows[-1][2].append(place)
        else:
            rows.append((float(middle[place]), float(high[place]), [place]))
    return [sorted(row, key=lambda item: boxes[item, 0]) for _, _, row in rows]


def _column_gap(boxes: NDArray[np.float64]) -> float | None:
    """The middle of the widest empty stripe between two columns of text, or None."""
    if len(boxes) < 2 * _LINES:
        return None
    high = float(np.median(boxes[:, 3] - boxes[:, 1]))
    starts = boxes[np.argsort(boxes[:, 0]), 0]
    ends = np.maximum.accumulate(boxes[np.argsort(boxes[:, 0]), 2])
    best, at = _GAP * high, None
    for place in range(len(boxes) - 1):
        gap = float(starts[place + 1] - ends[place])
        if gap > best and _two_columns(boxes, (float(starts[place + 1]) + float(ends[place])) / 2, high=high):
            best, at = gap, (float(starts[place + 1]) + float(ends[place])) / 2
    return at


def _two_columns(boxes: NDArray[np.float64], at: float, *, high: float) -> bool:
    """Whether most lines on both sides of a gap are running text, unlike the amounts or keys of a table."""
    left = boxes[boxes[:, 2] <= at]
    right = boxes[boxes[:, 0] >= at]
    if min(len(left), len(right)) < _LINES:
        return False
    long_ = [float(np.mean(side[:, 2] - side[:, 0] > _LONG * high * 2)) for side in (left, right)]
    return min(long_) >= _MOSTLY


def _band(boxes: NDArray[np.float64]) -> float | None:
    """Where to cut across so that a part below or above may have columns; None where that finds none."""
    if len(boxes) < 2 * _LINES + 1:
        return None
    tops = np.sort(boxes[:, 1])
    for top in tops[1:]:
        above, below = boxes[boxes[:, 1] < top], boxes[boxes[:, 1] >= top]
        if above[:, 3].max(initial=0) > top + 0.5 * float(np.median(boxes[:, 3] - boxes[:, 1])):
            continue
        if _column_gap(below) is not None or _column_gap(above) is not None:
            return float(top)
    return None
