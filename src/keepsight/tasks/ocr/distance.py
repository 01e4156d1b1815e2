"""How far one text is from another, and which lines of two readings of a page belong together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepsight.runtime.outputs.ocr.order import reading_order

# Two lines belong together where so much of the smaller box lies in the other.
_SHARED = 0.5


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The least number of insertions, deletions and replacements that make one of the other (Levenshtein 1966).

    Bit-parallel (Myers 1999, Hyyro 2003): one step on whole numbers for each item of ``second``.
    """
    if not first:
        return len(second)
    bits: dict[Hashable, int] = {}
    for place, item in enumerate(first):
        bits[item] = bits.get(item, 0) | 1 << place
    last = 1 << (len(first) - 1)
    mask = (last << 1) - 1
    plus, minus, distance = mask, 0, len(first)
    for item in second:
        match = bits.get(item, 0)
        zero = (((match & plus) + plus) ^ plus) | match | minus
        up = minus | ~(zero | plus) & mask
        down = plus & zero
        distance += bool(up & last) - bool(down & last)
        up = (up << 1 | 1) & mask
        plus = (down << 1 | ~(zero | up)) & mask
        minus = up & zero
    return distance


def blocks(told: Sequence[Mapping[str, Any]], true: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs (text told, true text) of lines that lie on each other, so that a split or joined line is no loss of text.

    Lines that overlap, by way of others too, make one block; within it they are joined in reading order by blanks. A
    line that nothing lies on is paired with an empty text.
    """
    boxes = [np.array([line["box"] for line in lines], np.float64).reshape(-1, 4) for lines in (told, true)]
    near = inside_of_smaller(boxes[0], boxes[1]) >= _SHARED
    label = np.arange(len(told) + len(true))
    for one, other in np.argwhere(near):
        low, high = sorted((label[one], label[len(told) + other]))
        label[label == high] = low
    pairs = []
    for block in np.unique(label):
        members = np.flatnonzero(label == block)
        texts = []
        for lines, places in (
            (told, members[members < len(told)]),
            (true, members[members >= len(told)] - len(told)),
        ):
            order = reading_order([lines[place]["box"] for place in places])
            texts.append(" ".join(str(lines[places[place]]["text"]) for place in order))
        pairs.append((texts[0], texts[1]))
    return pairs


def inside_of_smaller(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """The common area of boxes (n, 4) and (m, 4) as a share of the smaller one, (n, m)."""
    common = _common(first, second)
    smaller = np.minimum(_area(first)[:, None], _area(second)[None])
    return common / np.maximum(smaller, 1e-9)


def overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of boxes (n, 4) and (m, 4), (n, m)."""
    common = _common(first, second)
    return common / np.maximum(_area(first)[:, None] + _area(second)[None] - common, 1e-9)


def _common(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return common


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area
